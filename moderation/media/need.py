"""Estimates from headers how much memory the decoding of an item takes.

Used to share memory between threads; not a limit. Pillow holds four bytes per pixel whatever the mode, deep samples and
pictures over two backdrops are copied, and a progressive JPEG keeps the coefficients of all its scans.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL.JpegImagePlugin import JpegImageFile

from moderation.config.model import MediaConfig
from moderation.file_types import HEAD_BYTES, MediaType, sniff
from moderation.media.container import movie_seconds, webp_size
from moderation.media.image import open_header
from moderation.media.keyframes import chosen_positions
from moderation.media.limits import MAX_FRAMES_BYTES, canvas_size, start_deadline
from moderation.media.objects import Payload
from moderation.media.sampling import frame_limit
from moderation.types import Item, Kind

MIB: Final = 1024 * 1024
# Memory of a video decoder itself, measured with 1080p H.264: 17 reference pictures, and the container.
_VIDEO_BYTES: Final = 96 * MIB
# A file of this size that does not state its length is likely to be longer than max_frames covers.
_LONG_VIDEO_BYTES: Final = 32 * MIB
_LONG_S: Final = 3600.0
_PIXEL_BYTES: Final = 4
_COEFFICIENT_BYTES: Final = 6
_PLAIN_MODES: Final = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
_PNG_HEAD_BYTES: Final = 4096
_HEADER_S: Final = 5.0


def estimate_need(item: Item, payloads: Sequence[Payload], config: MediaConfig) -> int:
    """Bytes that decoding an item takes at its peak, its frames included. Never raises."""
    needs = [_need_of(payload, config) for payload in payloads if isinstance(payload, bytes)]
    working, frames = max((n[0] for n in needs), default=0), sum(n[1] for n in needs)
    if item.kind is Kind.KEYFRAMES and needs:
        frames = frames * min(len(needs), len(chosen_positions(item, config))) // len(needs)
    return working + min(frames, MAX_FRAMES_BYTES)


def _need_of(data: bytes, config: MediaConfig) -> tuple[int, int]:
    """(bytes while decoding, bytes of the frames that stay)."""
    media_type = sniff(data[:HEAD_BYTES])
    if media_type is None:
        return 0, 0
    if media_type.is_video:
        frames = frame_limit(_seconds(data, media_type), config)
        return _VIDEO_BYTES + len(data), frames * 3 * config.canvas_px * config.canvas_px * 16 // 9
    header = _read_header(data, media_type)
    pixels = header.width * header.height
    if not 0 < pixels <= config.max_pixels:
        return 0, 0  # refused before a pixel is decoded
    width, height = canvas_size(header.width, header.height, config.canvas_px)
    frames = 3 * width * height * (1 if config.tiles == "off" else 2)
    if media_type is MediaType.JPEG:
        scale = max(1, min(8, header.width // width, header.height // height))
        return header.bytes_per_pixel * pixels + 2 * _PIXEL_BYTES * pixels // scale**2, frames
    return header.bytes_per_pixel * pixels, frames * (config.max_frames if header.moves else 1)


def _seconds(data: bytes, media_type: MediaType) -> float:
    told = movie_seconds(data) if media_type is MediaType.MP4 else None
    if told is not None:
        return told
    return _LONG_S if len(data) >= _LONG_VIDEO_BYTES else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What a picture's header says. bytes_per_pixel: at the peak, without the pixels of a scaled JPEG."""

    width: int = 0
    height: int = 0
    bytes_per_pixel: int = 0
    moves: bool = False


def _read_header(data: bytes, media_type: MediaType) -> _Header:
    if media_type is MediaType.PNG:
        return _read_png(data)
    if media_type is MediaType.WEBP:
        # Opening a WebP allocates two canvases.
        width, height = webp_size(data) or (0, 0)
        moves = data[12:16] == b"VP8X" and any(byte & 0x02 for byte in data[20:21])
        return _Header(width=width, height=height, bytes_per_pixel=(4 if moves else 3) * _PIXEL_BYTES, moves=moves)
    image = open_header(data, media_type, start_deadline(_HEADER_S))
    if image is None:
        return _Header()
    if isinstance(image, JpegImageFile):
        progressive = _COEFFICIENT_BYTES if image.info.get("progressive") else 0
        return _Header(width=image.width, height=image.height, bytes_per_pixel=progressive)
    moves = media_type in (MediaType.GIF, MediaType.AVIF)
    copies = 4 if moves else 2 if image.mode in _PLAIN_MODES else 3
    return _Header(width=image.width, height=image.height, bytes_per_pixel=copies * _PIXEL_BYTES, moves=moves)


def _read_png(data: bytes) -> _Header:
    """Read a PNG header without Pillow, which refuses some files for a comment that decoding leaves out."""
    head = data[16:26].ljust(10, b"\0")
    width, height, bits, colours = struct.unpack(">IIBB", head)
    moves = b"acTL" in data[:_PNG_HEAD_BYTES]
    copies = 4 if moves else 3 if bits == 16 or colours & 4 else 2
    return _Header(width=width, height=height, bytes_per_pixel=copies * _PIXEL_BYTES, moves=moves)

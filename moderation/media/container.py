"""What a container's outermost boxes tell without decoding: whether its end is missing, and whether it holds video.

Only lengths are followed, and only a bounded number of boxes, because the bytes come from strangers. Layouts: ISO/IEC
14496-12 (MP4), RFC 8794 and 9559 (Matroska), the RIFF container of WebP (RFC 9649) and AVI.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from moderation.file_types import HEAD_BYTES, MediaType, sniff
from moderation.media.cut_ends import is_cut

MAX_BOXES = 20_000  # a fragmented MP4 of several hours has thousands
_PROPERTIES_BYTES = 1024 * 1024  # the properties of pictures come first; a profile among them may be large
_WEBP_ALPHA, _WEBP_ANIMATED = 0x10, 0x02  # flags of VP8X (RFC 9649, 2.7)
MAX_PADDING = 64 * 1024 * 1024  # zeros that repair a truncated WebP

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_EBML_SEGMENT, _EBML_TRACKS, _EBML_ENTRY, _EBML_TYPE = 0x18538067, 0x1654AE6B, 0xAE, 0x83


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """truncated: bytes that the container announces are missing. has_video: None where unknown.

    more_behind: another file of pictures begins after its end.
    """

    truncated: bool = False
    has_video: bool | None = None
    more_behind: bool = False


def inspect(data: bytes, media_type: MediaType) -> Container:
    """Inspect the boxes of `data`; never raises."""
    if media_type is MediaType.MP4:
        return _inspect_mp4(data)
    if media_type is MediaType.MATROSKA:
        return _inspect_matroska(data)
    if media_type in (MediaType.AVI, MediaType.WEBP):
        announced = int.from_bytes(data[4:8], "little") + 8
        has_video = None if media_type is MediaType.WEBP else b"vids" in data[:65536]
        more = media_type is MediaType.AVI and data[announced + 8 : announced + 12] != b"AVIX"
        return Container(
            truncated=announced > len(data), has_video=has_video, more_behind=more and _begins_media(data, announced)
        )
    more = _begins_anew(data, media_type)
    # Of two joined files the first may be complete.
    return Container(truncated=not more and is_cut(data, media_type), more_behind=more)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a WebP from its first chunk, or None.

    Read here because libwebp allocates two canvases of this size as soon as its animation decoder is opened.
    """
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    return None


def find_code_points(data: bytes) -> tuple[int, int] | None:
    """(primaries, transfer) of the first `colr` box with code points in an AVIF or HEIC; None: it has none."""
    at = data.find(b"colrnclx", 0, _PROPERTIES_BYTES)
    return None if at < 0 or at + 12 > len(data) else struct.unpack_from(">HH", data, at + 8)


def mend_webp(data: bytes) -> bytes | None:
    """Repair a truncated WebP: the complete frames of an animation, or a still padded with zeros.

    libwebp refuses an incomplete file, but its still decoder decodes up to the cut. None: not truncated, or hopeless.
    """
    kept, animated, cut = 12, False, None
    for kind, start, end in _riff_chunks(data):
        animated = animated or kind == b"ANMF"
        if end > len(data):
            cut = (start, end)
            break
        kept = end
    if cut is None:
        return None
    if animated:
        body = data[12:kept]
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    start, end = cut
    missing = end - len(data)
    return data + bytes(missing) if missing <= MAX_PADDING and len(data) > start + 32 else None


def with_alpha(data: bytes) -> bytes:
    """A WebP whose header announces transparency where it may have some.

    Pillow paints over black what an animation leaves free where that is missing; some viewers do not ask for it.
    """
    if data[12:16] != b"VP8X" or len(data) < 30 or data[20] & _WEBP_ALPHA:
        return data
    if not data[20] & _WEBP_ANIMATED and all(kind != b"ALPH" for kind, _, _ in _riff_chunks(data)):
        return data
    return data[:20] + bytes([data[20] | _WEBP_ALPHA]) + data[21:]


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of the body, end with padding) of each chunk; the last may end beyond the data."""
    offset = 12
    for _ in range(MAX_BOXES):
        if offset + 8 > len(data):
            return
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        yield data[offset : offset + 4], offset + 8, offset + 8 + size + (size & 1)
        offset += 8 + size + (size & 1)


def boxes(data: bytes, offset: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the body, end) of each box of an MP4; the end may lie beyond `end`."""
    for _ in range(MAX_BOXES):
        if offset + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, offset)
        header = 8
        if size == 1 and offset + 16 <= end:
            size, header = int.from_bytes(data[offset + 8 : offset + 16], "big"), 16
        elif size == 0 and kind.isascii():
            size = end - offset
        # FFmpeg skips a box whatever its name; other bytes have no sound length.
        if size < header or not (kind.isascii() or offset + size <= end):
            return
        yield kind, offset + header, offset + size
        offset += size


def _inspect_mp4(data: bytes) -> Container:
    outer = list(boxes(data, 0, len(data)))
    movies = [(start, end) for kind, start, end in outer if kind == b"moov" and end <= len(data)]
    tracks = [track for start, end in movies for track in _tracks(data, start, end)]
    last = outer[-1][2] if outer else len(data)
    return Container(
        truncated=any(end > len(data) for _, _, end in outer),
        has_video=_has_video(data, tracks) if movies else None,
        more_behind=len(movies) > 1 or _begins_media(data, last),
    )


def _has_video(data: bytes, tracks: list[tuple[int, int]]) -> bool:
    return any(_is_video_track(data, start, end) for start, end in tracks)


def count_tracks(data: bytes) -> int:
    """Number of tracks of any kind in the movie of a box file (MP4, HEIC, AVIF)."""
    movies = ((start, min(end, len(data))) for kind, start, end in boxes(data, 0, len(data)) if kind == b"moov")
    return sum(1 for start, end in movies for _ in _tracks(data, start, end))


def movie_seconds(data: bytes) -> float | None:
    """The length that the header of an MP4 states; None where it states none."""
    for kind, start, end in boxes(data, 0, len(data)):
        for inner, body, _ in boxes(data, start, min(end, len(data))) if kind == b"moov" else ():
            if inner == b"mvhd" and body + 32 <= len(data):
                at, form = (body + 20, ">IQ") if data[body] == 1 else (body + 12, ">II")
                scale, ticks = struct.unpack_from(form, data, at)
                return ticks / scale if scale and ticks else None
    return None


def _tracks(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    return ((body, stop) for kind, body, stop in boxes(data, start, end) if kind == b"trak")


def _begins_anew(data: bytes, media_type: MediaType) -> bool:
    """Whether the first bytes of a file of this type occur again: two were joined, and FFmpeg reads only the first."""
    if media_type is MediaType.FLV:  # version 1, track flags, a header of 9 bytes, no previous tag
        return any(data.find(b"FLV\x01" + tracks + b"\0\0\0\x09\0\0\0\0", 9) > 0 for tracks in (b"\1", b"\4", b"\5"))
    return media_type is MediaType.ASF and data.find(_ASF_HEADER, 16) > 0


def _begins_media(data: bytes, offset: int) -> bool:
    return offset < len(data) and sniff(data[offset : offset + HEAD_BYTES]) is not None


def _is_video_track(data: bytes, start: int, end: int) -> bool:
    for kind, inner, inner_end in boxes(data, start, min(end, len(data))):
        if kind == b"mdia":
            for sub, body, _ in boxes(data, inner, min(inner_end, len(data))):
                if sub == b"hdlr":
                    return data[body + 8 : body + 12] == b"vide"
    return False


def _inspect_matroska(data: bytes) -> Container:
    segment = next((e for e in _elements(data, 0, len(data)) if e[0] == _EBML_SEGMENT), None)
    if segment is None:
        return Container()
    _, start, end = segment
    stop = len(data) if end is None else min(end, len(data))
    return Container(
        truncated=end is not None and end > len(data),
        has_video=_has_video_track(data, start, stop),
        more_behind=_begins_media(data, stop),
    )


def _has_video_track(data: bytes, start: int, stop: int) -> bool | None:
    """Whether the track list of a Matroska segment names a video; None where the list is missing or truncated."""
    for kind, body, end in _elements(data, start, stop):
        if kind == _EBML_TRACKS and end is not None and end <= len(data):
            entries = [(s, e) for k, s, e in _elements(data, body, end) if k == _EBML_ENTRY and e is not None]
            return any(_is_video_entry(data, s, min(e, end)) for s, e in entries)
    return None


def _is_video_entry(data: bytes, start: int, end: int) -> bool:
    types = [(s, e) for kind, s, e in _elements(data, start, end) if kind == _EBML_TYPE]
    return any(_uint(data, s, e) == 1 for s, e in types)


def _elements(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """(id, start of the body, end) of each EBML element; end None where the size is "unknown"."""
    for _ in range(MAX_BOXES):
        kind, after_id = _vint(data, offset, end, keep_marker=True)
        size, start = _vint(data, after_id, end, keep_marker=False)
        if start == after_id or after_id == offset:
            return
        unknown = size == (1 << (7 * (start - after_id))) - 1
        yield kind, start, None if unknown else start + size
        if unknown:
            return
        offset = start + size


def _vint(data: bytes, offset: int, end: int, *, keep_marker: bool) -> tuple[int, int]:
    """A variable-length integer and the offset after it; the offset itself where there is none."""
    if offset >= end or data[offset] == 0:
        return 0, offset
    length = 9 - data[offset].bit_length()
    if offset + length > end:
        return 0, offset
    value = int.from_bytes(data[offset : offset + length], "big")
    return (value if keep_marker else value & ((1 << (7 * length)) - 1)), offset + length


def _uint(data: bytes, start: int, end: int | None) -> int:
    return int.from_bytes(data[start : end if end is not None else start], "big")

"""A video with nothing but the standard library: JPEG pictures in an AVI container (Motion JPEG).

Source: "AVI RIFF File Reference" (Microsoft): a header list, the pictures as chunks `00dc`, an index `idx1`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_HAS_INDEX = 0x10
_KEYFRAME = 0x10  # every JPEG stands alone, so every picture is one
_INDEX_BASE = 4  # offsets in idx1 count from the four letters `movi`


def encode_avi(jpegs: Sequence[bytes], *, fps: int, size: tuple[int, int]) -> bytes:
    """An AVI file of encoded JPEGs, all of `size` (width, height), shown `fps` a second.

    Raises ValueError when there is no picture.
    """
    if not jpegs:
        raise ValueError("a video needs at least one picture")
    pictures = [_chunk(b"00dc", jpeg) for jpeg in jpegs]
    index, offset = [], _INDEX_BASE
    for jpeg, picture in zip(jpegs, pictures, strict=True):
        index.append(struct.pack("<4s3I", b"00dc", _KEYFRAME, offset, len(jpeg)))
        offset += len(picture)
    headers = _list(b"hdrl", _main_header(jpegs, fps, size), _list(b"strl", *_stream_headers(jpegs, fps, size)))
    body = headers + _list(b"movi", *pictures) + _chunk(b"idx1", b"".join(index))
    return _chunk(b"RIFF", b"AVI " + body)


def _main_header(jpegs: Sequence[bytes], fps: int, size: tuple[int, int]) -> bytes:
    microseconds_a_frame = 1_000_000 // fps
    largest = max(map(len, jpegs))
    fields = (microseconds_a_frame, largest * fps, 0, _HAS_INDEX, len(jpegs), 0, 1, largest, *size, 0, 0, 0, 0)
    return _chunk(b"avih", struct.pack("<14I", *fields))


def _stream_headers(jpegs: Sequence[bytes], fps: int, size: tuple[int, int]) -> tuple[bytes, bytes]:
    width, height = size
    # Flags, priority, initial frames; 1/fps s a frame; start, length; largest chunk; quality, size of a sample.
    timing = (0, 0, 0, 1, fps, 0, len(jpegs), max(map(len, jpegs)), 0xFFFFFFFF, 0)
    stream = struct.pack("<4s4s10I4H", b"vids", b"MJPG", *timing, 0, 0, width, height)
    bitmap = struct.pack("<3I2H4s5I", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    return _chunk(b"strh", stream), _chunk(b"strf", bitmap)


def _list(kind: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", kind + b"".join(chunks))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

"""The segments in front of a JPEG's first scan, and the colour profile in them (ITU-T T.81, B.1.1; ICC.1, B.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from PIL.JpegImagePlugin import JpegImageFile

_MAX_SEGMENTS = 4096
_SOS, _EOI, _TEM = 0xDA, 0xD9, 0x01
_STANDALONE = frozenset({_TEM, *range(0xD0, 0xD9)})
_FILL = re.compile(rb"\xff+")  # by the thousand times faster than byte by byte: a file may consist of them
_ICC = b"ICC_PROFILE\0"
_ADOBE_BYTES = 12
_MAX_PROFILES = 3  # that a file may hold apart from each other


def skip_fill(data: bytes, position: int) -> int:
    """The last of the bytes 0xFF that begin at `position`: any number of them may stand before a marker."""
    fill = _FILL.match(data, position)
    return position if fill is None else fill.end() - 1


def segments_of(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start of the body, end) of each segment, up to the first scan or to what is no segment."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        position = skip_fill(data, position)
        if data[position : position + 1] != b"\xff" or position + 4 > len(data):
            return
        marker = data[position + 1]
        if marker in (_SOS, _EOI, 0):
            return
        if marker in _STANDALONE:
            position += 2
            continue
        end = position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
        yield marker, position + 4, min(end, len(data))
        position = end


def application_segments(image: JpegImageFile, name: str) -> Iterator[bytes]:
    """The bodies of the segments of this name ("APP1"), which Pillow keeps."""
    return (body for kind, body in image.applist if kind == name)


def read_profiles(image: JpegImageFile) -> tuple[bytes, ...]:
    """The colour profiles of a JPEG: one where its pieces are numbered 1..n, else each reading that a viewer may have.

    Read here because Pillow ignores those behind the frame header, which browsers apply.
    """
    heads = [
        body for body in application_segments(image, "APP2") if body.startswith(_ICC) and len(body) > len(_ICC) + 2
    ]
    pieces = [(body[len(_ICC)], body[len(_ICC) + 1], body[len(_ICC) + 2 :]) for body in heads]
    if not pieces:
        return ()
    ordered = sorted(pieces, key=lambda piece: piece[0])
    joined = b"".join(body for _, _, body in ordered)
    if [number for number, _, _ in ordered] == list(range(1, pieces[0][1] + 1)):
        return (joined,)
    first = {number: body for number, _, body in reversed(pieces)}
    once = b"".join(first[number] for number in sorted(first))
    single = [body for _, _, body in pieces if body[36:40] == b"acsp"]
    return tuple(dict.fromkeys([joined, once, *single]))[:_MAX_PROFILES]


def stores_rgb(image: JpegImageFile) -> bool:
    """Whether libjpeg takes three components for RGB: no JFIF, and Adobe's transform 0 or components named R, G, B."""
    if image.mode != "RGB" or any(body.startswith(b"JFIF\0") for body in application_segments(image, "APP0")):
        return False
    for body in application_segments(image, "APP14"):
        if body.startswith(b"Adobe") and len(body) >= _ADOBE_BYTES:
            return body[_ADOBE_BYTES - 1] == 0
    return [layer[0] for layer in image.layer] == list(b"RGB")

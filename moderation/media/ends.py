"""Where a picture ends in its file, told by lengths alone; what follows may be another picture.

Layouts: ITU-T T.81, GIF89a, PNG 5.3, RFC 9649, ISO/IEC 14496-12 (AVIF, HEIC, JPEG 2000), TIFF 6.0, BITMAPINFOHEADER.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from moderation.errors import ItemError
from moderation.file_types import MediaType
from moderation.media.camera_raw import end_of_tiff
from moderation.media.jpeg_segments import skip_fill
from moderation.media.png import end_of_png
from moderation.types import ErrorCode

_MAX_MARKERS = 200_000  # of a JPEG: one with 30,000 scans has 60,000
_MAX_BOXES = 20_000
MAX_BLOCKS = 4_000_000  # of a GIF, with their parts of at most 255 bytes

_EOI, _SOI, _SOS, _TEM = 0xD9, 0xD8, 0xDA, 0x01
_ALONE = frozenset({_TEM, *range(0xD0, 0xD8)})  # markers without a length
_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOFn
# Neither a stuffed byte nor a restart marker: those are inside a scan. Of fill bytes the last one: with all of them,
# the time would grow by the square of their number, and 1 MB take an hour.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_CODESTREAM = b"\xff\x4f\xff\x51"
_ROWS_AS_THEY_ARE = frozenset({0, 3, 6})  # BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS
IN_BOXES = frozenset({MediaType.HEIC, MediaType.AVIF})


def end_of_picture(data: bytes, media_type: MediaType) -> int | None:
    """Where the picture that the file begins with ends; None: it is cut, or that is unknown."""
    if media_type in IN_BOXES:
        return end_of_boxes(data, 0)
    if media_type is MediaType.WEBP:
        return 8 + int.from_bytes(data[4:8], "little")
    find = {
        MediaType.JPEG: end_of_jpeg,
        MediaType.PNG: end_of_png,
        MediaType.GIF: end_of_gif,
        MediaType.BMP: end_of_bmp,
        MediaType.TIFF: end_of_tiff,
        MediaType.JPEG2000: end_of_jpeg2000,
    }.get(media_type)
    return None if find is None else find(data)


def end_of_jpeg2000(data: bytes) -> int | None:
    """Where its codestream ends: no marker as high as that of the end occurs in coded data (ITU-T T.800, B.10.1)."""
    coded = data.find(b"\xff\x93", max(0, data.find(_CODESTREAM)))
    end = data.find(b"\xff\xd9", coded)
    return end + 2 if 0 < coded < end else None


def end_of_bmp(data: bytes) -> int | None:
    """Where the pixels of a BMP end, whatever size it states."""
    start = int.from_bytes(data[10:14], "little")
    if int.from_bytes(data[14:18], "little") == 12:
        width, height, bits, packing, packed = _le(data, 18, 2), _le(data, 20, 2), _le(data, 24, 2), 0, 0
    else:
        width, height, bits, packing, packed = (
            _le(data, at, n) for at, n in ((18, 4), (22, 4), (28, 2), (30, 4), (34, 4))
        )
    height = min(height, (1 << 32) - height)  # negative: from the top
    size = (width * bits + 31) // 32 * 4 * height if packing in _ROWS_AS_THEY_ARE else packed
    return start + size if size > 0 and start + size <= len(data) else None


def _le(data: bytes, at: int, count: int) -> int:
    return int.from_bytes(data[at : at + count], "little")


def end_of_gif(data: bytes, start: int = 0) -> int | None:
    """Where the GIF that begins at `start` ends, or where no more of it is understood; None: it is cut.

    Layout: GIF89a, appendix B.
    """
    position, blocks = start + 13 + colours_bytes(data, start + 10), 0
    while blocks < MAX_BLOCKS and position < len(data):
        mark = data[position : position + 1]
        if mark == b";":
            return position + 1
        if mark == b",":
            position += 11 + colours_bytes(data, position + 9)
        elif mark == b"!":
            position += 2
        else:
            return position
        while blocks < MAX_BLOCKS and (size := int.from_bytes(data[position : position + 1], "big")) > 0:
            position, blocks = position + 1 + size, blocks + 1
        position, blocks = position + 1, blocks + 1
    return position if position < len(data) else None


def colours_bytes(data: bytes, flags_at: int) -> int:
    """Bytes of the table of colours that these flags announce."""
    flags = int.from_bytes(data[flags_at : flags_at + 1], "big")
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def end_of_jpeg(data: bytes, start: int = 0) -> int | None:
    """Where the JPEG that begins at `start` ends; None: it has no scan, or its end is missing."""
    position, seen = start + 2, set[int]()
    for _ in range(_MAX_MARKERS):
        match = _MARKER.search(data, position)
        if match is None:
            return None
        marker, position = match[1][0], match.end()
        if marker in (_EOI, _SOI):
            # The next JPEG starts here: this one's end marker is missing.
            end = position if marker == _EOI else match.start()
            return end if _SOS in seen and not seen.isdisjoint(_SIZES) else None
        seen.add(marker)
        if marker != _TEM:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"jpeg: more than {_MAX_MARKERS} markers")


def find_scan(data: bytes, start: int) -> int | None:
    """Where the first scan of a JPEG begins; None: three bytes look like a JPEG's, but no segments follow."""
    position = start + 2
    for _ in range(_MAX_BOXES):
        position = skip_fill(data, position)
        if data[position : position + 1] != b"\xff" or position + 4 > len(data):
            return None
        if data[position + 1] in _ALONE:
            position += 2
            continue
        if data[position + 1] == _SOS:
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def boxes(data: bytes, start: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the body, end) of the boxes of ISO/IEC 14496-12 after `start`."""
    for _ in range(_MAX_BOXES):
        kind = data[start + 4 : start + 8]
        size, header = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        end = len(data) if size == 0 else start + size
        if len(kind) < 4 or not kind.isalnum() or end < start + header:
            return
        yield kind, start + header, min(end, len(data))
        start = end


def end_of_boxes(data: bytes, start: int) -> int:
    """Where the last of the boxes after `start` ends; a second `ftyp` begins another file."""
    last = len(data)
    for number, (kind, body, end) in enumerate(boxes(data, start)):
        if kind == b"ftyp" and number:
            return body - 8
        last = end
    return last

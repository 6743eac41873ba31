"""Data behind a picture in the same file: further JPEGs (MPO, concatenated), the video of a motion photo.

Some viewers show the first picture, others the second, so both are scored. They are located by where the first picture
ends, not by an index: MPF, XMP and phones' trailers may be wrong or missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moderation.media.png import end_of_png
from moderation.media.sniff import HEAD_BYTES, MediaType, sniff

MAX_BEHIND = 64  # pieces that are located and reported; media.max_frames bounds how many are scored
_MAX_MARKERS = 200_000  # of a JPEG: one with 30,000 scans has 60,000
_MAX_BOXES = 20_000
_MAX_BLOCKS = 4_000_000  # of a GIF, with their parts of at most 255 bytes
_MIN_PIECE_BYTES = 32  # no picture is shorter

_EOI, _SOI, _SOS, _TEM = 0xD9, 0xD8, 0xDA, 0x01
_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOFn
# Neither a stuffed byte nor a restart marker: those are inside a scan.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_STARTS = (b"\xff\xd8\xff", b"ftyp", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF", b"\x1aE\xdf\xa3")
_START = re.compile(b"|".join(map(re.escape, _STARTS)))
IN_BOXES = frozenset({MediaType.HEIC, MediaType.AVIF})


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """Where another picture or video lies in the file, and its type."""

    media_type: MediaType
    start: int
    end: int

    @property
    def what(self) -> str:
        """Its name in a row where it was not scored."""
        return "track" if self.media_type.is_video else "picture"


def find_behind(data: bytes, media_type: MediaType) -> list[Behind]:
    """Pieces behind the first picture, at most MAX_BEHIND; none where the first one's end is missing or unknown."""
    if media_type in IN_BOXES:
        return _find_in_boxes(data)
    if media_type is MediaType.JPEG and not _may_go_on(data):
        return []  # the usual case, told in a tenth of the time
    end = _end_of_first(data, media_type)
    if end is None or end >= len(data):
        return []
    pieces: list[Behind] = []
    for piece in _walk(data, end):
        pieces.append(piece)
        if len(pieces) == MAX_BEHIND:
            break
    return pieces


def _may_go_on(data: bytes) -> bool:
    """Whether more than padding follows the first marker that ends a JPEG's scans or starts another JPEG."""
    scan = _find_scan(data, 0)
    if scan is None:
        return True
    coded = np.frombuffer(data, np.uint8)[scan:]
    marks = np.flatnonzero(coded[:-1] == 0xFF)
    kinds = coded[marks + 1]
    ends = marks[(kinds == _EOI) | (kinds == _SOI)]
    return ends.size > 0 and len(coded) - int(ends[0]) > _MIN_PIECE_BYTES


def _end_of_first(data: bytes, media_type: MediaType) -> int | None:
    if media_type is MediaType.JPEG:
        return end_of_jpeg(data)
    if media_type is MediaType.PNG:
        return end_of_png(data)
    if media_type is MediaType.WEBP:
        return 8 + int.from_bytes(data[4:8], "little")
    return end_of_gif(data) if media_type is MediaType.GIF else None


def end_of_gif(data: bytes, start: int = 0) -> int | None:
    """Where the GIF that begins at `start` ends, or where no more of it is understood; None: it is cut.

    Layout: GIF89a, appendix B.
    """
    position, blocks = start + 13 + _colours_bytes(data, start + 10), 0
    while blocks < _MAX_BLOCKS and position < len(data):
        mark = data[position : position + 1]
        if mark == b";":
            return position + 1
        if mark == b",":
            position += 11 + _colours_bytes(data, position + 9)
        elif mark == b"!":
            position += 2
        else:
            return position
        while blocks < _MAX_BLOCKS and (size := int.from_bytes(data[position : position + 1], "big")) > 0:
            position, blocks = position + 1 + size, blocks + 1
        position, blocks = position + 1, blocks + 1
    return position if position < len(data) else None


def _colours_bytes(data: bytes, flags_at: int) -> int:
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
    return None


def _walk(data: bytes, position: int) -> Iterator[Behind]:
    while True:
        match = _START.search(data, position)
        if match is None:
            return
        start = match.start() - 4 if match[0] == b"ftyp" else match.start()
        media_type = sniff(data[start : start + HEAD_BYTES]) if start >= position else None
        end = None if media_type is None else _end_of_piece(data, start, media_type)
        if media_type is None or end is None:
            position = match.end()
            continue
        yield Behind(media_type=media_type, start=start, end=end)
        position = max(end, match.end())


def _end_of_piece(data: bytes, start: int, media_type: MediaType) -> int | None:
    """Where the piece that begins at `start` ends; None: it only looks like a beginning."""
    if media_type is MediaType.JPEG:
        end = end_of_jpeg(data, start)
        if end is not None:
            return end
        return None if _find_scan(data, start) is None else len(data)
    if media_type is MediaType.MP4 or media_type in IN_BOXES:
        return _end_of_boxes(data, start)
    if media_type is MediaType.WEBP:
        return min(len(data), start + 8 + int.from_bytes(data[start + 4 : start + 8], "little"))
    if media_type is MediaType.PNG:
        end = end_of_png(data[start:])
        return len(data) if end is None else start + end
    if media_type is MediaType.GIF:
        return end_of_gif(data, start) or len(data)
    return len(data)


def _find_scan(data: bytes, start: int) -> int | None:
    """Where the first scan of a JPEG begins; None: three bytes look like a JPEG's, but no segments follow."""
    position = start + 2
    for _ in range(_MAX_BOXES):
        if data[position : position + 1] != b"\xff" or position + 4 > len(data):
            return None
        if data[position + 1] == _SOS:
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _boxes(data: bytes, start: int) -> Iterator[tuple[bytes, int, int]]:
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


def _end_of_boxes(data: bytes, start: int) -> int:
    return max((end for _, _, end in _boxes(data, start)), default=len(data))


def _find_in_boxes(data: bytes) -> list[Behind]:
    """The video of a HEIC motion photo (box `mpvd`), or a sequence (`moov`) beside the still picture."""
    pieces: list[Behind] = []
    for kind, start, end in _boxes(data, 0):
        if kind == b"mpvd":
            pieces.append(Behind(media_type=MediaType.MP4, start=start, end=end))
        elif kind == b"moov":
            pieces.append(Behind(media_type=MediaType.MP4, start=0, end=len(data)))
    return pieces[:MAX_BEHIND]

"""What a file holds beside its first picture: pictures and videos behind it, previews in its head, further directories.

Some viewers show the first picture, others another one, so all are scored. They are located by where the first picture
ends, not by an index: MPF, XMP and phones' trailers may be wrong or missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moderation.file_types import HEAD_BYTES, MediaType, sniff
from moderation.media.camera_raw import is_tiff_picture, unchained_directories
from moderation.media.ends import IN_BOXES, boxes, end_of_boxes, end_of_jpeg, end_of_picture, find_scan
from moderation.media.jpeg_segments import segments_of
from moderation.media.limits import Deadline

MAX_BEHIND = 64  # pieces that are located and reported; media.max_frames bounds how many are scored
_MAX_PREVIEWS = 4
_WINDOW_BYTES = 1024 * 1024  # of marks, which take up to 16 times the bytes that they are found in
_MIN_PIECE_BYTES = 32  # no picture is shorter

_EOI, _SOI = 0xD9, 0xD8
_STARTS = (
    *(b"\xff\xd8\xff", b"ftyp", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF", b"\x1aE\xdf\xa3", b"%PDF-"),
    *(b"II*\0", b"MM\0*", b"8BPS\0\1", b"FLV\1", b"OggS\0\2", b"\0\0\1\xba", b"0&\xb2u\x8ef\xcf\x11"),
    *(b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL "),
)
_START = re.compile(b"|".join(map(re.escape, _STARTS)))
# Segments of a JPEG in which applications leave a smaller JPEG for file managers: JFXX, EXIF, Photoshop.
_PREVIEWS_IN = frozenset({0xE0, 0xE1, 0xED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """Where another picture or video lies in the file, and its type.

    inside: among the bytes of the first picture. preview: a smaller version, as it claims; nothing is lost where it is
    broken. directory: of a TIFF, where the directory of this picture is.
    """

    media_type: MediaType
    start: int
    end: int
    inside: bool = False
    preview: bool = False
    directory: int | None = None

    @property
    def what(self) -> str:
        """Its name in a row where it was not scored."""
        return "track" if self.media_type.is_video else "picture"

    def cut_from(self, data: bytes) -> bytes:
        """Its bytes, as a file of their own."""
        if self.directory is None:
            return data[self.start : self.end]
        return data[:4] + self.directory.to_bytes(4, "little" if data[:2] == b"II" else "big") + data[8:]


def find_behind(data: bytes, media_type: MediaType, deadline: Deadline) -> list[Behind]:
    """Pieces beside the first picture, at most MAX_BEHIND. Raises ItemError(TIMEOUT)."""
    pieces = list(_find_inside(data, media_type, deadline))
    if media_type is MediaType.JPEG and not _may_go_on(data):
        return pieces  # the usual case, told in a tenth of the time
    end = end_of_picture(data, media_type)
    if end is None or end >= len(data):
        return pieces
    for piece in _walk(data, end, deadline):
        pieces.append(piece)
        if len(pieces) == MAX_BEHIND:
            break
    return pieces


def _find_inside(data: bytes, media_type: MediaType, deadline: Deadline) -> Iterator[Behind]:
    if media_type is MediaType.JPEG:
        yield from _find_previews(data, deadline)
    elif media_type in IN_BOXES:
        yield from _find_in_boxes(data)
    elif media_type is MediaType.TIFF:
        for directory in unchained_directories(data):
            yield Behind(media_type=media_type, start=0, end=len(data), inside=True, directory=directory)


def _find_previews(data: bytes, deadline: Deadline) -> Iterator[Behind]:
    left = _MAX_PREVIEWS
    for marker, start, end in segments_of(data):
        at = data.find(b"\xff\xd8\xff", start, end) if marker in _PREVIEWS_IN else -1
        while at >= 0 and left:
            deadline.check()  # each start may be followed by as many segments as are in the file
            if find_scan(data, at) is not None:
                left -= 1
                yield Behind(media_type=MediaType.JPEG, start=at, end=end, inside=True, preview=True)
            at = data.find(b"\xff\xd8\xff", at + 3, end)


def _may_go_on(data: bytes) -> bool:
    """Whether more than padding follows the first marker that ends a JPEG's scans or starts another JPEG."""
    scan = find_scan(data, 0)
    if scan is None:
        return True
    coded = np.frombuffer(data, np.uint8)
    for begin in range(scan, len(coded) - 1, _WINDOW_BYTES):
        window = coded[begin : begin + _WINDOW_BYTES + 1]
        marks = np.flatnonzero(window[:-1] == 0xFF)
        kinds = window[marks + 1]
        ends = marks[(kinds == _EOI) | (kinds == _SOI)]
        if ends.size > 0:
            return len(coded) - begin - int(ends[0]) > _MIN_PIECE_BYTES
    return False


def _walk(data: bytes, position: int, deadline: Deadline) -> Iterator[Behind]:
    # Some types have a weak signature, or none but their rhythm: they count at the very end of the first picture.
    weak = sniff(data[position : position + HEAD_BYTES])
    if weak is not None and _START.match(data, position) is None and len(data) - position > _MIN_PIECE_BYTES:
        yield Behind(media_type=weak, start=position, end=len(data))
        return
    while match := _START.search(data, position):
        deadline.check()
        start = match.start() - 4 if match[0] == b"ftyp" else match.start()
        piece = _piece_at(data, start) if start >= position else None
        position = match.end()
        if piece is not None:
            yield piece
            position = max(piece.end, position)


def _piece_at(data: bytes, start: int) -> Behind | None:
    media_type = _type_at(data, start)
    end = None if media_type is None else _end_of_piece(data, start, media_type)
    return None if media_type is None or end is None else Behind(media_type=media_type, start=start, end=end)


def _type_at(data: bytes, start: int) -> MediaType | None:
    head = data[start : start + HEAD_BYTES]
    return MediaType.OTHER if head.startswith(b"%PDF-") else sniff(head)


def _end_of_piece(data: bytes, start: int, media_type: MediaType) -> int | None:
    """Where the piece that begins at `start` ends; None: it only looks like a beginning."""
    if media_type is MediaType.JPEG:
        return end_of_jpeg(data, start) or (find_scan(data, start) and len(data))
    if media_type is MediaType.TIFF:
        # Applications leave EXIF, which begins like a TIFF, behind pictures.
        return len(data) if is_tiff_picture(data[start:]) else None
    if media_type in (MediaType.MP4, MediaType.JPEG2000) or media_type in IN_BOXES:
        return end_of_boxes(data, start)
    end = end_of_picture(data[start:], media_type)
    return len(data) if end is None else min(len(data), start + end)


def _find_in_boxes(data: bytes) -> Iterator[Behind]:
    """The video of a HEIC motion photo (box `mpvd`), or a sequence (`moov`) beside the still picture."""
    for kind, start, end in boxes(data[: end_of_boxes(data, 0)], 0):
        if kind == b"mpvd":
            yield Behind(media_type=MediaType.MP4, start=start, end=end, inside=True)
        elif kind == b"moov":
            yield Behind(media_type=MediaType.MP4, start=0, end=len(data), inside=True)

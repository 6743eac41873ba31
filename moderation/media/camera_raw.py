"""The directories of a TIFF: is it a camera's raw file, are there pictures besides its pages, and where does it end?

The first directory of a raw file often holds only a thumbnail.

Nothing here develops sensor data, and the embedded preview need not show the same picture: such a file is
`unsupported_type`. Layout: TIFF 6.0, BigTIFF, DNG 1.6. Bounded, because a directory may list anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

_MAX_DIRECTORIES = 64
_MAX_ENTRIES = 1024
_MAX_SUBDIRECTORIES = 16
_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SUBDIRECTORIES, _DNG = 254, 256, 257, 259, 262, 330, 50706
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _DEPTH = 273, 279, 324, 325, 32997
_SENSOR_PHOTOMETRICS = frozenset({32803, 34892})  # a colour filter array, LinearRaw
_SENSOR_COMPRESSIONS = frozenset({32767, 32769, 32770, 34713, 65000, 65535})  # Sony, Samsung, Nikon, Kodak, Pentax
_TYPE_BYTES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_MAX_PLACES = 4096  # of strips or tiles; where there are more, nothing is looked for behind the file
# The tags that are read -> how many of their values.
_MOST = {
    **dict.fromkeys((_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SUBDIRECTORIES, _DNG, _DEPTH), 16),
    **dict.fromkeys((_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES), _MAX_PLACES),
}
_ALL_TYPE_BYTES = {**dict.fromkeys((1, 2, 6, 7), 1), 3: 2, 8: 2, **dict.fromkeys((4, 9, 11, 13), 4)}

_Tags = dict[int, tuple[int, ...]]
_Order = Literal["little", "big"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Directory:
    """chained: it is one of the pages. end: where it and the values and pixels that it refers to end."""

    offset: int
    chained: bool
    tags: _Tags
    end: int


def is_camera_raw(data: bytes) -> bool:
    """Whether a directory of the TIFF holds sensor data, or the first is a thumbnail of one outside the page chain."""
    if data[8:11] == b"CR\x02":  # Canon CR2
        return True
    directories = list(_directories(data))
    return any(_is_sensor(d.tags) for d in directories) or _is_thumbnail_of_another(directories)


def unchained_directories(data: bytes) -> list[int]:
    """Where the directories of pictures are that are no pages; none in a BigTIFF."""
    return [d.offset for d in _directories(data) if not d.chained and _area(d.tags) and data[2:4] in (b"*\0", b"\0*")]


def is_tiff_picture(data: bytes) -> bool:
    """Whether its first directory states a size: EXIF alone, which begins like a TIFF, does not."""
    return any(_area(d.tags) for d in islice(_directories(data), 1))


def has_depth(data: bytes) -> bool:
    """Whether a page has several layers in depth (tag ImageDepth), of which decoders show one."""
    return any(_one(d.tags, _DEPTH) > 1 for d in _directories(data))


def end_of_tiff(data: bytes) -> int | None:
    """Where the last directory, value or strip of pixels ends; None: it is cut."""
    end = max((d.end for d in _directories(data)), default=len(data))
    return end if end <= len(data) else None


def _is_thumbnail_of_another(directories: Sequence[_Directory]) -> bool:
    if not directories or not _one(directories[0].tags, _SUBFILE) & 1:
        return False
    area = _area(directories[0].tags)
    larger = [d.chained for d in directories if _area(d.tags) > area]
    return bool(larger) and not any(larger)


def _is_sensor(tags: _Tags) -> bool:
    if _DNG in tags or _one(tags, _PHOTOMETRIC) in _SENSOR_PHOTOMETRICS:
        return True
    return _one(tags, _COMPRESSION) in _SENSOR_COMPRESSIONS


def _area(tags: _Tags) -> int:
    return _one(tags, _WIDTH) * _one(tags, _HEIGHT)


def _one(tags: _Tags, tag: int) -> int:
    values = tags.get(tag, ())
    return values[0] if values else 0


def _directories(data: bytes) -> Iterator[_Directory]:
    """Each directory, the first one first."""
    order: _Order = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"+\0", b"\0+")
    width = 8 if big else 4
    first = int.from_bytes(data[width : 2 * width] if not big else data[8:16], order)
    waiting = [(first, True)]
    visited: set[int] = set()
    while waiting and len(visited) < _MAX_DIRECTORIES:
        offset, chained = waiting.pop(0)
        if offset in visited or not 0 < offset < len(data):
            continue
        visited.add(offset)
        tags, following, end = _read_directory(data, offset, order, big=big)
        yield _Directory(offset=offset, chained=chained, tags=tags, end=end)
        waiting += [(o, False) for o in tags.get(_SUBDIRECTORIES, ())[:_MAX_SUBDIRECTORIES]]
        waiting.append((following, chained))


def _read_directory(data: bytes, offset: int, order: _Order, *, big: bool) -> tuple[_Tags, int, int]:
    """(tags, offset of the following directory, where all of it ends)."""
    count_bytes, entry_bytes, width = (8, 20, 8) if big else (2, 12, 4)
    count = int.from_bytes(data[offset : offset + count_bytes], order)
    tags: _Tags = {}
    ends: list[int] = []
    at = offset + count_bytes
    for k in range(min(count, _MAX_ENTRIES)):
        entry = data[at + k * entry_bytes : at + (k + 1) * entry_bytes]
        if len(entry) < entry_bytes:
            break
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        most = _MOST.get(tag, 0)
        if most and kind in _TYPE_BYTES:
            tags[tag] = _values(data, entry, _TYPE_BYTES[kind], order, width, most)
            ends.append(len(data) if len(tags[tag]) == _MAX_PLACES else 0)
        bytes_ = int.from_bytes(entry[4 : 4 + width], order) * _ALL_TYPE_BYTES.get(kind, 8)
        ends.append(int.from_bytes(entry[4 + width :], order) + bytes_ if bytes_ > width else 0)
    end = at + count * entry_bytes
    return tags, int.from_bytes(data[end : end + width], order), max(end + width, *ends, *_ends_of_pixels(tags), 0)


def _ends_of_pixels(tags: _Tags) -> Iterator[int]:
    """Where each strip or tile ends."""
    for places, sizes in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        yield from (a + b for a, b in zip(tags.get(places, ()), tags.get(sizes, ()), strict=False))


def _values(data: bytes, entry: bytes, size: int, order: _Order, width: int, most: int) -> tuple[int, ...]:
    count = min(most, int.from_bytes(entry[4 : 4 + width], order))
    body = entry[4 + width :]
    if int.from_bytes(entry[4 : 4 + width], order) * size > width:
        start = int.from_bytes(body, order)
        body = data[start : start + count * size]
    return tuple(int.from_bytes(body[k * size : (k + 1) * size], order) for k in range(count))

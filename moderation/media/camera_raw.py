"""Whether a TIFF is a camera's raw file, whose first directory often holds only a thumbnail.

Nothing here develops sensor data, and the embedded preview need not show the same picture: such a file is
`unsupported_type`. Layout: TIFF 6.0, BigTIFF, DNG 1.6. Bounded, because a directory may list anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

_MAX_DIRECTORIES = 64
_MAX_ENTRIES = 1024
_MAX_SUBDIRECTORIES = 16
_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SUBDIRECTORIES, _DNG = 254, 256, 257, 259, 262, 330, 50706
_SENSOR_PHOTOMETRICS = frozenset({32803, 34892})  # a colour filter array, LinearRaw
_SENSOR_COMPRESSIONS = frozenset({32767, 32769, 32770, 34713, 65000, 65535})  # Sony, Samsung, Nikon, Kodak, Pentax
_TYPE_BYTES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_WANTED = frozenset({_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SUBDIRECTORIES, _DNG})

_Tags = dict[int, tuple[int, ...]]


def is_camera_raw(data: bytes) -> bool:
    """Whether a directory of the TIFF holds sensor data, or the first is a thumbnail of one outside the page chain."""
    if data[8:11] == b"CR\x02":  # Canon CR2
        return True
    directories = list(_directories(data))
    return any(_is_sensor(tags) for tags, _ in directories) or _is_thumbnail_of_another(directories)


def _is_thumbnail_of_another(directories: Sequence[tuple[_Tags, bool]]) -> bool:
    if not directories or not _one(directories[0][0], _SUBFILE) & 1:
        return False
    area = _area(directories[0][0])
    larger = [chained for tags, chained in directories if _area(tags) > area]
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


def _directories(data: bytes) -> Iterator[tuple[_Tags, bool]]:
    """(tags, whether it is in the page chain) of each directory, the first one first."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
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
        tags, following = _read_directory(data, offset, order, big=big)
        yield tags, chained
        waiting += [(o, False) for o in tags.get(_SUBDIRECTORIES, ())[:_MAX_SUBDIRECTORIES]]
        waiting.append((following, chained))


def _read_directory(data: bytes, offset: int, order: Literal["little", "big"], *, big: bool) -> tuple[_Tags, int]:
    count_bytes, entry_bytes, width = (8, 20, 8) if big else (2, 12, 4)
    count = int.from_bytes(data[offset : offset + count_bytes], order)
    tags: _Tags = {}
    at = offset + count_bytes
    for k in range(min(count, _MAX_ENTRIES)):
        entry = data[at + k * entry_bytes : at + (k + 1) * entry_bytes]
        if len(entry) < entry_bytes:
            break
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        if tag in _WANTED and kind in _TYPE_BYTES:
            tags[tag] = _values(data, entry, _TYPE_BYTES[kind], order, width)
    end = at + count * entry_bytes
    return tags, int.from_bytes(data[end : end + width], order)


def _values(data: bytes, entry: bytes, size: int, order: Literal["little", "big"], width: int) -> tuple[int, ...]:
    count = min(_MAX_SUBDIRECTORIES, int.from_bytes(entry[4 : 4 + width], order))
    body = entry[4 + width :]
    if int.from_bytes(entry[4 : 4 + width], order) * size > width:
        start = int.from_bytes(body, order)
        body = data[start : start + count * size]
    return tuple(int.from_bytes(body[k * size : (k + 1) * size], order) for k in range(count))

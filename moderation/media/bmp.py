"""BMP: what Pillow would not show as viewers do.

Layouts: BITMAPINFOHEADER, BITMAPV4HEADER, BITMAPV5HEADER, their run-length encoding (Windows GDI, "Bitmap storage").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_RGB, _RLE8, _RLE4 = 0, 1, 2
_INFO_BYTES, _V3_BYTES, _V4_BYTES, _V5_BYTES = 40, 56, 108, 124
_MASKS = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
_CALIBRATED, _EMBEDDED = 0, 0x4D424544  # values of bV4CSType and bV5CSType
_MAX_STEPS = 4_000_000  # of run-length encoding: about a second


@dataclass(frozen=True, slots=True, kw_only=True)
class BmpColours:
    """What a BMP states of its colours. gamma: as in PNG. primaries: x, y of white (always D65), red, green, blue."""

    icc: bytes | None = None
    gamma: float | None = None
    primaries: tuple[float, ...] | None = None


def with_fourth_channel(data: bytes) -> bytes:
    """A BMP of 32 bits without masks as one with an alpha mask: some viewers take the unused byte for alpha."""
    size, bits, packing = _le(data, 14), _le(data, 28, 2), _le(data, 30)
    start = _le(data, 10)
    if size != _INFO_BYTES or bits != 32 or packing != _RGB or start < 14 + _INFO_BYTES:
        return data
    head = data[:10] + struct.pack("<II", start + 16, _V3_BYTES) + data[18:30] + struct.pack("<I", 3) + data[34:54]
    return head + _MASKS + data[54:]


def read_bmp_colours(data: bytes) -> BmpColours:
    """The embedded profile of a version 5, or the calibrated primaries and gamma of version 4 and 5."""
    size = _le(data, 14)
    if size < _V4_BYTES:
        return BmpColours()
    space = _le(data, 70)
    if space == _EMBEDDED and size >= _V5_BYTES:
        start = 14 + _le(data, 126)
        return BmpColours(icc=data[start : start + _le(data, 130)] or None)
    return _read_calibration(data) if space == _CALIBRATED else BmpColours()


def _read_calibration(data: bytes) -> BmpColours:
    ends = struct.unpack_from("<9i", data[74:110].ljust(36, b"\0"))
    gammas = [_le(data, at) / 65536 for at in (110, 114, 118)]
    points = [ends[k : k + 3] for k in (0, 3, 6)]
    if min(gammas) <= 0 or any(sum(point) <= 0 for point in points):
        return BmpColours()
    chromaticities = [c for x, y, z in points for c in (x / (x + y + z), y / (x + y + z))]
    return BmpColours(gamma=3 / sum(gammas), primaries=(0.3127, 0.329, *chromaticities))


def leaves_gaps(data: bytes) -> bool:
    """Whether run-length encoding leaves pixels out: viewers show them transparent, black or in the first colour."""
    if _le(data, 14) < _INFO_BYTES or _le(data, 30) not in (_RLE8, _RLE4):
        return False
    return _run_lengths_skip(data, _le(data, 18), _le(data, 22), four=_le(data, 30) == _RLE4)


def _run_lengths_skip(data: bytes, width: int, height: int, *, four: bool) -> bool:
    position, x, y = _le(data, 10), 0, 0
    for _ in range(_MAX_STEPS):
        count, code = (data[position : position + 2] + b"\0\2")[:2]  # data that is cut leaves pixels out
        position += 2
        if count or code > 2:
            x += count or code
            size = 0 if count else (code + 1) // 2 if four else code
            position += size + (size & 1)
        elif code == 1:
            return y + (x >= width) < height
        elif code == 2 or x < width:
            return True
        else:
            x, y = 0, y + 1
    return True


def _le(data: bytes, at: int, count: int = 4) -> int:
    return int.from_bytes(data[at : at + count], "little")

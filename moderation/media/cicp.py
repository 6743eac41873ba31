"""Colours stated by code points (ITU-T H.273): a PNG's cICP chunk, the `nclx` box of AVIF and HEIC -> linear light.

Browsers follow them. High dynamic range is mapped as they do for a screen without it, roughly: the point is to see what
they show, not to grade it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_F64 = npt.NDArray[np.float64]

# x, y of white, red, green, blue.
_D65, _C = (0.3127, 0.329), (0.31, 0.316)
_PRIMARIES: dict[int, tuple[float, ...]] = {
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
IS_XYZ = 10  # XYZ itself (SMPTE ST 428-1), which has no triangle of colours
_SDR_WHITE, _PQ_PEAK, _HLG_PEAK = 203.0, 10_000.0, 1000.0  # cd/m2 (ITU-R BT.2408)
# Unspecified; and BT.709 with its relatives, which browsers show nearly as sRGB (mean difference 8 of 255).
_AS_SRGB = frozenset({1, 2, 6, 13, 14, 15})


def primaries_of(code: int) -> tuple[float, ...] | None:
    """x, y of white, red, green, blue; None: those of sRGB, or unknown."""
    return _PRIMARIES.get(code)


def states_colours(primaries: int, transfer: int) -> bool:
    """Whether these codes say something else than sRGB."""
    return primaries in _PRIMARIES or primaries == IS_XYZ or transfer in _TO_LIGHT


def to_light(transfer: int) -> _F64 | None:
    """Linear light [256] of the numbers 0..255, white is 1; None: encoded as sRGB, or unknown."""
    curve = _TO_LIGHT.get(transfer)
    return None if curve is None or transfer in _AS_SRGB else curve(np.arange(256) / 255.0)


def _from_pq(numbers: _F64) -> _F64:
    """SMPTE ST 2084."""
    power = numbers ** (1 / 78.84375)
    light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    return _to_screen(light * _PQ_PEAK / _SDR_WHITE, _HLG_PEAK / _SDR_WHITE)


def _from_hlg(numbers: _F64) -> _F64:
    """ARIB STD-B67, with the system gamma of a display of 1000 cd/m2."""
    scene = np.where(numbers <= 0.5, numbers**2 / 3, (np.exp((numbers - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return _to_screen(scene**1.2 * _HLG_PEAK / _SDR_WHITE, _HLG_PEAK / _SDR_WHITE)


def _to_screen(light: _F64, peak: float) -> _F64:
    """Brighter than white, compressed: the extended curve of Reinhard."""
    return light * (1 + light / peak**2) / (1 + light)


def _from_log(decades: float) -> Callable[[_F64], _F64]:
    return lambda numbers: np.where(numbers > 0, 10.0 ** ((numbers - 1) * decades), 0.0)


_TO_LIGHT: dict[int, Callable[[_F64], _F64]] = {
    4: lambda numbers: numbers**2.2,
    5: lambda numbers: numbers**2.8,
    8: lambda numbers: numbers,
    9: _from_log(2.0),
    10: _from_log(2.5),
    16: _from_pq,
    17: lambda numbers: numbers**2.6 * 52.37 / 48,
    18: _from_hlg,
}

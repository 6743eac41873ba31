"""Maps over a frame: how much each place of it matters to a score; and the box of the part that matters most. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.explain.windows import Place, ViewGeometry
from moderation.types import F32

Map = F32  # float32 [h,w] over the whole frame, NaN where the detector does not look

# Long side of a map. A window of 64 of 224 pixels is 37 of these, so more would show nothing.
MAP_SIDE: Final = 128
# A place belongs to the region where its value is over this share of the way from the map's middle to its top. Chosen
# with benchmarks/explain.py: see its JSON for the overlap with objects that were pasted.
_REGION_SHARE: Final = 0.25
_SMOOTHED: Final = 0.02  # of the long side: single pixels of gradients are noise


def map_shape(shape: Sequence[int]) -> tuple[int, int]:
    """(height, width) of the map of a frame with this (height, width, ...)."""
    height, width = shape[0], shape[1]
    scale = MAP_SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def average_windows(places: Sequence[Place], values: F32, shape: Sequence[int]) -> Map:
    """The mean value of the windows that hold each place. values: float32 [n], NaN: not known."""
    height, width = map_shape(shape)
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (x0, y0, x1, y1), value in zip(places, values.tolist(), strict=True):
        if np.isnan(value):
            continue
        rows = slice(*_cells(y0, y1, height))
        columns = slice(*_cells(x0, x1, width))
        total[rows, columns] += value
        count[rows, columns] += 1
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _cells(start: float, stop: float, side: int) -> tuple[int, int]:
    first = min(side - 1, round(start * side))
    return first, max(first + 1, round(stop * side))


def from_view(values: F32, geometry: ViewGeometry, shape: Sequence[int]) -> Map:
    """A map over a view, float32 [a,b] of any size, as a map over its frame; NaN outside of what the view shows."""
    height, width = map_shape(shape)
    rows = _sample((np.arange(height) + 0.5) / height, geometry.top_px, geometry.high_px, geometry.height_px)
    columns = _sample((np.arange(width) + 0.5) / width, geometry.left_px, geometry.wide_px, geometry.width_px)
    mapped = _bilinear(_bilinear(values.astype(np.float64), rows, axis=0), columns, axis=1)
    mapped[np.isnan(rows), :] = np.nan
    mapped[:, np.isnan(columns)] = np.nan
    return mapped.astype(np.float32)


def _sample(at: npt.NDArray[np.float64], shift: float, scale: float, side: int) -> npt.NDArray[np.float64]:
    """Places in 0..1 of the frame -> in 0..1 of the view, NaN outside of it."""
    inside = (shift + scale * at) / side
    return np.where((inside >= 0) & (inside <= 1), inside, np.nan)


def _bilinear(values: npt.NDArray[np.float64], at: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    side = values.shape[axis]
    centre = np.clip(np.nan_to_num(at) * side - 0.5, 0, side - 1)
    low = np.floor(centre).astype(np.int64)
    high = np.minimum(low + 1, side - 1)
    share = centre - low
    share = share[:, None] if axis == 0 else share[None, :]
    blended: npt.NDArray[np.float64] = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return blended


def smooth(values: Map) -> Map:
    """The mean over a small square, so that single pixels do not count; NaN stays NaN."""
    half = max(1, round(_SMOOTHED * max(values.shape)))
    known = np.isfinite(values)
    total = _box_sum(np.where(known, values, 0.0), half)
    count = _box_sum(known.astype(np.float64), half)
    return np.where(known, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _box_sum(values: npt.NDArray[np.float64], half: int) -> npt.NDArray[np.float64]:
    for axis in (0, 1):
        side = values.shape[axis]
        padded = np.insert(np.cumsum(values, axis=axis), 0, 0, axis=axis)
        places = np.arange(side)
        ends, starts = np.minimum(places + half + 1, side), np.maximum(places - half, 0)
        values = padded.take(ends, axis) - padded.take(starts, axis)
    return values


def responsible_box(values: Map, share: float = _REGION_SHARE) -> Place | None:
    """The box, 0..1 of the frame, of the part that matters most: the connected places around the highest one.

    None where no place matters: nothing is known, or nothing is over 0.
    """
    smoothed = smooth(values)
    if not np.isfinite(smoothed).any():
        return None
    top = float(np.nanmax(smoothed))
    if top <= 0:
        return None
    middle = max(0.0, float(np.nanmedian(smoothed)))
    part = np.nan_to_num(smoothed, nan=-np.inf) >= middle + share * (top - middle)
    y, x = np.unravel_index(int(np.nanargmax(smoothed)), smoothed.shape)
    component = _component(part, int(y), int(x))
    rows, columns = np.flatnonzero(component.any(axis=1)), np.flatnonzero(component.any(axis=0))
    height, width = values.shape
    return (
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def _component(part: npt.NDArray[np.bool_], y: int, x: int) -> npt.NDArray[np.bool_]:
    """The places that are connected with (y, x), side by side."""
    component = np.zeros_like(part)
    component[y, x] = True
    while True:
        grown = component.copy()
        grown[1:] |= component[:-1]
        grown[:-1] |= component[1:]
        grown[:, 1:] |= component[:, :-1]
        grown[:, :-1] |= component[:, 1:]
        grown &= part
        if (grown == component).all():
            return component
        component = grown


def overlap(one: Place, other: Place) -> float:
    """Intersection over union of two boxes, 0..1."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, wide) * max(0.0, high)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (areas - common) if areas > common else 0.0

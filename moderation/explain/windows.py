"""Where the windows of occlusion lie, and how a frame's pixels lie in the view that a detector reads.

Places are (x0, y0, x1, y1) in 0..1 of the frame, so that detectors with other views cover the same part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from moderation.detectors.base import View
from moderation.detectors.ragged import middle_of
from moderation.detectors.views import fit_box

Place = tuple[float, float, float, float]

# A detector that reads the canvas itself has no view: windows are measured as if its short side had so many pixels.
CANVAS_SIDE_PX: Final = 224
# Of one picture; a long strip, or a small stride, gets a wider stride instead. 1,000 take 20 s on two cores.
MAX_WINDOWS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewGeometry:
    """How a frame lies in a view of width_px x height_px pixels: view x = left_px + wide_px * x, y likewise."""

    left_px: float
    top_px: float
    wide_px: float
    high_px: float
    width_px: int
    height_px: int

    def to_view(self, place: Place) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in whole pixels of the view, clipped to it; empty where it lies outside."""
        x0, x1 = (_clip(round(self.left_px + self.wide_px * x), self.width_px) for x in (place[0], place[2]))
        y0, y1 = (_clip(round(self.top_px + self.high_px * y), self.height_px) for y in (place[1], place[3]))
        return x0, y0, x1, y1

    def to_frame(self, x_px: float, y_px: float) -> tuple[float, float]:
        """The point of the frame, 0..1 of it, at a point of the view."""
        return (x_px - self.left_px) / self.wide_px, (y_px - self.top_px) / self.high_px

    def seen(self) -> Place:
        """The part of the frame that the view shows."""
        x0, y0 = self.to_frame(0, 0)
        x1, y1 = self.to_frame(self.width_px, self.height_px)
        return max(0.0, x0), max(0.0, y0), min(1.0, x1), min(1.0, y1)


def _clip(value: int, side: int) -> int:
    return max(0, min(side, value))


def view_geometry(view: View, shape: Sequence[int], size: tuple[int, int]) -> ViewGeometry:
    """The geometry of a frame in a view. shape: (height, width, ...) of its pixels; size: (width, height) as stored.

    See `View` for the modes and `detectors.views` for the arithmetic that this repeats.
    """
    height, width = shape[0], shape[1]
    if view.mode == "fit":
        left, top, wide, high = fit_box(size, view.crop)
        return _square(view.crop, left, top, wide, high)
    if view.mode == "squash":
        shift = -round((view.resize - view.crop) / 2)
        return _square(view.crop, shift, shift, view.resize, view.resize)
    if view.mode == "canvas":
        scale = CANVAS_SIDE_PX / min(height, width)
        wide, high = max(1, round(width * scale)), max(1, round(height * scale))
        return ViewGeometry(left_px=0, top_px=0, wide_px=wide, high_px=high, width_px=wide, height_px=high)
    (top, high), (left, wide) = middle_of(height, width), middle_of(width, height)
    short = min(high, wide)
    scaled_high, scaled_wide = int(view.resize * high / short), int(view.resize * wide / short)
    by_y, by_x = scaled_high / high, scaled_wide / wide
    return _square(
        view.crop,
        -left * by_x - round((scaled_wide - view.crop) / 2),
        -top * by_y - round((scaled_high - view.crop) / 2),
        width * by_x,
        height * by_y,
    )


def _square(side: int, left: float, top: float, wide: float, high: float) -> ViewGeometry:
    return ViewGeometry(left_px=left, top_px=top, wide_px=wide, high_px=high, width_px=side, height_px=side)


def place_windows(geometry: ViewGeometry, window_px: int, stride_px: int) -> list[Place]:
    """Squares that together cover all of the frame that the view shows, row by row; at most `MAX_WINDOWS`."""
    seen = geometry.seen()
    x0, y0, x1, y1 = geometry.to_view(seen)
    while True:
        lefts, tops = _starts(x0, x1, window_px, stride_px), _starts(y0, y1, window_px, stride_px)
        if len(lefts) * len(tops) <= MAX_WINDOWS or stride_px >= max(x1 - x0, y1 - y0):
            break
        stride_px = 2 * stride_px
        window_px = max(window_px, stride_px)
    places = []
    for top, left in product(tops, lefts):
        a, b = geometry.to_frame(left, top)
        c, d = geometry.to_frame(min(left + window_px, x1), min(top + window_px, y1))
        places.append((max(a, 0.0), max(b, 0.0), min(c, 1.0), min(d, 1.0)))
    return places


def _starts(first: int, end: int, window: int, stride: int) -> list[int]:
    last = max(first, end - window)
    starts = list(range(first, last + 1, stride))
    # The far edge, too, where the stride does not meet it.
    return starts if starts[-1] == last else [*starts, last]

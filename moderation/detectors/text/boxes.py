"""From a map of text probabilities per pixel to rectangles, and from a rectangle to an upright strip of the frame.

After "Differentiable Binarization", https://arxiv.org/abs/1911.08947: the map marks the core of each line, which is
grown by its area over its perimeter. Rounding follows the package rapidocr: otherwise small print reads differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from moderation.config.installing import install_command
from moderation.errors import UsageError
from moderation.types import F32, U8

if TYPE_CHECKING:
    from types import ModuleType

# As the package rapidocr sets them for these weights.
_PIXEL_THRESHOLD: Final = 0.3
_BOX_THRESHOLD: Final = 0.5
_GROWTH: Final = 1.6
# The shorter side of a core and of the rectangle grown from it, in pixels of the map; smaller ones are noise.
_SMALLEST_CORE: Final = 3
_SMALLEST_BOX: Final = 5
# A strip this many times as high as wide is written from top to bottom, or rotated.
_UPRIGHT: Final = 1.5
STRIP_HEIGHT: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBox:
    """A rectangle that holds a line: corners float32 [4,2] as x, y in 0..1 of the frame, clockwise from top left."""

    corners: F32
    score: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the upright rectangle around it."""
        x0, y0 = self.corners.min(axis=0).tolist()
        x1, y1 = self.corners.max(axis=0).tolist()
        return x0, y0, x1, y1


def find_boxes(probability: F32, frame_size: tuple[int, int], max_boxes: int) -> list[TextBox]:
    """Rectangles around the text in a map [H,W], in reading order; of more than `max_boxes` the largest.

    frame_size: height, width of the frame that was scaled to the map; corners are whole pixels of it.
    """
    cv2 = _opencv()
    height, width = probability.shape
    high, wide = frame_size
    core = (probability > _PIXEL_THRESHOLD).astype(np.uint8)
    if not core.any():
        return []
    core = cv2.dilate(core, np.ones((2, 2), np.uint8))
    outlines, _ = cv2.findContours(core, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    if len(outlines) > max_boxes:
        outlines = sorted(outlines, key=cv2.contourArea, reverse=True)[:max_boxes]
    boxes: list[TextBox] = []
    for outline in outlines:
        corners, thickness = _rectangle(outline, cv2)
        if thickness < _SMALLEST_CORE:
            continue
        score = _mean_inside(probability, corners, cv2)
        if score < _BOX_THRESHOLD:
            continue
        corners, thickness = _rectangle(_grown(corners, cv2), cv2)
        if thickness < _SMALLEST_BOX:
            continue
        frame = np.array([wide, high], np.float32)
        pixels = _clockwise(np.round(corners / np.array([width, height], np.float32) * frame)).clip(0, frame - 1)
        boxes.append(TextBox(corners=(pixels / frame).astype(np.float32), score=score))
    return _reading_order(boxes)


def cut_strip(frame: U8, box: TextBox) -> U8 | None:
    """The box upright, uint8 [h,w,3] at the frame's own scale; None where it is thinner than any letter."""
    cv2 = _opencv()
    height, width = frame.shape[:2]
    corners = np.round(box.corners * (width, height)).clip(0, (width - 1, height - 1)).astype(np.float32)
    w = int(max(np.linalg.norm(corners[0] - corners[1]), np.linalg.norm(corners[2] - corners[3])))
    h = int(max(np.linalg.norm(corners[0] - corners[3]), np.linalg.norm(corners[1] - corners[2])))
    if min(w, h) <= 3:
        return None
    target = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    warp = cv2.getPerspectiveTransform(corners, target)
    strip = cv2.warpPerspective(frame, warp, (w, h), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)
    upright: U8 = np.rot90(strip) if h >= _UPRIGHT * w else strip
    return upright


def fit_strip(strip: U8, widest: int) -> U8:
    """A strip scaled to 48 pixels in height, uint8 [48,w,3], at most `widest` wide (longer ones are squeezed)."""
    height, width = strip.shape[:2]
    scaled = min(widest, max(1, int(np.ceil(STRIP_HEIGHT * width / height))))
    fitted: U8 = _opencv().resize(np.ascontiguousarray(strip), (scaled, STRIP_HEIGHT))
    return fitted


def scale_as_packaged(frame: U8, height: int, width: int) -> U8:
    """A frame resampled, uint8 [height,width,3], within one level of the package: more would move boxes by pixels."""
    scaled: U8 = _opencv().resize(frame, (width, height))
    return scaled


def covered_share(boxes: list[TextBox]) -> float:
    """Share of the frame that rectangles cover, each place counted once; accurate to a 256th of each side."""
    if not boxes:
        return 0.0
    grid = np.zeros((256, 256), np.uint8)
    for box in boxes:
        # In 16ths of a cell, because a line of print is thinner than a cell.
        points = np.round((box.corners * 256 - 0.5) * 16).astype(np.int32)
        _opencv().fillConvexPoly(grid, points, 1, lineType=8, shift=4)
    drawn = float(grid.mean())
    # Drawing widens thin lines to a cell; together they can't cover more than the sum of their areas.
    return min(drawn, sum(_area(box.corners) for box in boxes), 1.0)


def _area(corners: F32) -> float:
    x, y = corners[:, 0], corners[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _mean_inside(probability: F32, corners: F32, cv2: ModuleType) -> float:
    height, width = probability.shape
    x0, y0 = np.floor(corners.min(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    mask = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.uint8)
    cv2.fillPoly(mask, [(corners - (x0, y0)).astype(np.int32)], 1)
    return float(cv2.mean(probability[y0 : y1 + 1, x0 : x1 + 1], mask)[0])


def _rectangle(points: F32 | npt.NDArray[np.int32], cv2: ModuleType) -> tuple[F32, float]:
    """The smallest rectangle around points: corners [4,2] clockwise from the left, and its shorter side."""
    rectangle = cv2.minAreaRect(points)
    corners = sorted(cv2.boxPoints(rectangle), key=lambda corner: float(corner[0]))
    left, right = (sorted(side, key=lambda corner: float(corner[1])) for side in (corners[:2], corners[2:]))
    return np.array([left[0], right[0], right[1], left[1]], np.float32), min(rectangle[1])


def _grown(core: F32, cv2: ModuleType) -> npt.NDArray[np.int32]:
    """The outline of the area within area / perimeter of a rectangle, int32 [N,1,2]."""
    distance = _GROWTH * cv2.contourArea(core) / cv2.arcLength(core, closed=True)
    clipper = _pyclipper()
    offset = clipper.PyclipperOffset()
    offset.AddPath(core, clipper.JT_ROUND, clipper.ET_CLOSEDPOLYGON)
    return np.array(offset.Execute(distance), np.int32).reshape(-1, 1, 2)


def _clockwise(corners: F32) -> F32:
    """Top left, top right, bottom right, bottom left, as far as a rotated rectangle has them."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left = by_x[:2][np.argsort(by_x[:2, 1], kind="stable")]
    right = by_x[2:][np.argsort(by_x[2:, 1], kind="stable")]
    ordered: F32 = np.stack([left[0], right[0], right[1], left[1]])
    return ordered


def _reading_order(boxes: list[TextBox]) -> list[TextBox]:
    """Lines from top to bottom; boxes with nearly equal tops form one line, from left to right."""
    boxes = sorted(boxes, key=lambda b: (float(b.corners[0, 1]), float(b.corners[0, 0])))
    lines: list[list[TextBox]] = []
    for box in boxes:
        if lines and box.corners[0, 1] - lines[-1][-1].corners[0, 1] < 0.015:
            lines[-1].append(box)
        else:
            lines.append([box])
    return [box for line in lines for box in sorted(line, key=lambda b: float(b.corners[0, 0]))]


def require_packages() -> None:
    """Raises UsageError with the command that installs missing packages."""
    _opencv()
    _pyclipper()


def _pyclipper() -> ModuleType:
    try:
        import pyclipper  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise UsageError(f"detector 'text' needs the package 'pyclipper'; {install_command('text')}") from error
    return pyclipper  # type: ignore[no-any-return,unused-ignore]


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise UsageError(f"detector 'text' needs the package 'opencv'; {install_command('text')}") from error
    return cv2

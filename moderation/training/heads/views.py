"""Views of a picture that a head learns from, beside the picture itself. Pure: a seed gives the same views."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.types import U8

VIEWS_VERSION: Final = 2  # changes with the pixels of a view

_SMALLEST: Final = 0.4  # of the area that a view keeps: a smaller part often lacks what the label says
_LONGEST: Final = 1.2  # width by height of a view, or the reverse: most networks cut out a square
_TRIES: Final = 10
_COLOUR: Final = 0.3  # largest change of brightness, contrast and saturation
_TINT: Final = 0.15  # largest change of one colour against the others
_COVERED: Final = 0.3  # of the views have a covered part (https://arxiv.org/abs/1708.04896), of this share of the area:
_COVER_SHARES: Final = (0.05, 0.2)


def draw_view(pixels: U8, name: str, view: int, seed: int) -> U8:
    """View number `view` of a picture, uint8 [h,w,3]; view 0 is the picture itself.

    A crop of it, perhaps mirrored, with other brightness and colours, perhaps partly covered. The same name, view and
    seed give the same pixels, whatever was asked before.
    """
    if view == 0:
        return pixels
    digest = hashlib.sha256(f"{seed} {view} {name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    part = _crop(pixels, rng)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    light = _colour(part.astype(np.float32), rng)
    if rng.random() < _COVERED:
        _cover(light, rng)
    augmented: U8 = np.ascontiguousarray(light.clip(0, 255).astype(np.uint8))
    return augmented


def _crop(pixels: U8, rng: np.random.Generator) -> U8:
    """A part that is nearly square; the centre square of a picture that is too narrow for the parts that were drawn."""
    height, width = pixels.shape[:2]
    for _ in range(_TRIES):
        area, ratio = height * width * rng.uniform(_SMALLEST, 1), _draw_ratio(rng)
        h, w = max(1, round((area / ratio) ** 0.5)), max(1, round((area * ratio) ** 0.5))
        if h <= height and w <= width:
            top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            return pixels[top : top + h, left : left + w]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _draw_ratio(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(-np.log(_LONGEST), np.log(_LONGEST))))


def _colour(light: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    light = light * rng.uniform(1 - _TINT, 1 + _TINT, 3).astype(np.float32)
    middle = light.mean()
    light = (light - middle) * _draw_change(rng) + middle
    light = light * _draw_change(rng)
    grey = light.mean(axis=2, keepdims=True)
    coloured: npt.NDArray[np.float32] = grey + (light - grey) * _draw_change(rng)
    return coloured


def _draw_change(rng: np.random.Generator) -> np.float32:
    return np.float32(rng.uniform(1 - _COLOUR, 1 + _COLOUR))


def _cover(light: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    """Paint a part with one colour, in place."""
    height, width = light.shape[:2]
    area, ratio = height * width * rng.uniform(*_COVER_SHARES), float(np.exp(rng.uniform(-0.7, 0.7)))
    h, w = min(height, round((area / ratio) ** 0.5)), min(width, round((area * ratio) ** 0.5))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    light[top : top + h, left : left + w] = rng.uniform(0, 255, 3)

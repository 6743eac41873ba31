"""The blurred copy behind a whole picture that does not fill its square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

Box = tuple[int, int, int, int]  # x, y, width, height

# The reference of `fit` (libvips gaussblur): sigma 10 at 224 pixels, its mask cut where it falls below 0.2 of the peak.
_BLUR_SIGMA_OF_CROP: Final = 10 / 224
_BLUR_CUT: Final = 0.2


def surround(pixels: torch.Tensor, boxes: Sequence[Box]) -> None:
    """Fill the square outside each frame's box with a blurred copy of the frame, squashed to the square. In place.

    pixels: float32 [B,3,S,S]. Like xyran.preprocess with libvips; but the copy is enlarged from the foreground, and
    only its visible part is computed: two small products per frame.
    """
    side = pixels.shape[-1]
    groups: dict[Box, list[int]] = {}
    for i, box in enumerate(boxes):
        if box[2:] != (side, side):
            groups.setdefault(box, []).append(i)
    # Not under bf16 autocast: these are pixels, not features.
    with torch.autocast(pixels.device.type, enabled=False):
        for (x, y, w, h), indices in groups.items():
            inside = pixels[indices, :, y : y + h, x : x + w]
            rows, columns = (_blur_matrix(side, n).to(pixels.device) for n in (h, w))
            for top, bottom in ((0, y), (y + h, side)):
                if top < bottom:
                    # libvips truncates, hence floor.
                    pixels[indices, :, top:bottom] = (rows[top:bottom] @ inside @ columns.T).floor_()
            for left, right in ((0, x), (x + w, side)):
                if left < right:
                    pixels[indices, :, :, left:right] = (rows @ (inside @ columns[left:right].T)).floor_()


@lru_cache(maxsize=512)
def _blur_matrix(side: int, length: int) -> torch.Tensor:
    """float32 [side,length]: enlarges `length` samples to `side` (linear), then blurs, edges repeated. A constant.

    There are at most `side` lengths, each a quarter of a megabyte or less.
    """
    where = ((np.arange(side) + 0.5) * length / side - 0.5).clip(0, length - 1)
    below = np.minimum(where.astype(int), max(length - 2, 0))
    enlarge = np.zeros((side, length))
    enlarge[np.arange(side), below] = 1 - (where - below)
    if length > 1:
        enlarge[np.arange(side), below + 1] = where - below
    # A normal tensor even when first made inside inference_mode: it is cached for all callers.
    with torch.inference_mode(False):
        return torch.from_numpy(_blur(side) @ enlarge).to(torch.float32)


@lru_cache(maxsize=16)
def blur_matrix(side: int, device: torch.device) -> torch.Tensor:
    """float32 [side,side] on the device: blurs along one axis of the square. A constant."""
    with torch.inference_mode(False):
        return torch.from_numpy(_blur(side)).to(device, torch.float32)


def _blur(side: int) -> npt.NDArray[np.float64]:
    sigma = side * _BLUR_SIGMA_OF_CROP
    reach = int(sigma * math.sqrt(-2 * math.log(_BLUR_CUT)))
    offsets = np.arange(-reach, reach + 1)
    mask = np.exp(-(offsets**2) / (2 * sigma**2))
    mask /= mask.sum()
    blur = np.zeros((side, side))
    for row in range(side):
        np.add.at(blur[row], np.clip(row + offsets, 0, side - 1), mask)
    return blur

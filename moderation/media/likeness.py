"""Whether two pictures look different: their colours in a coarse grid, as seen from a distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from moderation.types import U8

GRID = 32  # cells per side
_COARSE = 8
# Of 255, in any cell: smaller differences are the noise of dithering and of encoders.
VISIBLE = 12
# Of 255, mean over a coarse grid: motion within a scene stays below; another scene does not.
UNLIKE = 10.0
# Limits for a smaller version: re-encoding and scaling change the mean by 1 to 3, and one cell on an edge by some 30.
_SMALLER_MEAN, _SMALLER_CELL = 5.0, 48

I16 = npt.NDArray[np.int16]


def grid_of(image: Image.Image) -> I16:
    """int16 [32,32,4]: mean colours, premultiplied, and transparency of a loaded Pillow image."""
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        image = image.convert("RGBa")
    cells = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX)).astype(np.int16)
    return cells if cells.shape[2] == 4 else np.concatenate([cells, np.full((GRID, GRID, 1), 255, np.int16)], axis=2)


def differs_visibly(grid: I16, other: I16) -> bool:
    """Whether any cell differs by more than noise."""
    return bool(np.abs(grid - other).max() > VISIBLE)


def coarse(grid: I16) -> I16:
    """int16 [256] of a grid, to compare many with many."""
    side = GRID // _COARSE
    blocks = grid.reshape(_COARSE, side, _COARSE, side, 4).mean(axis=(1, 3))
    return np.asarray(blocks, dtype=np.int16).reshape(-1)


def is_unlike_all(one: I16, others: npt.NDArray[np.int16]) -> bool:
    """Whether a coarse grid differs from each of `others` [N,256] as much as two scenes do."""
    return bool((np.abs(others - one).mean(axis=1) > UNLIKE).all())


def is_smaller_version(pixels: U8, of: U8) -> bool:
    """Whether uint8 [H,W,3] shows the same as `of`, without more detail."""
    if pixels.shape[0] > of.shape[0] or pixels.shape[1] > of.shape[1]:
        return False
    apart = np.abs(grid_of(Image.fromarray(pixels)) - grid_of(Image.fromarray(of)))
    return bool(apart.mean() <= _SMALLER_MEAN and apart.max() <= _SMALLER_CELL)

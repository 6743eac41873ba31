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
# Cameras make their thumbnails by other arithmetic than their pictures; cells on edges may differ.
_PREVIEW_MEAN, _PREVIEW_CELL, _PREVIEW_SHARE, _BLACK = 14.0, 80, 0.03, 24

# Of 255, for two versions of one picture. Photographs whose profile is ignored differ by 2 to 15, one in ProPhoto by
# 25; a cell is a sixty-fourth of a picture, as large as what transparency may hide.
ANOTHER, _ANOTHER_CELL, _SAMPLED = 20.0, 80, 64

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


def shows_another(pixels: U8, other: U8) -> bool:
    """Whether two versions of a picture, uint8 [H,W,3] of the same size, may be judged differently."""
    # Every n-th pixel is enough: the same ones are taken from both.
    step = max(1, min(pixels.shape[:2]) // _SAMPLED)
    pixels, other = (np.ascontiguousarray(p[::step, ::step]) for p in (pixels, other))
    a, b = (np.asarray(Image.fromarray(p).resize((_COARSE, _COARSE), Image.Resampling.BOX)) for p in (pixels, other))
    apart = np.abs(a.astype(np.int16) - b)
    return bool(apart.mean() > ANOTHER or apart.max() > _ANOTHER_CELL)


def is_preview(pixels: U8, of: U8) -> bool:
    """Whether uint8 [H,W,3], perhaps with black bars, turned, or made by other arithmetic, shows the same as `of`."""
    inside = _without_bars(pixels)
    grids = [grid_of(Image.fromarray(p)) for p in ([pixels] if inside is pixels else [pixels, inside])]
    whole = grid_of(Image.fromarray(of))
    turned = [np.rot90(whole, k) for k in range(4)]
    apart = (np.abs(a - b) for b in turned for a in grids)
    return any(d.mean() <= _PREVIEW_MEAN and (d > _PREVIEW_CELL).mean() <= _PREVIEW_SHARE for d in apart)


def _without_bars(pixels: U8) -> U8:
    """Without black rows above and below, or black columns on both sides: thumbnails of 4:3 have them for 3:2."""
    lit = pixels.max(axis=2) > _BLACK
    rows, columns = np.flatnonzero(lit.mean(axis=1) > 0.05), np.flatnonzero(lit.mean(axis=0) > 0.05)
    if not rows.size or not columns.size or (rows.size, columns.size) == lit.shape:
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def is_smaller_version(pixels: U8, of: U8) -> bool:
    """Whether uint8 [H,W,3] shows the same as `of`, without more detail."""
    if pixels.shape[0] > of.shape[0] or pixels.shape[1] > of.shape[1]:
        return False
    apart = np.abs(grid_of(Image.fromarray(pixels)) - grid_of(Image.fromarray(of)))
    return bool(apart.mean() <= _SMALLER_MEAN and apart.max() <= _SMALLER_CELL)

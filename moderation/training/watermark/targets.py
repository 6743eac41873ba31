"""Targets of the watermark network for a composite's cells. Pure. Shape suffixes: G cells per side."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from moderation.detectors.general.watermark_network import GRID

IGNORED: Final = -1  # a cell at a mark's rim: either answer is right
_CORE: Final = 0.6  # share of a box's sides around its middle: cells in it must answer yes


def cell_targets(
    boxes: npt.NDArray[np.float32], faint: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """(int8 [G,G]: 1, 0 or `IGNORED`; float16 [4,G,G]: the box of the mark that each cell is of) for boxes [n,4].

    faint: float32 [m,4] of marks that are hardly seen; their cells may answer either.
    """
    kinds = np.zeros((GRID, GRID), dtype=np.int8)
    for x0, y0, x1, y1 in [] if faint is None else faint.tolist():
        kinds[_cells(x0, y0, x1, y1)] = IGNORED
    owners = np.zeros((4, GRID, GRID), dtype=np.float16)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    # The largest first: where marks overlap, the smaller gets the cell.
    for x0, y0, x1, y1 in boxes[np.argsort(-areas, kind="stable")].tolist():
        rim = _cells(x0, y0, x1, y1)
        kinds[rim] = np.where(kinds[rim] == 0, IGNORED, kinds[rim])
    for x0, y0, x1, y1 in boxes[np.argsort(-areas, kind="stable")].tolist():
        middle_x, middle_y, w, h = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) * _CORE / 2, (y1 - y0) * _CORE / 2
        core = _cells(middle_x - w, middle_y - h, middle_x + w, middle_y + h)
        kinds[core] = 1
        owners[:, core[0], core[1]] = np.array([x0, y0, x1, y1], dtype=np.float16)[:, None, None]
    return kinds, owners


def _cells(x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
    """Cells whose centres lie in a box; at least the one that holds the centre of the box."""
    spans = []
    for low, high in ((y0, y1), (x0, x1)):
        first, end = int(np.ceil(low * GRID - 0.5)), int(np.floor(high * GRID - 0.5)) + 1
        if end <= first:
            first = int((low + high) / 2 * GRID)
            end = first + 1
        first = min(max(first, 0), GRID - 1)
        spans.append(slice(first, max(first + 1, min(end, GRID))))
    return spans[0], spans[1]


def box_overlap(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes [B,4,G,G], cell by cell: [B,G,G]."""
    low, high = torch.maximum(left[:, :2], right[:, :2]), torch.minimum(left[:, 2:], right[:, 2:])
    shared = (high - low).clamp_min(0).prod(dim=1)
    areas = [(box[:, 2:] - box[:, :2]).clamp_min(1e-6).prod(dim=1) for box in (left, right)]
    return shared / (areas[0] + areas[1] - shared).clamp_min(1e-9)

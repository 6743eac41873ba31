"""How well a map tells what a score rests on: the score while the places that it names are covered, the highest first.

The deletion curve of Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421: the faster it falls, the better the map.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.config.explain import ExplainConfig
from moderation.explain.covering import CoveredVariant, put_frames
from moderation.explain.maps import Map
from moderation.explain.occlusion import score_variants
from moderation.explain.vote_stack import VoteStack
from moderation.explain.windows import Place, view_geometry
from moderation.types import F32, Frame

_CELLS: Final = 8  # a side


def order_of_map(values: Map) -> list[int]:
    """The 64 cells of a frame, row by row counted, by falling mean of the map; unknown ones last."""
    rows = np.array_split(np.arange(values.shape[0]), _CELLS)
    columns = np.array_split(np.arange(values.shape[1]), _CELLS)
    known = np.nan_to_num(values, nan=0.0)
    means = [float(known[np.ix_(r, c)].mean()) if len(r) and len(c) else 0.0 for r in rows for c in columns]
    return [int(cell) for cell in np.argsort(-np.array(means), kind="stable")]


def random_order(rng: np.random.Generator) -> list[int]:
    """The 64 cells in random order."""
    order: npt.NDArray[np.int64] = rng.permutation(_CELLS * _CELLS)
    return [int(cell) for cell in order]


def deletion_curve(
    votes: VoteStack, column: int, frame: Frame, order: list[int], config: ExplainConfig, *, steps: int = 8
) -> F32:
    """float32 [steps+1]: the score as it is, then with more and more cells covered in this order, at last all."""
    stops = [round(len(order) * step / steps) for step in range(steps + 1)]
    variants = [CoveredVariant(row=0, places=tuple(_cell(cell) for cell in order[:stop])) for stop in stops]
    batch = put_frames([frame], votes.stack.device)
    geometry = view_geometry(votes.view, frame.pixels.shape, (frame.width, frame.height))
    window = config.window_px / min(geometry.wide_px, geometry.high_px)
    curve: F32 = score_variants(votes.stack, batch, variants, config.cover, window)[:, column]
    return curve


def _cell(index: int) -> Place:
    row, column = divmod(index, _CELLS)
    return column / _CELLS, row / _CELLS, (column + 1) / _CELLS, (row + 1) / _CELLS

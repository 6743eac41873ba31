"""Hashes of the parts of a picture, 64 bits each: what a large logo does not cover is still there to compare.

PDQ's way (the lowest frequencies of a cosine transform against their median) on parts of the 64x64 samples that PDQ
takes, so that they cost next to nothing. Four quarters, for a logo in a corner; four edges, for one in the middle.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

_FREQUENCIES: Final = 8  # in each direction, from the first on
_PART_BYTES: Final = _FREQUENCIES * _FREQUENCIES // 8
PARTS_BYTES: Final = 4 * _PART_BYTES
# Gradient per sample below which a part has too little content: that of a whole picture of PDQ's quality 50.
_LEAST_GRADIENT: Final = 50 * 90 / 64**2

_LOW, _HIGH, _ALL = slice(0, 32), slice(32, 64), slice(0, 64)
_QUARTERS: Final = ((_LOW, _LOW), (_LOW, _HIGH), (_HIGH, _LOW), (_HIGH, _HIGH))
_FIRST, _LAST = slice(0, 16), slice(48, 64)
_EDGES: Final = ((_FIRST, _ALL), (_LAST, _ALL), (_ALL, _FIRST), (_ALL, _LAST))


def quarter_bits(small: torch.Tensor) -> torch.Tensor:
    """bool [B,256], 64 bits each: upper left, upper right, lower left, lower right; all 0: too little content.

    small: luma float32 [B,64,64], 0..255.
    """
    return _part_bits(small, _QUARTERS)


def edge_bits(small: torch.Tensor) -> torch.Tensor:
    """bool [B,256], 64 bits each: the upper, lower, left and right fourth; all 0: too little content."""
    return _part_bits(small, _EDGES)


def _part_bits(small: torch.Tensor, places: tuple[tuple[slice, slice], ...]) -> torch.Tensor:
    return torch.cat([_hash_part(small[:, rows, columns]) for rows, columns in places], dim=1)


def _hash_part(part: torch.Tensor) -> torch.Tensor:
    """luma [B,h,w] -> bool [B,64]; all 0 where there is too little content."""
    rows, columns = (_basis(side, part.device) for side in part.shape[1:])
    flat = (rows @ part @ columns.T).flatten(1)
    bits = flat > flat.median(dim=1, keepdim=True).values
    # In whole percents, like PDQ's quality: faint noise adds nothing.
    gradients = [(part.diff(dim=dim) * 100 / 255).trunc().abs().sum(dim=(1, 2)) for dim in (1, 2)]
    enough = gradients[0] + gradients[1] >= _LEAST_GRADIENT * part.shape[1] * part.shape[2]
    return bits & enough[:, None]


@lru_cache(maxsize=32)
def _basis(side: int, device: torch.device) -> torch.Tensor:
    """float32 [8,side]: frequencies 1 to 8 of the DCT-II."""
    frequency = np.arange(1, _FREQUENCIES + 1)[:, None]
    place = 2 * np.arange(side)[None, :] + 1
    with torch.inference_mode(False):
        return torch.from_numpy(np.cos(np.pi / (2 * side) * frequency * place)).to(device, torch.float32)

"""PDQ's filter and sampling: one small matrix per side of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from moderation.detectors.transfer import to_device

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

SIDE: Final = 64


_TENTS: Final = 2


@lru_cache(maxsize=256)
def sampling_matrix(side: int) -> torch.Tensor:
    """float32 [64,side]: two box filters in sequence, then 64 samples at the middles of 64 parts.

    At the ends a box averages only existing pixels (no padding). It takes a quarter of a megabyte for 1,000 pixels.
    """
    window = (side + 2 * SIDE - 1) // (2 * SIDE)
    # An even window reaches one pixel further ahead than back.
    after = (window + 2) // 2
    before = window - after
    box = np.zeros((side, side), dtype=np.float64)
    for row in range(side):
        low, high = max(0, row - before), min(side, row + after)
        box[row, low:high] = 1 / (high - low)
    at = ((np.arange(SIDE) + 0.5) * side / SIDE).astype(int)
    sampled = box[at]
    for _ in range(_TENTS - 1):
        sampled = sampled @ box
    with torch.inference_mode(False):
        return torch.from_numpy(sampled).to(torch.float32)


# Matrices in a bank at most: 60 MiB for sides of up to 1,024 pixels.
_MAX_BANK: Final = 256


class SamplingBank:
    """The matrices of many sides in one tensor on a device, so that one look-up fetches those of a whole batch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._places: dict[int, int] = {}
        self._matrices = torch.empty((0, SIDE, 0), device=device)

    def matrices(self, sides: Sequence[int], padded: int) -> torch.Tensor:
        """float32 [B,64,padded]: the matrix of each side, followed by zeros."""
        wanted = set(sides)
        if not wanted.issubset(self._places) or self._matrices.shape[2] < padded:
            held = wanted if len(wanted | self._places.keys()) > _MAX_BANK else wanted | self._places.keys()
            self._fill(sorted(held), max(padded, *held))
        places = to_device([self._places[side] for side in sides], torch.int64, self._device)
        return self._matrices[places, :, :padded]

    def _fill(self, sides: Sequence[int], width: int) -> None:
        matrices = torch.zeros((len(sides), SIDE, width))
        for matrix, side in zip(matrices, sides, strict=True):
            matrix[:, :side] = sampling_matrix(side)
        self._matrices = matrices.to(self._device)
        self._places = {side: place for place, side in enumerate(sides)}

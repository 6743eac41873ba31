"""A chain of layers whose features others may build on, run once for all of them.

Shape suffixes: B frames of a batch, C channels, H height, W width, D embedding.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from moderation.detectors.nn.prepare import infer


class Averaged(nn.Module):
    """layers(x), averaged over the picture: [B,C,H,W] -> [B,D]."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        average: torch.Tensor = self.layers(x).mean(dim=(2, 3))
        return average


def run_trunk(
    trunk: nn.Sequential, x: torch.Tensor, depths: Collection[int], *, max_frames: int = 0
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """(embedding [B,D], depth -> features [B,C,h,w] after so many layers) of prepared layers.

    max_frames: as of `infer`. Layers may write over their input, so what is handed on is a copy.
    """
    features: dict[int, torch.Tensor] = {}
    begun = 0
    for depth in sorted(depths):
        x = infer(trunk[begun:depth], x, max_frames=max_frames)
        features[depth] = x.clone()
        begun = depth
    return infer(Averaged(trunk[begun:]), x, max_frames=max_frames), features

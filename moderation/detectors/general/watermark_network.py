"""The watermark network: the first layers of EfficientNet-Lite0, and a single-shot head on what they compute.

As SSD (https://arxiv.org/abs/1512.02325) it says in one pass, for every cell of a grid, whether a mark is there and
where it ends; as FCOS (https://arxiv.org/abs/1904.01355) without anchors: marks are from 2 to 40 times as wide as high,
for which a set of anchor shapes would be large, and mostly tiled or small, so that one fine grid sees them all. The
layers at stride 32 are left out: a mark is known by its strokes, not by what the picture shows. The head has layers of
1x1 alone, so that it is trained on cells drawn from many composites, as SSD draws hard negatives: a tenth of the time.

Shape suffixes: B frames, C channels, G = 40 cells a side.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.general.imagenet_network import EfficientNetLite0
from moderation.detectors.nn.conv import Conv

SIDE_PX: Final = 320
GRID: Final = 40
# Layers of the trunk after which features are read: stride 4, 8 and 16.
DEPTHS: Final = (4, 6, 12)
_WIDTHS: Final = (24, 40, 112)
_FINE: Final = _WIDTHS[1] + 2 * _WIDTHS[0]
CELL_WIDTH: Final = 2 * _FINE + 2 * _WIDTHS[2]
_HIDDEN: Final = 128
_TOP: Final = 4  # cells whose mean is the picture's answer: a lone cell may err
_LARGEST: Final = 6.0  # exp of it, times a cell, is as far as a side can be from the middle of its cell


class MarkTrunk(nn.Module):
    """Scaled RGB [B,3,320,320] -> fine [B,88,G,G] (stride 8, and stride 4 pooled to it), coarse [B,112,G/2,G/2]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = EfficientNetLite0().layers[: DEPTHS[-1]]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, second, _ = DEPTHS
        x = self.layers[:first](x)
        pooled = (F.avg_pool2d(x, 2), F.max_pool2d(x, 2))
        x = self.layers[first:second](x)
        fine = torch.cat([x, *pooled], dim=1)
        coarse: torch.Tensor = self.layers[second:](x)
        return fine, coarse


class MarkHead(nn.Module):
    """fine, coarse -> logits [B,G,G] of a mark in each cell, and sides [B,4,G,G].

    A cell is judged by what both strides have there, and by the mean around it. sides: logarithms of how many cells it
    is from the cell's middle to the left, upper, right and lower side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv(CELL_WIDTH, _HIDDEN, 1, activation="relu")
        self.middle = Conv(_HIDDEN, _HIDDEN, 1, activation="relu")
        self.last = Conv(_HIDDEN, 5, 1)

    def judge(self, cells: torch.Tensor) -> torch.Tensor:
        """[B,400,G,G] of `gather_cells` -> [B,5,G,G]."""
        answer: torch.Tensor = self.last(self.middle(self.first(cells)))
        return answer

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        answer = self.judge(gather_cells(fine, coarse)).float()
        return answer[:, 0], answer[:, 1:].clamp(-3, _LARGEST)


def gather_cells(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """[B,400,G,G]: what each cell is judged by."""
    around_fine = F.avg_pool2d(fine, 5, stride=1, padding=2, count_include_pad=False)
    around_coarse = F.avg_pool2d(coarse, 3, stride=1, padding=1, count_include_pad=False)
    wide = F.interpolate(torch.cat([coarse, around_coarse], dim=1), scale_factor=2, mode="nearest")
    return torch.cat([fine, around_fine, wide], dim=1)


class MarkNetwork(nn.Module):
    """Scaled RGB [B,3,320,320] -> [B,5,G,G]: the head's logits and sides in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = MarkTrunk()
        self.head = MarkHead()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits, sides = self.head(*self.trunk(x))
        return torch.cat([logits[:, None], sides], dim=1)


def picture_logits(logits_BGG: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffix
    """[B]: the mean of the four surest cells."""
    return logits_BGG.flatten(1).topk(_TOP, dim=1).values.mean(dim=1)


def cell_middles(device: torch.device) -> torch.Tensor:
    """float32 [2,G,G]: x and y of each cell's middle, in cells."""
    places = torch.arange(GRID, device=device, dtype=torch.float32) + 0.5
    return torch.stack([places.expand(GRID, GRID), places[:, None].expand(GRID, GRID)])


def decode_boxes(sides_B4GG: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffix
    """float32 [B,4,G,G]: x0, y0, x1, y1 in 0..1 of the picture, not cut at its edges."""
    return decode_sides(sides_B4GG.transpose(0, 1), cell_middles(sides_B4GG.device)).transpose(0, 1)


def decode_sides(sides: torch.Tensor, middles: torch.Tensor) -> torch.Tensor:
    """[4,...] of cells whose middles are [2,...], x and y -> float32 [4,...]: x0, y0, x1, y1 in 0..1."""
    x, y = middles
    left, top, right, bottom = sides.clamp(-3, _LARGEST).exp()
    return torch.stack([x - left, y - top, x + right, y + bottom]) / GRID

"""The watermark network: layers of EfficientNet-Lite0, and a single-shot head on what they compute.

As SSD (https://arxiv.org/abs/1512.02325) it says in one pass, for every cell of a grid, whether a mark is there and
where it ends; as FCOS (https://arxiv.org/abs/1904.01355) without anchors: marks are from 2 to 40 times as wide as high,
for which a set of anchor shapes would be large, and mostly tiled or small, so that one fine grid sees them all. Three
of the trunk's layers are left out, one of each width that repeats: trained without them it finds as many marks in a
sixth less time.

Shape suffixes: B frames, C channels, G = 40 cells a side.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.general.imagenet_network import EfficientNetLite0
from moderation.detectors.nn.blocks import InvertedResidual
from moderation.detectors.nn.conv import Conv

SIDE_PX: Final = 320
GRID: Final = 40
# Of EfficientNet-Lite0: each adds to what the layer before it gives, so that it can be left out.
_KEPT: Final = (0, 1, 2, 4, 5, 6, 7, 9, 10, 12, 13, 14)
# Layers of the trunk after which features are read: stride 4, 8, 16 and 32.
DEPTHS: Final = (3, 5, 9, 12)
_WIDTHS: Final = (24, 40, 112, 192)
_FINE: Final = _WIDTHS[1] + 2 * _WIDTHS[0]
_HIDDEN: Final = 128
_BLOCKS: Final = 2  # each sees five cells more
_TOP: Final = 4  # cells whose mean is the picture's answer: a lone cell may err
_LARGEST: Final = 6.0  # exp of it, times a cell, is as far as a side can be from the middle of its cell


class MarkTrunk(nn.Module):
    """Scaled RGB [B,3,320,320] -> features at three strides, see `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = pick_layers(EfficientNetLite0().layers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """fine [B,88,G,G] (stride 8, and stride 4 pooled to it), coarse [B,112,G/2,G/2], wide [B,192,G/4,G/4]."""
        return self.finish(self.layers[: DEPTHS[0]](x))

    def finish(self, strokes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same from what the layers up to stride 4 give, [B,24,2G,2G]."""
        first, second, third, _ = DEPTHS
        pooled = (F.avg_pool2d(strokes, 2), F.max_pool2d(strokes, 2))
        x = self.layers[first:second](strokes)
        fine = torch.cat([x, *pooled], dim=1)
        coarse: torch.Tensor = self.layers[second:third](x)
        wide: torch.Tensor = self.layers[third:](coarse)
        return fine, coarse, wide


def pick_layers(layers: nn.Sequential) -> nn.Sequential:
    """The trunk's layers of those of an EfficientNet-Lite0."""
    return nn.Sequential(*(layers[place] for place in _KEPT))


class MarkHead(nn.Module):
    """fine, coarse, wide -> logits [B,G,G] of a mark in each cell, and sides [B,4,G,G].

    sides: logarithms of how many cells it is from the cell's middle to the left, upper, right and lower side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = Conv(_FINE, _HIDDEN, 1, activation="relu")
        self.coarse = Conv(_WIDTHS[2], _HIDDEN, 1)
        self.wide = Conv(_WIDTHS[3], _HIDDEN, 1)
        self.around = nn.Sequential(
            *(
                InvertedResidual(_HIDDEN, _HIDDEN, Conv(_HIDDEN, _HIDDEN, 5, groups=_HIDDEN, activation="relu"), "relu")
                for _ in range(_BLOCKS)
            )
        )
        self.last = Conv(_HIDDEN, 5, 1)

    def forward(
        self, fine: torch.Tensor, coarse: torch.Tensor, wide: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        given = self.coarse(coarse, _enlarge(self.wide(wide)))
        answer = self.last(self.around(self.fine(fine, _enlarge(given)))).float()
        return answer[:, 0], answer[:, 1:].clamp(-3, _LARGEST)


def _enlarge(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class MarkNetwork(nn.Module):
    """Scaled RGB [B,3,320,320] -> [B,5,G,G]: the head's logits and sides in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = MarkTrunk()
        self.head = MarkHead()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.judge(self.trunk(x))

    def finish(self, strokes: torch.Tensor) -> torch.Tensor:
        """[B,5,G,G] from what the layers up to stride 4 give."""
        return self.judge(self.trunk.finish(strokes))

    def judge(self, features: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """[B,5,G,G] from what the trunk gives."""
        logits, sides = self.head(*features)
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

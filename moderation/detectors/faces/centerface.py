"""CenterFace: faces with five points in one pass; the network, its weights and the decoding of its maps.

Source: Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point",
https://arxiv.org/abs/1911.03599, https://github.com/Star-Clouds/CenterFace (MIT): MobileNetV2 up to stride 32, then
three steps back up to stride 4, with a sum of the backbone's maps at each. Trained on WIDER FACE.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.nn.blocks import InvertedResidual
from moderation.detectors.nn.conv import Conv, add_into
from moderation.detectors.nn.loading import copy_exactly, fitting, scale_and_shift
from moderation.detectors.weights.onnx import OnnxGraph

STRIDE: Final = 4  # of the maps; a place in them covers 4x4 pixels
MULTIPLE: Final = 32  # sides of the input are multiples, so that five halvings can be reversed exactly
POINTS: Final = 5  # left eye, right eye (as the viewer sees them), nose, left and right corner of the mouth
# expansion, width, repeats, first stride: MobileNetV2 (https://arxiv.org/abs/1801.04381), table 2 but the last layer.
_STAGES: Final = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_SIDEWAYS: Final = ((4, 96), (2, 32), (1, 24))  # stage whose map is added on the way up, and its width
_WIDTH: Final = 24
_BN_EPS: Final = 1e-3  # from the file
_MAX_LOG_SIZE: Final = 7.0  # e^7 * 4 = 4386 pixels: no face is larger, and an unbounded exp() may be infinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The highest places of each frame's heat map, best first; K per frame.

    scores: float32 [B,K], 0..1. boxes: float32 [B,K,4], x0, y0, x1, y1 in pixels of the network's input.
    points: float32 [B,K,5,2], x, y in the same pixels.
    """

    scores: torch.Tensor
    boxes: torch.Tensor
    points: torch.Tensor


class CenterFace(nn.Module):
    """RGB 0..255, [B,3,H,W], sides multiples of 32 -> [B,15,H/4,W/4]: heat, 2 sizes, 2 offsets, 10 points."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, stride=2, activation="relu")
        stages: list[nn.Module] = []
        width_in = 32
        for expansion, width, repeats, stride in _STAGES:
            blocks: list[nn.Module] = []
            for i in range(repeats):
                hidden = width_in * expansion
                depthwise = Conv(hidden, hidden, 3, stride=stride if i == 0 else 1, groups=hidden, activation="relu")
                # A stage's first block changes the width, so no block overwrites a map that the way up reads.
                blocks.append(InvertedResidual(width_in, width, depthwise, "relu"))
                width_in = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.top = Conv(width_in, _WIDTH, 1, activation="relu")
        self.up = nn.ModuleList(nn.ConvTranspose2d(_WIDTH, _WIDTH, 2, stride=2) for _ in _SIDEWAYS)
        self.sideways = nn.ModuleList(Conv(width, _WIDTH, 1, activation="relu") for _, width in _SIDEWAYS)
        self.neck = Conv(_WIDTH, _WIDTH, 3, activation="relu")
        # The paper's four heads side by side: one product instead of four.
        self.heads = Conv(_WIDTH, 1 + 2 + 2 + 2 * POINTS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        maps: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.top(x)
        for up, sideways, (place, _) in zip(self.up, self.sideways, _SIDEWAYS, strict=True):
            x = add_into(torch.relu_(up(x)), sideways(maps[place]))
        out: torch.Tensor = self.heads(self.neck(x))
        return out


def load_centerface(network: CenterFace, graph: OnnxGraph) -> None:
    """Copy the file's numbers, in the order of its operations. Raises FatalError when they are another network's."""
    convolutions, ups, norms = (_inputs_of(graph, op) for op in ("Conv", "ConvTranspose", "BatchNormalization"))
    with fitting("faces"):
        for module in (network.stem, network.stages, network.top):
            _copy_convolutions(module, convolutions)
        for up, sideways in zip(network.up, network.sideways, strict=True):
            assert isinstance(up, nn.ConvTranspose2d)
            (weight,) = next(ups)
            gamma, beta, mean, variance = next(norms)
            scale, shift = scale_and_shift(gamma, beta, mean, variance, _BN_EPS)
            copy_exactly(up.weight, weight * scale.view(1, -1, 1, 1))
            copy_exactly(up.bias, shift)
            _copy_convolutions(sideways, convolutions)
        _copy_convolutions(network.neck, convolutions)
        # Heat, sizes, offsets, points: the order of the file, which is that of its four outputs.
        heads = list(convolutions)
        copy_exactly(network.heads.weight, torch.cat([weight for weight, _ in heads]))
        copy_exactly(network.heads.bias, torch.cat([bias for _, bias in heads]))


def _inputs_of(graph: OnnxGraph, op: str) -> Iterator[list[torch.Tensor]]:
    """The tensors that each operation of this kind reads besides its first input, in the file's order."""
    for node in graph.nodes:
        if node.op == op:
            yield [graph.tensors[name] for name in node.inputs[1:]]


def _copy_convolutions(module: nn.Module, tensors: Iterator[list[torch.Tensor]]) -> None:
    for convolution in module.modules():
        if isinstance(convolution, Conv):
            weight, bias = next(tensors)
            copy_exactly(convolution.weight, weight)
            copy_exactly(convolution.bias, bias)


def read_peaks(maps: torch.Tensor, count: int) -> Peaks:
    """The `count` highest places of each frame of [B,15,h,w], as boxes and points; several may belong to one face."""
    maps = maps.float()
    height, width = maps.shape[-2:]
    flat = maps.flatten(2)
    # A place next to a higher one belongs to the same face.
    heat = maps[:, :1]
    heat = heat.masked_fill(heat < F.max_pool2d(heat, 3, stride=1, padding=1), -torch.inf)
    heat, where = heat.flatten(1).topk(min(count, height * width), dim=1)
    at = flat[:, 1:].gather(2, where.unsqueeze(1).expand(-1, flat.shape[1] - 1, -1)).transpose(1, 2)
    # The file lists y before x throughout.
    size = torch.exp(at[..., [1, 0]].clamp(max=_MAX_LOG_SIZE)) * STRIDE
    place = torch.stack([where % width, where.div(width, rounding_mode="floor")], dim=-1)
    corner = (place + at[..., [3, 2]] + 0.5) * STRIDE - size / 2
    points = at[..., 4:].reshape(*at.shape[:2], POINTS, 2).flip(-1)
    return Peaks(
        scores=heat.sigmoid(),
        boxes=torch.cat([corner, corner + size], dim=-1),
        points=points * size.unsqueeze(2) + corner.unsqueeze(2),
    )

"""The network of open_nsfw: a thin ResNet, and how its file is read into it."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.nn.conv import Conv
from moderation.detectors.nn.loading import copy_exactly, fitting
from moderation.detectors.weights.onnx import OnnxGraph
from moderation.errors import FatalError
from moderation.media.roundtrip import jpeg_roundtrip

# Blocks per stage, width of their 3x3 convolution; their output is four times as wide.
_STAGES: Final = ((3, 32), (4, 64), (6, 128), (3, 256))


class ThinResNet(nn.Module):
    """RGB minus mean, [B,3,224,224] -> logits [B,2]. Batch norms are folded into the convolutions, as in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 64, 7, stride=2, activation="relu")
        blocks: list[nn.Module] = []
        width_in = 64
        for stage, (count, width) in enumerate(_STAGES):
            for i in range(count):
                blocks.append(_Bottleneck(width_in, width, stride=2 if stage and i == 0 else 1, project=i == 0))
                width_in = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width_in, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # TensorFlow's SAME padding, here only at the end: ceil_mode lets windows reach over it without a padded copy.
        x = F.max_pool2d(self.stem(x), 3, 2, ceil_mode=True)
        logits: torch.Tensor = self.head(self.blocks(x).mean(dim=(2, 3)))
        return logits


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; the stride is on the first (as in Caffe), and on the projection of a stage's first block."""

    def __init__(self, width_in: int, width: int, *, stride: int, project: bool) -> None:
        super().__init__()
        # In the file's order.
        self.project = Conv(width_in, 4 * width, 1, stride=stride) if project else None
        self.reduce = Conv(width_in, width, 1, stride=stride, activation="relu")
        self.middle = Conv(width, width, 3, activation="relu")
        self.expand = Conv(width, 4 * width, 1, activation="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.project is None else self.project(x)
        out: torch.Tensor = self.expand(self.middle(self.reduce(x)), shortcut)
        return out


def load_network(network: ThinResNet, graph: OnnxGraph) -> None:
    """Copy the file's convolutions, in order, and its last layer. Raises FatalError when they do not fit."""
    convolutions = [module for module in network.modules() if isinstance(module, Conv)]
    given = [node.inputs[1:] for node in graph.nodes if node.op == "Conv"]
    head = _head_names(graph)
    if len(given) != len(convolutions) or len(head) != 2:
        raise FatalError(f"open_nsfw: weights of another network ({len(given)} convolutions, expected 53)")
    with fitting("open_nsfw"):
        for module, (weight, bias) in zip(convolutions, given, strict=True):
            copy_exactly(module.weight, graph.tensors[weight])
            copy_exactly(module.bias, graph.tensors[bias])
        # The file reads BGR.
        network.stem.weight.copy_(network.stem.weight.flip(1))
        copy_exactly(network.head.weight, graph.tensors[head[0]].T)
        copy_exactly(network.head.bias, graph.tensors[head[1]])


def _head_names(graph: OnnxGraph) -> list[str]:
    """Names of the last layer's weight and bias: the only constants that are multiplied or added."""
    return [node.inputs[1] for node in graph.nodes if node.op in ("MatMul", "Add") and node.inputs[1] in graph.tensors]


def through_jpeg(pixels: torch.Tensor) -> torch.Tensor:
    rows = pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    back = [torch.from_numpy(jpeg_roundtrip(row)) for row in rows]
    if not back:
        return pixels
    return torch.stack(back).permute(0, 3, 1, 2).to(pixels.device, torch.float32)

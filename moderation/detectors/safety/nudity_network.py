"""The network of NudeNet (YOLOv8 nano, 18 classes) written out, and the loading of the file's numbers.

Source: https://github.com/notAI-tech/NudeNet; architecture: https://github.com/ultralytics/ultralytics. The weights are
under the AGPL-3.0: see `nudity`.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.nn.conv import Conv
from moderation.detectors.safety.nudity import PARTS
from moderation.detectors.weights.onnx import OnnxGraph
from moderation.errors import FatalError

CLASSES: Final = len(PARTS)
_BINS: Final = 16  # the distance to a side is the mean of a distribution over this many bins
_FIRST: Final = "model.0.conv.weight"
_STRIDES: Final = (8, 16, 32)
# Widths of the nano network at each halving, and blocks of each stage.
_WIDTHS: Final = (16, 32, 64, 128, 256)


class PartsNetwork(nn.Module):
    """RGB 0..1, [B,3,S,S] with S a multiple of 32 -> [B,4+18,N]: centre x, y, width, height in pixels, then one
    score per class.

    Modules have the names of the file.
    """

    def __init__(self) -> None:
        super().__init__()
        _, w2, w3, w4, w5 = _WIDTHS
        self.model = nn.ModuleDict(
            {
                "0": _Named(3, 16, 3, 2),
                "1": _Named(16, w2, 3, 2),
                "2": _Split(w2, w2, 1, shortcut=True),
                "3": _Named(w2, w3, 3, 2),
                "4": _Split(w3, w3, 2, shortcut=True),
                "5": _Named(w3, w4, 3, 2),
                "6": _Split(w4, w4, 2, shortcut=True),
                "7": _Named(w4, w5, 3, 2),
                "8": _Split(w5, w5, 1, shortcut=True),
                "9": _Pyramid(w5),
                "12": _Split(w5 + w4, w4, 1),
                "15": _Split(w4 + w3, w3, 1),
                "16": _Named(w3, w3, 3, 2),
                "18": _Split(w4 + w3, w4, 1),
                "19": _Named(w4, w4, 3, 2),
                "21": _Split(w5 + w4, w5, 1),
                "22": _Heads((w3, w4, w5)),
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        m = self.model
        fine = m["4"](m["3"](m["2"](m["1"](m["0"](x)))))
        middle = m["6"](m["5"](fine))
        coarse = m["9"](m["8"](m["7"](middle)))
        up = m["12"](torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], dim=1))
        small = m["15"](torch.cat([F.interpolate(up, scale_factor=2.0), fine], dim=1))
        medium = m["18"](torch.cat([m["16"](small), up], dim=1))
        large = m["21"](torch.cat([m["19"](medium), coarse], dim=1))
        outputs: torch.Tensor = m["22"]((small, medium, large))
        return outputs


class _Named(nn.Module):
    """A convolution with SiLU, under the file's name `conv`."""

    def __init__(self, width_in: int, width: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv(width_in, width, kernel, stride=stride, activation="silu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        return out


class _ConvPair(nn.Module):
    def __init__(self, width: int, *, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = _Named(width, width, 3)
        self.cv2 = _Named(width, width, 3)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.cv2(self.cv1(x))
        return x + out if self.shortcut else out


class _Split(nn.Module):
    """Half goes through pairs of convolutions in sequence; all intermediate results are joined."""

    def __init__(self, width_in: int, width: int, pairs: int, *, shortcut: bool = False) -> None:
        super().__init__()
        half = width // 2
        self.cv1 = _Named(width_in, width)
        self.cv2 = _Named((2 + pairs) * half, width)
        self.m = nn.ModuleList(_ConvPair(half, shortcut=shortcut) for _ in range(pairs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.cv1(x).chunk(2, dim=1))
        for pair in self.m:
            parts.append(pair(parts[-1]))
        out: torch.Tensor = self.cv2(torch.cat(parts, dim=1))
        return out


class _Pyramid(nn.Module):
    """Maxima over 5, 9 and 13 pixels, joined with the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = _Named(width, width // 2)
        self.cv2 = _Named(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        out: torch.Tensor = self.cv2(torch.cat(parts, dim=1))
        return out


class _Heads(nn.Module):
    """Boxes (a distance to each side, as a distribution over 16 bins) and class scores, at three scales."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.cv2 = nn.ModuleList(_head(width, 4 * _BINS) for width in widths)
        self.cv3 = nn.ModuleList(_head(width, CLASSES) for width in widths)

    def forward(self, levels: tuple[torch.Tensor, ...]) -> torch.Tensor:
        outputs = []
        for level, stride, box, score in zip(levels, _STRIDES, self.cv2, self.cv3, strict=True):
            batch, _, height, width = level.shape
            # Not in bf16: its eight bits are too few for coordinates of hundreds of pixels.
            bins = box(level).float().reshape(batch, 4, _BINS, height * width).softmax(dim=2)
            steps = torch.arange(_BINS, dtype=torch.float32, device=level.device).view(1, 1, _BINS, 1)
            left, top, right, bottom = ((bins * steps).sum(dim=2) * stride).unbind(dim=1)
            y, x = torch.meshgrid(
                *(torch.arange(n, dtype=torch.float32, device=level.device) for n in (height, width)), indexing="ij"
            )
            x, y = ((place.flatten() + 0.5) * stride for place in (x, y))
            boxes = [x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom]
            scores = score(level).float().reshape(batch, CLASSES, height * width).sigmoid()
            outputs.append(torch.cat([torch.stack(boxes, dim=1), scores], dim=1))
        return torch.cat(outputs, dim=2)


def _head(width_in: int, out: int) -> nn.Sequential:
    return nn.Sequential(_Named(width_in, 64, 3), _Named(64, 64, 3), nn.Conv2d(64, out, 1))


def load_network(network: PartsNetwork, graph: OnnxGraph) -> None:
    """Copy the file's tensors by name. Raises FatalError when they do not fit."""
    parameters = network.state_dict()
    for name, parameter in parameters.items():
        _copy_named(name, parameter, graph.tensors.get(name))
    foreign = [name for name in graph.tensors if _is_weight(name) and name not in parameters]
    if foreign:
        raise FatalError(f"nudity: weights of another, larger network: {foreign[0]}")


def _copy_named(name: str, parameter: torch.Tensor, given: torch.Tensor | None) -> None:
    if given is None or given.shape != parameter.shape:
        shape = None if given is None else list(given.shape)
        raise FatalError(f"nudity: weights of another network: {name} is {shape}, expected {list(parameter.shape)}")
    # The package swaps colours once too often and so feeds the network BGR; ours scores the same.
    parameter.copy_(given.flip(1) if name == _FIRST else given)


def _is_weight(name: str) -> bool:
    """Whether a tensor of the file is a weight; the bins of distances are constants that are computed here."""
    return name.startswith("model.") and not name.startswith("model.22.dfl.")

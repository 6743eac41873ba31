"""dlib's face network in torch: an aligned face chip of 150x150 pixels -> 128 numbers.

Faces of one person lie nearer than 0.6, faces of different people further apart, by Euclidean distance of the numbers
as they are (not normalised). Source: https://github.com/davisking/dlib-models
(dlib_face_recognition_resnet_model_v1.dat, CC0; 99.38% on LFW according to its author); a ResNet-34 with fewer layers
and half the filters, trained with a metric loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.faces.chip import CHIP, EMBEDDING
from moderation.detectors.faces.dlib_file import DlibLayer, DlibNetwork
from moderation.detectors.nn.conv import Conv
from moderation.errors import FatalError

# width, blocks, whether the first of them halves the picture.
_STAGES: Final = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
_BLOCK: Final = ("con_4", "affine_", "relu_", "con_4", "affine_")
_SUM: Final = ("add_prev_", "relu_")


class FaceNetwork(nn.Module):
    """RGB 0..255, [N,3,150,150] -> [N,128]."""

    means: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(1, 3, 1, 1))
        self.stem = Conv(3, 32, 7, stride=2, padding=0, activation="relu")
        blocks: list[nn.Module] = []
        width_in = 32
        for width, count, down in _STAGES:
            for i in range(count):
                blocks.append(_FaceBlock(width_in, width, down=down and i == 0))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.embed = nn.Linear(width_in, EMBEDDING, bias=False)

    def forward(self, chips: torch.Tensor) -> torch.Tensor:
        x = (chips - self.means) / 256
        x = F.max_pool2d(self.stem(x), 3, stride=2)
        out: torch.Tensor = self.embed(self.blocks(x).mean(dim=(2, 3)))
        return out


class _FaceBlock(nn.Module):
    """Two convolutions added to their input, which is halved where they halve."""

    def __init__(self, width_in: int, width: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        # dlib pads a convolution only where it keeps the size.
        self.first = Conv(width_in, width, 3, stride=2 if down else 1, padding=0 if down else 1, activation="relu")
        self.second = Conv(width, width, 3, activation=None if down else "relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.first(x)
        if not self.down:
            out: torch.Tensor = self.second(y, x)
            return out
        y = self.second(y)
        shortcut = F.avg_pool2d(x, 2)
        # In dlib's sum missing rows, columns and channels of either count as 0.
        height, width = (max(a, b) for a, b in zip(y.shape[2:], shortcut.shape[2:], strict=True))
        return torch.relu_(_padded(y, y.shape[1], height, width) + _padded(shortcut, y.shape[1], height, width))


def _padded(x: torch.Tensor, channels: int, height: int, width: int) -> torch.Tensor:
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1]))


def load_face_network(network: FaceNetwork, file: DlibNetwork) -> None:
    """Copy the file's numbers, each affine layer folded into its convolution. Raises FatalError for other networks."""
    layers = iter(file.layers)
    try:
        if (file.height, file.width) != (CHIP, CHIP):
            raise ValueError(f"an input of {file.width}x{file.height}")
        with torch.no_grad():
            network.means.copy_(torch.tensor(file.means).view(1, 3, 1, 1))
            _fold(network.stem, *_take(layers, ("con_4", "affine_", "relu_"))[:2])
            (pool,) = _take(layers, ("max_pool_2",))
            _same(pool, (3, 3, 2, 2, 0, 0))
            for block in network.blocks:
                assert isinstance(block, _FaceBlock)
                taken = _take(layers, _BLOCK)
                _fold(block.first, *taken[:2])
                _fold(block.second, *taken[3:])
                if block.down:
                    (pool,) = _take(layers, ("avg_pool_2",))
                    _same(pool, (2, 2, 2, 2, 0, 0))
                _take(layers, _SUM)
            _, last = _take(layers, ("avg_pool_2", "fc_2"))
            weight = torch.from_numpy(last.parameters).view(network.embed.in_features, EMBEDDING)
            network.embed.weight.copy_(weight.T)
    except (RuntimeError, ValueError) as error:
        raise FatalError(f"gallery: weights of another network: {error}") from error
    if next(layers, None) is not None:
        raise FatalError("gallery: weights of another, larger network")


def _take(layers: Iterator[DlibLayer], names: tuple[str, ...]) -> list[DlibLayer]:
    taken = [layer for _, layer in zip(names, layers, strict=False)]
    if tuple(layer.name for layer in taken) != names:
        raise ValueError(f"layers {', '.join(layer.name for layer in taken)} instead of {', '.join(names)}")
    return taken


def _same(layer: DlibLayer, numbers: tuple[int, ...]) -> None:
    if layer.numbers != numbers:
        raise ValueError(f"{layer.name} of {layer.numbers} instead of {numbers}")


def _fold(module: Conv, convolution: DlibLayer, affine: DlibLayer) -> None:
    kernel, stride, padding = module.kernel_size, module.stride, module.padding
    _same(convolution, (module.out_channels, *kernel, *stride, *(int(p) for p in padding)))
    count = module.weight.numel()
    if convolution.parameters.size != count + module.out_channels or affine.parameters.size != 2 * module.out_channels:
        raise ValueError(f"a convolution of {convolution.parameters.size} and {affine.parameters.size} numbers")
    gamma, beta = np.split(affine.parameters.astype(np.float64), 2)
    weight = convolution.parameters[:count].reshape(module.weight.shape) * gamma.reshape(-1, 1, 1, 1)
    assert module.bias is not None  # built with a bias
    module.weight.copy_(torch.from_numpy(weight))
    module.bias.copy_(torch.from_numpy(convolution.parameters[count:] * gamma + beta))

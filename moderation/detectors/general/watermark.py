"""Marks laid over a picture: of a stock agency, a site, a person; where they are, and how surely.

Trained by `moderation train-watermark` on composites made by this project; figures and limits in docs/watermark.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.registry import check_options
from moderation.errors import FatalError
from moderation.types import Region

if TYPE_CHECKING:
    import torch

    from moderation.detectors.general.watermark_network import MarkNetwork
else:
    from moderation.detectors.deferred import torch

# The least with a precision of 0.95 on held-back backgrounds, one picture in eight marked: `held_back` of the card.
LEAD_THRESHOLD: Final = 0.968
_MAX_FRAMES: Final = 3  # of a part of a batch; see `infer`
_OVERLAP: Final = 0.3
_MAX_REGIONS: Final = 40  # of a frame; a tiled mark has as many
_MAX_FILE_BYTES: Final = 64 << 20


class Watermark(DetectorDefaults):
    """Label `mark`, 0..1: that a mark lies over the picture; regions where it does.

    A lead, not proof: for `review` only, from `LEAD_THRESHOLD` on. Where one picture in eight is marked, nineteen in
    twenty of those over it are; docs/watermark.md has the figures.

    Words that belong to the scene (signs, print on clothes, subtitles, screens) are not meant. Option `min_region`:
    the least score of a region, default 0.5. View: the whole picture squashed to 320x320; (x - 127) / 128.
    """

    name = "watermark"
    version = "2"
    labels: Sequence[str] = ("mark",)
    view = View(mode="squash", resize=320, crop=320)
    cost_ms = 16.0
    weights: Sequence[Weights] = (
        Weights(
            locator="pkg://moderation/detectors/general/watermark.safetensors",
            sha256="67d3260072db069ecc35a05bca21cf17de0251a21bffed6dbe5b5706af64f34c",
            licence="Apache-2.0",
            origin="moderation train-watermark, docs/watermark.md",
        ),
    )

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"min_region": (int, float)})
        self._min_region = float(options.get("min_region", 0.5))
        self._network: MarkNetwork | None = None
        self._dtype: torch.dtype

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights and move to the device. Raises FatalError when they are not of this network."""
        from moderation.detectors.general.watermark_network import MarkNetwork
        from moderation.detectors.nn.prepare import prepare
        from moderation.detectors.nn.suppression import load_suppression

        network = MarkNetwork()
        load_marks(network, Path(paths[0]))
        load_suppression()
        self._network = prepare(network, device, dtype)
        self.networks = (self._network,)
        self._dtype = dtype

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,1]; a region for each mark that is found, the surest first."""
        from moderation.detectors.general.watermark_network import decode_boxes, picture_logits
        from moderation.detectors.nn.prepare import infer

        if self._network is None:
            raise RuntimeError("load() first")
        scaled = ((batch.view(self.view) - 127) / 128).to(self._dtype)
        answer = infer(self._network, scaled, max_frames=_MAX_FRAMES).float()
        scores = picture_logits(answer[:, 0]).sigmoid() if len(answer) else answer.new_zeros(0)
        boxes = decode_boxes(answer[:, 1:]).clamp(0, 1).flatten(2).transpose(1, 2).cpu()
        cells = answer[:, 0].flatten(1).sigmoid().cpu()
        regions = [self._regions(own, sure) for own, sure in zip(boxes, cells, strict=True)]
        return Scored(scores=scores[:, None], regions=regions)

    def _regions(self, boxes: torch.Tensor, sure: torch.Tensor) -> list[Region]:
        from moderation.detectors.nn.suppression import distinct

        order = sure.argsort(descending=True, stable=True)
        order = order[sure[order] >= self._min_region]
        if not len(order):
            return []
        kept = order[distinct(boxes[order], _OVERLAP)][:_MAX_REGIONS]
        return [
            Region(detector=self.name, label="mark", score=float(sure[cell]), x0=x0, y0=y0, x1=x1, y1=y1)
            for cell, (x0, y0, x1, y1) in zip(kept.tolist(), boxes[kept].tolist(), strict=True)
        ]


def load_marks(network: MarkNetwork, path: Path) -> None:
    """Copy a file's numbers. Raises FatalError when they are not of this network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from moderation.detectors.nn.loading import copy_exactly, fitting

    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise FatalError(f"{path}: over {_MAX_FILE_BYTES >> 20} MiB are no watermark network")
        tensors: Mapping[str, torch.Tensor] = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise FatalError(f"{path}: not readable as safetensors: {error}") from error
    parameters = dict(network.named_parameters())
    if set(parameters) != set(tensors):
        raise FatalError(
            f"{path}: weights of another network: they have other layers than `watermark`, version {Watermark.version};"
            " weights for an earlier version must be trained anew"
        )
    with fitting(f"watermark: {path}"):
        for name, parameter in parameters.items():
            copy_exactly(parameter, tensors[name].to(parameter.dtype))

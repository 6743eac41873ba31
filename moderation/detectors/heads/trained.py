"""A head that was trained on labelled pictures, over the network of a detector before it.

    stack:
      detectors:
        - name: imagenet
        - name: head:scenes                     # columns scenes.indoors, scenes.street, ...
          weights: file:///bundles/scenes/head.safetensors
          sha256: ...

Any number of heads share one forward pass of their backbone. A head of whose backbone the last layers were trained,
too, brings these along, and runs them on what the layers below computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moderation.detectors.base import (
    Backbone,
    ClassifyingBackbone,
    Detector,
    DetectorDefaults,
    FrameBatch,
    Scored,
    View,
    Weights,
)
from moderation.detectors.heads.head_file import TAIL, HeadRecord, read_head_record, read_head_tensors
from moderation.detectors.registry import check_options
from moderation.detectors.weights.locator import resolve
from moderation.errors import FatalError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from moderation.detectors.nn.trunk import Averaged
else:
    from moderation.detectors.deferred import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneUse:
    """Which detector of the stack a head builds on, by title; the checksum of its weights; the depth that it reads."""

    title: str
    sha256: str
    depth: int | None


class TrainedHead(DetectorDefaults):
    """One label a class of its file, 0..1: together 1, or each by itself where a picture may be of several.

    Option `backbone`: what the stack calls the detector that it was trained on, where that is another name than the
    file's. Null where the backbone's embedding is.
    """

    name = "head"
    version = "1"
    labels: Sequence[str] = ()
    view = View(mode="canvas")
    cost_ms = 0.1
    weights: Sequence[Weights] = (Weights(locator="", sha256="", licence="its file's", origin="moderation train-head"),)

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"backbone": str})
        self._title: str | None = options.get("backbone")
        self._record: HeadRecord | None = None
        self._tail: nn.Module | None = None
        self._backbone: Backbone | None = None
        self._dtype: torch.dtype
        self._weight: torch.Tensor
        self._bias: torch.Tensor

    def take_weights(self, weights: Sequence[Weights]) -> None:
        """Take this head: its labels and its backbone are the file's from now on. Raises UsageError, FatalError."""
        super().take_weights(weights)
        self._adopt(read_head_record(resolve(weights[0])))

    @property
    def backbone_use(self) -> BackboneUse:
        """What it builds on."""
        record = self._known()
        return BackboneUse(title=self.requires[0], sha256=record.backbone.sha256, depth=record.depth)

    def attach(self, backbone: Detector, sha256: str) -> None:
        """Be told of its backbone, before either is loaded. Raises UsageError where it is another network."""
        use = self.backbone_use
        if sha256.lower() != use.sha256.lower():
            raise UsageError(
                f"detector {self.name!r}: trained on {self._known().backbone.detector!r} with other weights than "
                f"{use.title!r} has here (sha256 {use.sha256[:12]}..., here {sha256[:12] or 'unknown'}...);"
                " train it again"
            )
        side, own_side = getattr(backbone, "input_px", None), self._known().backbone.input_px
        if side != own_side:
            raise UsageError(
                f"detector {self.name!r}: trained on {self._known().backbone.detector!r} with `input_px`"
                f" {own_side or 'not set'}; {use.title!r} has {side or 'none'}"
            )
        if self._known().reads == "embedding_and_classes":
            if not isinstance(backbone, ClassifyingBackbone):
                raise UsageError(f"detector {self.name!r}: {use.title!r} gives no place among classes")
            backbone.offer_class_mean()
        if use.depth is None:
            return
        if not isinstance(backbone, Backbone):
            raise UsageError(f"detector {self.name!r}: {use.title!r} hands on no features of its layers")
        self._backbone = backbone
        backbone.offer_features(use.depth)

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the numbers. Raises FatalError when they are no head's, or of other layers."""
        from moderation.detectors.nn.prepare import prepare

        path = Path(paths[0])
        record = read_head_record(path)
        self._adopt(record)
        tensors = read_head_tensors(path, record)
        temperature = tensors["temperature"]
        self._weight = (tensors["weight"] / temperature[:, None]).to(device)
        self._bias = (tensors["bias"] / temperature).to(device)
        self._dtype = dtype
        if record.depth is not None:
            self._tail = prepare(self._read_tail(record.depth, tensors), device, dtype)
            self.networks = (self._tail,)

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,classes]."""
        from moderation.detectors.nn.class_mean import join_class_mean
        from moderation.detectors.nn.prepare import infer, one_thread

        record = self._known()
        scored = earlier[self.requires[0]]
        if self._tail is None:
            embedding = scored.embedding
        else:
            # Layers may write over their input, which other heads read.
            embedding = infer(self._tail, scored.features[record.depth or 0].to(self._dtype).clone())
        if embedding is None:
            raise FatalError(f"detector {self.name!r}: {self.requires[0]!r} has no embedding")
        # In bf16 products would be rounded, by sizes of batches.
        with torch.autocast(batch.device.type, enabled=False), one_thread():
            x = embedding.float()
            if record.reads == "embedding_and_classes":
                if scored.class_mean is None:
                    raise FatalError(f"detector {self.name!r}: {self.requires[0]!r} has no place among classes")
                x = join_class_mean(x, scored.class_mean)
            elif record.backbone.normalised:
                x = torch.nn.functional.normalize(x, dim=1)
            logits = x @ self._weight.T + self._bias
            scores = logits.sigmoid() if record.several else logits.softmax(dim=1)
        return Scored(scores=scores)

    def _adopt(self, record: HeadRecord) -> None:
        self._record = record
        self.labels = record.classes
        self.requires = (self._title or record.backbone.detector,)
        self.cost_ms = 0.1 if record.depth is None else 3.0

    def _known(self) -> HeadRecord:
        if self._record is None:
            raise RuntimeError("take_weights() or load() first")
        return self._record

    def _read_tail(self, depth: int, tensors: Mapping[str, torch.Tensor]) -> Averaged:
        from moderation.detectors.nn.loading import copy_exactly, fitting
        from moderation.detectors.nn.trunk import Averaged

        if self._backbone is None:
            raise RuntimeError("attach() first")
        tail = Averaged(self._backbone.build_trunk()[depth:])
        named = {name.removeprefix(TAIL): t for name, t in tensors.items() if name.startswith(TAIL)}
        parameters = dict(tail.layers.named_parameters())
        with fitting(self.name):
            if set(parameters) != set(named):
                raise KeyError("other layers than the backbone has at this depth")
            for name, parameter in parameters.items():
                copy_exactly(parameter, named[name])
        return tail

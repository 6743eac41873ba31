"""Classes of a picture, with probabilities that sum to 1: a linear head over other detectors' votes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moderation.config.hints import closest
from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.heads.linear import Feature, Head, read_head
from moderation.detectors.registry import check_options
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

_MIN_ODDS: Final = 0.018  # logits are cut at -4 and 4: beyond them networks differ in confidence, not in content


class Classes(DetectorDefaults):
    """One score per class of its head's file, summing to 1; the head reads other detectors' votes, not pixels.

    The file sets the labels and the detectors that it reads (see `linear`); it is read when the detector is built. The
    packaged file has four classes: `explicit`, `suggestive` (swimwear, underwear, posed), `person`, `other`. It is a
    rule set by hand, because there were no labelled pictures (`weights:` replaces it by any other head):

    - explicit where both networks are sure; it equals suggestive where both score 0.9
    - suggestive where either network suspects it, or the picture shows swimwear or underwear
    - person where it shows clothes usually photographed on people (the concept `worn`), or a face was found
    - other where none of this holds

    Measured on the 200 sample photographs and six portraits that it was set with, without `faces` (this shows that the
    rule is consistent, not how well it does elsewhere): explicit none (highest the miniskirt, 0.12), suggestive bikini,
    sarong and miniskirt, person the six portraits and four more, other 193. People in everyday clothes, or small in the
    picture, come out as `other` where `faces` does not find them.

    The packaged head reads `open_nsfw`, `image_safety` and `imagenet` with the concepts `swimwear`, `underwear` and
    `worn`; and where the stack has them before it, `faces` and `nudity`.
    """

    name = "classes"
    version = "1"
    labels: Sequence[str] = ()
    view = View(mode="canvas")
    cost_ms = 0.1
    weights: Sequence[Weights] = (
        Weights(
            locator="pkg://moderation/detectors/heads/classes.json",
            sha256="97ad881b4f845d32c8e361062903fabd5821481e1202994af58ca3abda0aa660",
            licence="Apache-2.0",
            origin="this repository",
        ),
    )

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {})
        self.head: Head | None = None

    def take_weights(self, weights: Sequence[Weights]) -> None:
        """Take this head, with its labels and the detectors that it reads."""
        super().take_weights(weights)
        self._adopt(read_head(resolve(weights[0])))

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the head. Raises FatalError when it is not one."""
        self._adopt(read_head(Path(paths[0])))

    def _adopt(self, head: Head) -> None:
        self.head = head
        self.labels, self.requires, self.optional = head.classes, head.required, head.optional

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,classes], rows sum to 1; NaN where a vote without a `missing` is null."""
        if self.head is None:
            raise RuntimeError("load() first")
        # Some detectors score on the host, whatever the batch's device.
        columns = {
            f"{name}.{label}": scored.scores[:, place].to(batch.device, torch.float32)
            for name, scored in earlier.items()
            for place, label in enumerate(scored.labels)
        }
        null = torch.full((len(batch),), math.nan, device=batch.device)
        features = torch.stack([_compute(f, columns, null) for f in self.head.features], dim=1)
        weights = torch.tensor([self.head.weights[c] for c in self.head.classes], device=batch.device)
        bias = torch.tensor([self.head.bias[c] for c in self.head.classes], device=batch.device)
        # A sum, not a matrix product: bf16 would round it, differently for different batch sizes.
        logits = (features.unsqueeze(1) * weights).sum(dim=2) + bias
        return Scored(scores=logits.float().softmax(dim=1))


def _compute(feature: Feature, columns: Mapping[str, torch.Tensor], null: torch.Tensor) -> torch.Tensor:
    values = torch.stack([_read(vote, feature.missing, columns, null) for vote in feature.votes])
    fused = values.sum(dim=0)
    if feature.fuse != "sum":
        fused = values.amin(dim=0) if feature.fuse == "min" else values.amax(dim=0)
    if feature.transform == "identity":
        return fused
    logit = torch.logit(fused, eps=_MIN_ODDS)
    return logit if feature.transform == "logit" else logit.clamp(min=0)


def _read(vote: str, missing: float | None, columns: Mapping[str, torch.Tensor], null: torch.Tensor) -> torch.Tensor:
    column = columns.get(vote)
    if missing is not None:
        return null.nan_to_num(missing) if column is None else column.nan_to_num(missing)
    if column is None:
        close = closest(vote, columns, cutoff=0.5)
        hint = f"; the nearest is {close!r}" if close else ""
        raise UsageError(f"detector 'classes': its head reads {vote!r}, which no detector of the stack has{hint}")
    return column

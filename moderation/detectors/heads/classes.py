"""What a picture is, in classes that share 1: by a linear head over what other detectors said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from moderation.config.hints import closest
from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.heads.linear import Feature, Head, read_head
from moderation.detectors.registry import check_options
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError

_MIN_ODDS: Final = 0.018  # logits end at -4 and 4: what networks say beyond is how sure they are, not what it is


class Classes(DetectorDefaults):
    """One score per class of its head's file, together 1; a head over other detectors' votes that looks at no pixel.

    Labels, and the detectors that it reads, follow from the file (see `linear`), which is read when the detector is
    built. The packaged file has four: `explicit`, `suggestive` (swimwear, underwear, posed), `person`, `other`. It is a
    rule set by hand, there being no labelled pictures (`weights:` replaces it by any other head):

    - explicit where both networks are sure: even with suggestive where both say 0.9
    - suggestive where either suspects it, or clothes to bathe or sleep in are what the picture shows
    - person where it shows clothes that are photographed on people (the concept `worn`), or a face was found
    - other where nothing of this holds

    Measured on the 200 sample photographs and six portraits that it was set with, without `faces` (so this says that
    the rule is consistent, not how well it does elsewhere): explicit none (highest the miniskirt, 0.12), suggestive
    bikini, sarong and miniskirt, person the six portraits and four more, other 193. People in everyday clothes or small
    in the picture are `other` to it where `faces` does not find them.

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
        """Take this head: labels and the detectors that it reads are its own from now on."""
        super().take_weights(weights)
        self._adopt(read_head(resolve(weights[0])))

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the head. Raises FatalError when it is none."""
        self._adopt(read_head(Path(paths[0])))

    def _adopt(self, head: Head) -> None:
        self.head = head
        self.labels, self.requires, self.optional = head.classes, head.required, head.optional

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,classes], rows sum to 1; NaN where a vote without a `missing` is null."""
        if self.head is None:
            raise RuntimeError("load() first")
        # Some detectors count on the host: their scores are there, whatever the batch's device.
        columns = {
            f"{name}.{label}": scored.scores[:, place].to(batch.device, torch.float32)
            for name, scored in earlier.items()
            for place, label in enumerate(scored.labels)
        }
        null = torch.full((len(batch),), math.nan, device=batch.device)
        features = torch.stack([_compute(f, columns, null) for f in self.head.features], dim=1)
        weights = torch.tensor([self.head.weights[c] for c in self.head.classes], device=batch.device)
        bias = torch.tensor([self.head.bias[c] for c in self.head.classes], device=batch.device)
        # A sum and not a product of matrices: in bf16 that would be rounded, and differ between sizes of batches.
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
        hint = f"; the nearest it casts is {close!r}" if close else ""
        raise UsageError(f"detector 'classes': its head reads {vote!r}, which the stack does not cast{hint}")
    return column

"""What a picture is, in four classes that share 1: explicit, suggestive, an ordinary person, or something else."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moderation.detectors.base import FrameBatch, Scored, View, Weights
from moderation.detectors.registry import check_options
from moderation.errors import FatalError, UsageError

CLASSES: Final = ("explicit", "suggestive", "person", "other")
_MAX_HEAD_BYTES: Final = 1 << 20
_LEAST_ODDS: Final = 0.018  # logits end at -4 and 4: what networks say beyond is how sure they are, not what it is


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Feature(_Section):
    """One number a frame, from votes: fused, then transformed.

    transform: identity; logit (of odds between 0.018 and 0.982); positive_logit: the same, 0 below a half.
    missing: what stands for a vote that is null, or whose detector is not in the stack; without it the frame has no
    classes then, and a stack that never casts the vote is refused.
    """

    votes: tuple[str, ...] = Field(min_length=1, max_length=64)
    fuse: Literal["min", "max", "sum"] = "max"
    transform: Literal["identity", "logit", "positive_logit"] = "identity"
    missing: float | None = None


class Head(_Section):
    """A linear head: softmax over the classes of weights x features + bias. The form of `classes.json`."""

    format: Literal["moderation.classes"]
    version: Literal[1]
    notes: str = Field(default="", max_length=10_000)
    features: tuple[Feature, ...] = Field(min_length=1, max_length=1024)
    weights: Mapping[Literal["explicit", "suggestive", "person", "other"], tuple[float, ...]]
    bias: Mapping[Literal["explicit", "suggestive", "person", "other"], float]

    @model_validator(mode="after")
    def _fits(self) -> Head:
        for name, table in (("weights", self.weights), ("bias", self.bias)):
            if set(table) != set(CLASSES):
                raise ValueError(f"`{name}` must have {', '.join(CLASSES)}; it has {', '.join(sorted(table))}")
        for name, row in self.weights.items():
            if len(row) != len(self.features):
                raise ValueError(f"`weights.{name}` has {len(row)} numbers for {len(self.features)} features")
        return self


def read_head(path: Path) -> Head:
    """A head from its JSON file. Raises FatalError naming what is wrong with it."""
    size = path.stat().st_size
    if size > _MAX_HEAD_BYTES:
        raise FatalError(f"{path}: {size} bytes are no head of classes")
    try:
        return Head.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise FatalError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


class Classes:
    """Four scores that share 1: `explicit`, `suggestive` (swimwear, underwear, posed), `person`, `other`.

    A head over what other detectors said; it looks at no pixel. The packaged one is a rule set by hand, there being no
    labelled pictures (`weights:` replaces it by a fitted one of the same form, see `Head`):

    - explicit where both networks are sure: even with suggestive where both say 0.9
    - suggestive where either suspects it, or clothes to bathe or sleep in are what the picture shows
    - person where it shows clothes that are photographed on people (the concept `worn`), or a face was found
    - other where nothing of this holds

    Measured on the 200 sample photographs and six portraits that it was set with, without `faces` (so this says that
    the rule is consistent, not how well it does elsewhere): explicit none (highest the miniskirt, 0.12), suggestive
    bikini, sarong and miniskirt, person the six portraits and four more, other 193. People in everyday clothes or small
    in the picture are `other` to it where `faces` does not find them.

    Reads `open_nsfw`, `image_safety` and `imagenet` with the concepts `swimwear`, `underwear` and `worn`; and where
    the stack has them before it, `faces` and `nudity`. (`clip` may be read by a head that names its questions.)
    """

    name = "classes"
    version = "1"
    labels: Sequence[str] = CLASSES
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
    requires: Sequence[str] = ("open_nsfw", "image_safety", "imagenet")
    optional: Sequence[str] = ("faces", "nudity", "clip", "skin")
    embedding_dim = 0
    blob_sizes: Mapping[str, int] = {}

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {})
        self.head: Head | None = None

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the head. Raises FatalError when it is none, UsageError when it reads detectors that are not offered."""
        self.head = read_head(Path(paths[0]))
        offered = (*self.requires, *self.optional)
        for vote in (vote for feature in self.head.features for vote in feature.votes):
            if vote.partition(".")[0] not in offered:
                raise UsageError(f"detector {self.name!r}: its head reads {vote!r}; offered are {', '.join(offered)}")

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,4], rows sum to 1; NaN where a vote without a `missing` is null."""
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
        weights = torch.tensor([self.head.weights[c] for c in CLASSES], device=batch.device)
        bias = torch.tensor([self.head.bias[c] for c in CLASSES], device=batch.device)
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
    logit = torch.logit(fused, eps=_LEAST_ODDS)
    return logit if feature.transform == "logit" else logit.clamp(min=0)


def _read(vote: str, missing: float | None, columns: Mapping[str, torch.Tensor], null: torch.Tensor) -> torch.Tensor:
    found = columns.get(vote)
    if missing is not None:
        return null.nan_to_num(missing) if found is None else found.nan_to_num(missing)
    if found is None:
        close = difflib.get_close_matches(vote, columns, n=1, cutoff=0.5)
        hint = f"; the nearest it casts is {close[0]!r}" if close else ""
        raise UsageError(f"detector 'classes': its head reads {vote!r}, which the stack does not cast{hint}")
    return found

"""The file of a linear head over votes: its features, classes and weights. Loads without torch.

    {"format": "moderation.classes", "version": 1,
     "features": [{"votes": ["open_nsfw.nsfw", "image_safety.nsfw"], "fuse": "min", "transform": "logit"}, ...],
     "weights": {"explicit": [1.5, ...], ...}, "bias": {"explicit": -3.3, ...}}

The classes are the keys of `weights`, in their order: two or more, with any names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moderation.errors import FatalError

_MAX_HEAD_BYTES: Final = 1 << 20
_MAX_CLASSES: Final = 1000
_CLASS_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")  # the label of a column


class _HeadSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Feature(_HeadSection):
    """One number per frame, from votes: fused, then transformed.

    transform: identity; logit (of probabilities clipped to 0.018 to 0.982); positive_logit: the same, 0 below 0.5.
    missing: the value for a vote that is null, or whose detector is not in the stack. Without it a frame with a null
    vote has no classes, and a stack without the vote's detector, or with it behind a `when:`, is refused.
    """

    votes: tuple[str, ...] = Field(min_length=1, max_length=64)
    fuse: Literal["min", "max", "sum"] = "max"
    transform: Literal["identity", "logit", "positive_logit"] = "identity"
    missing: float | None = None


class Head(_HeadSection):
    """A linear head: softmax over the classes of weights x features + bias."""

    format: Literal["moderation.classes"]
    version: Literal[1]
    notes: str = Field(default="", max_length=10_000)
    features: tuple[Feature, ...] = Field(min_length=1, max_length=1024)
    weights: Mapping[str, tuple[float, ...]] = Field(min_length=2, max_length=_MAX_CLASSES)
    bias: Mapping[str, float]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their scores."""
        return tuple(self.weights)

    @property
    def required(self) -> tuple[str, ...]:
        """Detectors without which a frame has no classes."""
        return self._detectors(optional=False)

    @property
    def optional(self) -> tuple[str, ...]:
        """Detectors that it reads where the stack has them."""
        return tuple(name for name in self._detectors(optional=True) if name not in self.required)

    def _detectors(self, *, optional: bool) -> tuple[str, ...]:
        features = [feature for feature in self.features if (feature.missing is not None) == optional]
        return tuple(dict.fromkeys(vote.partition(".")[0] for feature in features for vote in feature.votes))

    @model_validator(mode="after")
    def _fits(self) -> Head:
        for name in self.classes:
            if _CLASS_NAME.fullmatch(name) is None:
                raise ValueError(f"class {name!r}: use small letters, digits and _")
        if set(self.bias) != set(self.classes):
            raise ValueError(f"`bias` must have {', '.join(self.classes)}; it has {', '.join(sorted(self.bias))}")
        for name, row in self.weights.items():
            if len(row) != len(self.features):
                raise ValueError(f"`weights.{name}` has {len(row)} numbers for {len(self.features)} features")
        return self


def read_head(path: Path) -> Head:
    """Read a head from its JSON file. Raises FatalError that names what is wrong."""
    size = path.stat().st_size
    if size > _MAX_HEAD_BYTES:
        raise FatalError(f"{path}: {size} bytes are no head of classes")
    try:
        return Head.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise FatalError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error

"""What a check may say in a policy file: its votes, how they are fused and pooled, its thresholds and its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from moderation.policy import aggregate
from moderation.policy.audit import AuditSide
from moderation.policy.section import PolicySection
from moderation.types import Kind

Side = Literal["negative", "positive", "attribute"]

_CAUTIOUS = ("all", "bottom_k_mean", "mean")  # a low frame weighs at least as much as a high one


def _require(section: BaseModel, method: str, wanted: Mapping[str, bool], optional: set[str] | None = None) -> None:
    for name, needed in wanted.items():
        given = getattr(section, name) is not None
        if given and not needed:
            raise ValueError(f"`{method}` takes no `{name}`")
        if needed and not given and name not in (optional or set()):
            raise ValueError(f"`{method}` needs `{name}`")


class Fuse(PolicySection):
    """How the votes on one frame become the check's score of that frame. `fuse: min` is short for `{method: min}`."""

    method: aggregate.FuseMethod = "max"
    k: int | None = Field(default=None, ge=1, description="k_of_n: the k-th largest vote")
    missing: aggregate.Missing = Field(
        default="null", description="null: one null vote makes the frame's score null; skip: fuse the votes present"
    )

    @model_validator(mode="after")
    def _parameters_fit(self) -> Fuse:
        _require(self, self.method, {"k": self.method == "k_of_n"})
        return self


class Pool(PolicySection):
    """How the frames' scores become the item's. `pool: any` is short for `{method: any}`."""

    method: aggregate.PoolMethod
    k: int | None = Field(default=None, ge=1, description="top_k_mean, bottom_k_mean: how many")
    length: int | None = Field(default=None, ge=1, description="run: frames that must hold")
    gap: int | None = Field(default=None, ge=0, description="run: frames that may miss between two that hold (0)")

    @model_validator(mode="after")
    def _parameters_fit(self) -> Pool:
        run, k = self.method == "run", self.method in ("top_k_mean", "bottom_k_mean")
        _require(self, self.method, {"k": k, "length": run, "gap": run}, optional={"gap"})
        return self


class KindPools(PolicySection):
    """A pool per kind of item. In a video a lone high frame may be an error of a network; a picture of an album that is
    bad makes the album bad. `other` stands for the kinds that are not named; without it their pool is the default."""

    image: Pool | None = None
    animation: Pool | None = None
    album: Pool | None = None
    video: Pool | None = None
    keyframes: Pool | None = None
    other: Pool | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _from_shorthand(cls, value: object) -> object:
        return {"method": value} if isinstance(value, str) else value


class Thresholds(PolicySection):
    """Thresholds instead of a check's own, for the items that have a value of an attribute."""

    block: float | None = Field(default=None, ge=0, le=1)
    review: float | None = Field(default=None, ge=0, le=1)
    pass_: float | None = Field(default=None, alias="pass", ge=0, le=1)

    @model_validator(mode="after")
    def _says_something(self) -> Thresholds:
        if self.block is self.review is self.pass_ is None:
            raise ValueError("needs `block`, `review` or `pass`")
        return self


class Check(PolicySection):
    """A question put to one or more detectors, fused into one score; higher means more of what it is named after."""

    side: Side = Field(description="negative: may block or send to review; positive: may pass; attribute: only written")
    votes: Mapping[str, float] = Field(description="`detector.label` -> weight, or a list of labels", min_length=1)
    invert: bool = Field(default=False, description="use 1 - vote")
    fuse: Fuse = Fuse()
    pool: Pool | KindPools | None = Field(
        default=None, description="positive: all; otherwise: any. Or one per kind: {album: any, video: {...}}"
    )
    block: float | None = Field(default=None, ge=0, le=1, description="negative: block where score >= block")
    review: float | None = Field(default=None, ge=0, le=1, description="negative: review where score >= review")
    pass_: float | None = Field(
        default=None, alias="pass", ge=0, le=1, description="positive: pass where score >= pass"
    )
    null: Literal["review", "ignore"] = Field(
        default="review",
        description="what it means that the score of a frame was not computed. review: a person looks, unless "
        "something blocks; ignore: judged by the other frames and checks. A positive check never passes on a null. "
        "Of an attribute it is `review` only where that is said.",
    )
    order: int | None = Field(default=None, ge=0, description="its place in the cascade; none: always asked")
    stop: bool = Field(
        default=False,
        description="negative, with `order`: where it decides, the checks of a higher order are not asked (null)",
    )
    isolated: Literal["review", "ignore"] = Field(
        default="review",
        description="negative, with `block`: what it means that a frame is over `block` and the pooled score is not",
    )
    optional: bool = Field(
        default=False,
        description="attribute: a stack without the detectors of its votes is not refused; the score is null there",
    )
    severity: str | None = Field(default=None, description="one of the policy's `severities`")
    label: str | None = Field(
        default=None,
        max_length=500,
        description="path in the taxonomy, `Violence/Weapons`; none: where the taxonomy has a check of this name",
    )
    definition: str | None = Field(default=None, description="its class definition: `definitions/<name>.yaml`")
    by: Mapping[str, Mapping[str, Thresholds]] = Field(
        default={},
        description="attribute -> its value -> thresholds instead of the above; of several that fit the strictest",
    )

    @field_validator("votes", mode="before")
    @classmethod
    def _votes_from_list(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        if len(set(map(str, value))) < len(value):
            raise ValueError("the same label twice")
        return {str(label): 1.0 for label in value}

    @field_validator("votes", mode="after")
    @classmethod
    def _weights_positive(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        wrong = [label for label, weight in value.items() if not weight > 0]  # NaN too
        if wrong:
            # A weight of zero would ask for a vote and ignore it; a negative one would break monotony.
            raise ValueError(f"weight of {wrong[0]} must be over 0")
        return dict(sorted(value.items()))

    @field_validator("fuse", mode="before")
    @classmethod
    def _from_shorthand(cls, value: object) -> object:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _thresholds_fit_the_side(self) -> Check:
        allowed = {"negative": {"block", "review"}, "positive": {"pass"}, "attribute": set()}[self.side]
        given = {"block": self.block, "review": self.review, "pass": self.pass_}
        named = {name for name, threshold in given.items() if threshold is not None}
        if named - allowed:
            raise ValueError(f"a {self.side} check takes no `{min(named - allowed)}`")
        if allowed and not named:
            raise ValueError(f"a {self.side} check needs {' or '.join(f'`{name}`' for name in sorted(allowed))}")
        return self

    @property
    def null_is_review(self) -> bool:
        """Whether an item without this score, or without that of a frame, goes to review."""
        return self.null == "review" and (self.side != "attribute" or "null" in self.model_fields_set)

    @model_validator(mode="after")
    def _rules_are_consistent(self) -> Check:
        if self.side == "attribute" and self.null == "ignore":
            raise ValueError("an attribute decides nothing, so its `null: ignore` means nothing")
        if self.optional and (self.side != "attribute" or self.null_is_review):
            raise ValueError("`optional: true` is for attributes that decide nothing")
        if self.block is not None and self.review is not None and self.review > self.block:
            raise ValueError(f"`review` ({self.review}) must not be over `block` ({self.block})")
        return self

    @field_validator("pool", mode="before")
    @classmethod
    def _one_pool_or_one_per_kind(cls, value: object) -> object:
        # Chosen here, not by a union, so that an error speaks of the form that was meant.
        if isinstance(value, Mapping) and "method" not in value:
            return KindPools.model_validate(value)
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _pool_is_cautious(self) -> Check:
        for kind in Kind:
            method = self.pooling(kind).method
            if self.side == "positive" and method not in _CAUTIOUS:
                raise ValueError(
                    f"a positive check pools by {' or '.join(_CAUTIOUS)}; by {method} one fine frame can pass"
                )
        return self

    @model_validator(mode="after")
    def _fuse_fits_the_votes(self) -> Check:
        if self.fuse.k is not None and self.fuse.k > len(self.votes):
            raise ValueError(f"`k_of_n` of {self.fuse.k} needs as many votes; there are {len(self.votes)}")
        if self.fuse.method not in ("weighted_mean", "mean_logit") and len(set(self.votes.values()) | {1.0}) > 1:
            raise ValueError(f"weights mean nothing to `{self.fuse.method}`; use `weighted_mean`")
        return self

    @model_validator(mode="after")
    def _other_thresholds_fit(self) -> Check:
        own = {"block": self.block, "review": self.review, "pass": self.pass_}
        for attribute, values in self.by.items():
            for value, other in values.items():
                given = other.model_dump(by_alias=True, exclude_none=True)
                unknown = [name for name in given if own[name] is None]
                if unknown:
                    # Otherwise a cascade could hide a block that the check itself does not have.
                    raise ValueError(f"by {attribute} {value}: has `{unknown[0]}`, the check itself has none")
                both = own | given
                if both["block"] is not None and both["review"] is not None and both["review"] > both["block"]:
                    ends = f"`review` ({both['review']}) must not be over `block` ({both['block']})"
                    raise ValueError(f"by {attribute} {value}: {ends}")
        return self

    @model_validator(mode="after")
    def _only_a_negative_check_is_isolated(self) -> Check:
        if self.isolated == "ignore" and self.block is None:
            raise ValueError("`isolated: ignore` means nothing without a `block`")
        return self

    @model_validator(mode="after")
    def _can_stop(self) -> Check:
        if self.stop and (self.side != "negative" or self.order is None):
            raise ValueError("`stop: true` is for negative checks with an `order`")
        return self

    def check_audited(self, side: AuditSide, where: str) -> None:
        """Raises ValueError where an audit of this check would leave out items that it decides."""
        if self.order is not None:
            raise ValueError(f"{where}: {side.check!r} has an `order`, so it is not asked of every item")
        others = [other.block for values in self.by.values() for other in values.values()]
        lowest = min((block for block in (self.block, *others) if block is not None), default=None)
        if lowest is not None and side.from_ is not None and side.from_ > lowest:
            raise ValueError(f"{where}: from {side.from_} leaves out what {side.check!r} blocks from {lowest} on")

    def pooling(self, kind: Kind) -> Pool:
        """The pool of a kind. The default errs towards review: one bad frame is enough, and all must be fine.

        A single pool for all kinds does not apply to an album: its pictures are not frames of one scene, so it has the
        default.
        """
        chosen = self.pool
        if isinstance(chosen, KindPools):
            chosen = getattr(chosen, kind, None) or chosen.other
        elif kind is Kind.ALBUM and self.side != "attribute":
            chosen = None
        return chosen or Pool(method="all" if self.side == "positive" else "any")

    def may_be_isolated(self) -> bool:
        """Whether a frame may be over `block` while the item's pooled score is not."""
        return self.block is not None and any(self.pooling(kind).method != "any" for kind in Kind)

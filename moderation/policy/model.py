"""What a policy file may say: the YAML form, checked at the boundary; `docs/policy.md` is its reference.

A policy is normalised when it is read (checks and votes sorted by name, shorthands spelt out), so that two files which
mean the same have the same hash, the same columns and the same verdicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from moderation.config.canonical import canonical_json
from moderation.config.load import read_yaml, validate
from moderation.policy import aggregate
from moderation.types import Kind

Side = Literal["negative", "positive", "attribute"]

_CAUTIOUS = ("all", "bottom_k_mean", "mean")  # every frame weighs in, the weak ones at least as much as the others


class PolicySection(BaseModel):
    """A part of a policy file: frozen, no unknown keys, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class Unseen(PolicySection):
    """How much of an item must have been looked at before it may pass; else it goes to review, `unseen:<what>`.

    A picture track or a second picture that was not looked at always goes to review (`unseen:track`).
    """

    max_gap_s: float | None = Field(
        default=10.0, gt=0, description="widest time between two scored frames of a video or animation; null: any"
    )
    long_s: float = Field(default=3600.0, gt=0, description="from this length on, long_max_gap_s holds instead")
    long_max_gap_s: float | None = Field(default=60.0, gt=0, description="null: any")

    def allowed_gap_s(self, duration_s: float | None) -> float | None:
        """The widest gap that an item of this length may have; None: any."""
        return self.long_max_gap_s if duration_s is not None and duration_s >= self.long_s else self.max_gap_s


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
        "something blocks; ignore: judged by the other frames and checks. A positive check never passes on a null.",
    )
    order: int | None = Field(default=None, ge=0, description="its place in the cascade; none: always asked")
    stop: bool = Field(
        default=False,
        description="negative, with `order`: where it decides, the checks of a higher order are not asked (null)",
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
            # Zero would say "ask, but don't listen", and a negative weight would break monotony.
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

    @model_validator(mode="after")
    def _rules_are_consistent(self) -> Check:
        if self.side == "attribute" and "null" in self.model_fields_set:
            raise ValueError("an attribute decides nothing, so its `null` means nothing")
        if self.block is not None and self.review is not None and self.review > self.block:
            raise ValueError(f"`review` ({self.review}) must not be over `block` ({self.block})")
        return self

    @field_validator("pool", mode="before")
    @classmethod
    def _one_pool_or_one_per_kind(cls, value: object) -> object:
        # Told apart here, so that a mistake is explained by the form that was meant.
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
    def _can_stop(self) -> Check:
        if self.stop and (self.side != "negative" or self.order is None):
            raise ValueError("`stop: true` is for negative checks with an `order`")
        return self

    def pooling(self, kind: Kind) -> Pool:
        """The pool of a kind; by default the one that errs towards review: one bad frame is bad, all must be fine."""
        chosen = self.pool
        if isinstance(chosen, KindPools):
            chosen = getattr(chosen, kind, None) or chosen.other
        return chosen or Pool(method="all" if self.side == "positive" else "any")


class Policy(PolicySection):
    """The rules and thresholds that turn an item's votes into a verdict."""

    version: Literal[1] = Field(default=1, description="of this file's form")
    default: Literal["review", "pass"] = Field(default="review", description="where no check decides")
    unseen: Unseen = Unseen()
    checks: Mapping[str, Check] = Field(min_length=1)

    @field_validator("checks", mode="after")
    @classmethod
    def _names_sorted(cls, value: Mapping[str, Check]) -> Mapping[str, Check]:
        wrong = [name for name in value if not (name.isidentifier() and name.isascii())]
        if wrong:
            # A name becomes a column and a part of `reason`.
            raise ValueError(f"name {wrong[0]!r}: use ASCII letters, digits and _")
        return dict(sorted(value.items()))

    @model_validator(mode="after")
    def _something_can_stop(self) -> Policy:
        if self.default == "pass" and not any(c.side == "negative" for c in self.checks.values()):
            raise ValueError("`default: pass` without a negative check would pass everything")
        return self

    @model_validator(mode="after")
    def _stops_hide_nothing(self) -> Policy:
        for name, check in self.checks.items():
            if check.stop and self.stops_at(name) is None:
                # Else a higher score could turn a block into a review.
                raise ValueError(
                    f"check {name!r}: `stop: true` needs a `block`, because a check of a higher order can block"
                )
        return self

    def stops_at(self, name: str) -> float | None:
        """The score from which a check with `stop` ends the cascade; None where it cannot.

        Its `review` where no check after it can block, else its `block`: what is not asked must not have been harsher.
        """
        check = self.checks[name]
        if not check.stop:
            return None
        if check.review is not None and all(later.block is None for later in self.checks_after(check)):
            return check.review
        return check.block

    def checks_after(self, check: Check) -> list[Check]:
        """The checks of a higher `order`; none where it has no order."""
        if check.order is None:
            return []
        return [other for other in self.checks.values() if other.order is not None and other.order > check.order]


def load_policy(path: Path) -> Policy:
    """A policy from a YAML file. Raises UsageError naming each wrong key and the nearest right one."""
    tree = read_yaml(path)
    checks = tree.get("checks")
    if isinstance(checks, dict):
        tree["checks"] = {str(name): _null_key_spelt(check) for name, check in checks.items()}
    return validate(Policy, tree, where=str(path))


def policy_hash(policy: Policy) -> str:
    """sha256 (hex) of what a policy says; comments, shorthands, defaults and the order of keys make no difference."""
    tree = policy.model_dump(mode="json", by_alias=True)
    for name, check in policy.checks.items():
        tree["checks"][name]["pool"] = {str(kind): _spelt_pool(check.pooling(kind)) for kind in Kind}
    return hashlib.sha256(canonical_json(tree).encode()).hexdigest()


def _spelt_pool(pool: Pool) -> dict[str, object]:
    return {**pool.model_dump(mode="json"), "gap": pool.gap or 0}


def check_names(policy: Policy) -> tuple[str, ...]:
    """Names of the checks, sorted: the score columns of the verdicts table."""
    return tuple(policy.checks)


def _null_key_spelt(check: object) -> object:
    # YAML reads the bare key `null` as None; whoever writes `null: review` means the word.
    if not isinstance(check, dict):
        return check
    return {"null" if key is None else key: value for key, value in check.items()}

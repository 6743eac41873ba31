"""The audit: a keyed random sample of groups, drawn whatever the verdict; only its labels certify.

As in `CERTIFICATION.md` of the project: u(group) = HMAC-SHA256(salt, id of the group), read as a number in [0, 1). An
item is in the audit where it lies in a side's region and u is below the side's rate. One item per group is labelled,
the one with the smallest hash of its id.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, SerializationInfo, model_validator

from moderation.policy.section import PolicySection
from moderation.types import ItemFacts

_UNIT = 1 << 53  # as many steps as a float has between 0.5 and 1


class AuditSide(PolicySection):
    """One side: which items may be drawn, by the score of a check, and which share of their groups."""

    check: str
    rate: float = Field(gt=0, le=1, description="share of the groups that are drawn")
    from_: float | None = Field(default=None, alias="from", ge=0, le=1, description="the region: score >= from")
    to: float | None = Field(default=None, ge=0, le=1, description="the region: score <= to")

    @model_validator(mode="after")
    def _one_end(self) -> AuditSide:
        if (self.from_ is None) == (self.to is None):
            raise ValueError("needs `from` (score >= from) or `to` (score <= to), one of them")
        return self


def _as_list(value: object) -> object:
    """One side, or several: a single one is written without a list."""
    if value is None:
        return ()
    return (value,) if isinstance(value, Mapping | AuditSide) else value


def _as_written(sides: tuple[AuditSide, ...], info: SerializationInfo) -> object:
    """The inverse of `_as_list`, so that the hash of a policy with one check a side is what it was."""
    dumped = [side.model_dump(**_options_of(info)) for side in sides]
    return None if not dumped else dumped[0] if len(dumped) == 1 else dumped


def _options_of(info: SerializationInfo) -> dict[str, Any]:
    names = ("by_alias", "exclude_unset", "exclude_defaults", "exclude_none")
    return {"mode": info.mode, **{name: bool(getattr(info, name)) for name in names}}


AuditSides = Annotated[tuple[AuditSide, ...], BeforeValidator(_as_list), PlainSerializer(_as_written)]


class Audit(PolicySection):
    """The sample to label, drawn whatever the verdict, so that its labels may certify."""

    salt: str = Field(min_length=1, max_length=200, description="another salt draws other groups")
    group: str = Field(
        default="group",
        min_length=1,
        description="the attribute that names an item's group; without it, the content is the group",
    )
    block: AuditSides = Field(
        default=(), description="what may be blocked: `from` a score of a negative check; or a list of such sides"
    )
    pass_: AuditSides = Field(
        default=(),
        alias="pass",
        description="what may be passed: `to` a negative check's score, or `from` a positive; or a list",
    )

    @model_validator(mode="after")
    def _has_a_side(self) -> Audit:
        if not self.sides():
            raise ValueError("needs `block`, `pass`, or both")
        if any(side.from_ is None for side in self.block):
            raise ValueError("block: the region is `from` a score on")
        if sum(side.to is not None for side in self.pass_) > 1:
            # Nothing passes over a negative check's threshold, so one of them covers every pass.
            raise ValueError("pass: of negative checks (`to`) one is enough, its certificate covers every pass")
        return self

    @model_validator(mode="after")
    def _names_a_check_once(self) -> Audit:
        named = [(name, side.check) for name, side in self.sides()]
        twice = next((pair for pair in named if named.count(pair) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice[0]}: {twice[1]!r} stands twice; a check has one region a side")
        return self

    def sides(self) -> tuple[tuple[Literal["block", "pass"], AuditSide], ...]:
        """The regions that the audit has, those of `block` first."""
        blocks: tuple[tuple[Literal["block", "pass"], AuditSide], ...] = tuple(("block", side) for side in self.block)
        return (*blocks, *(("pass", side) for side in self.pass_))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSide:
    """A side with the ends of its region as float32 values."""

    check: str
    rate: float
    from_: float | None
    to: float | None

    def holds(self, score: float | None) -> bool:
        """Whether an item of this score is in the region; one without a score is not."""
        if score is None:
            return False
        return (self.from_ is None or score >= self.from_) and (self.to is None or score <= self.to)


def audit_group(audit: Audit, facts: ItemFacts) -> str:
    """The group of an item: the value of the attribute, else its content, else the item itself."""
    named = facts.attributes.get(audit.group)
    return named or facts.content_hash or facts.item_id


def audit_value(salt: str, group: str) -> float:
    """u of a group, in [0, 1): the first 53 bits of HMAC-SHA256 with the salt as its key."""
    digest = hmac.new(salt.encode(), group.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / _UNIT


def is_drawn(
    audit: Audit | None, sides: tuple[BoundSide, ...], facts: ItemFacts | None, scores: Mapping[str, float | None]
) -> bool:
    """Whether an item is in the audit; a function of its scores, its group and the salt, and of nothing else."""
    if audit is None or facts is None:
        return False
    inside = [side.rate for side in sides if side.holds(scores.get(side.check))]
    return bool(inside) and audit_value(audit.salt, audit_group(audit, facts)) < max(inside)

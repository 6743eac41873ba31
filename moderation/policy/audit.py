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
from typing import Literal

from pydantic import Field, model_validator

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


class Audit(PolicySection):
    """The sample to label, drawn whatever the verdict, so that its labels may certify."""

    salt: str = Field(min_length=1, max_length=200, description="another salt draws other groups")
    group: str = Field(
        default="group",
        min_length=1,
        description="the attribute that names an item's group; without it, the content is the group",
    )
    block: AuditSide | None = Field(default=None, description="what may be blocked: `from` a score of a negative check")
    pass_: AuditSide | None = Field(
        default=None,
        alias="pass",
        description="what may be passed: `to` a negative check's score, or `from` a positive",
    )

    @model_validator(mode="after")
    def _has_a_side(self) -> Audit:
        if self.block is None and self.pass_ is None:
            raise ValueError("needs `block`, `pass`, or both")
        if self.block is not None and self.block.from_ is None:
            raise ValueError("block: the region is `from` a score on")
        return self

    def sides(self) -> dict[Literal["block", "pass"], AuditSide]:
        """The sides that the audit has."""
        given: dict[Literal["block", "pass"], AuditSide | None] = {"block": self.block, "pass": self.pass_}
        return {name: side for name, side in given.items() if side is not None}


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

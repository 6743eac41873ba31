"""The audit of a policy, as certificates need it: which items were drawn for a side, and their groups. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from moderation.errors import UsageError
from moderation.evaluation.population import JudgedItem
from moderation.policy.audit import Audit, AuditSide, audit_value
from moderation.policy.certified import CertifiedSide
from moderation.policy.model import Policy
from moderation.policy.thresholds import as_float32

# Stages of a reason (`negative:explicit:review`) where only a score may keep an item from passing.
_PASSABLE = ("default", "positive", "vouch")
_BY_SCORE = ("negative", "context", "isolated")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRegion:
    """One side of an audit: the check whose threshold may be certified, and where its items are drawn."""

    side: CertifiedSide
    check: str
    rate: float
    negative: bool
    start: float | None
    stop: float | None

    @property
    def action(self) -> str:
        """The action's name in certificates."""
        return f"{self.side}:{self.check}"

    @property
    def falls(self) -> bool:
        """Whether a lower score is the surer decision: a pass by a negative check."""
        return self.side == "pass" and self.negative

    def strictness(self, score: float) -> float:
        """A score turned so that a larger one is the surer decision."""
        return -score if self.falls else score

    def holds(self, item: JudgedItem) -> bool:
        """Whether an item lies in the region, and would be decided were its score on the right side of a threshold."""
        score = item.scores[self.check]
        if score is None:
            return False
        start, stop = as_float32(self.start), as_float32(self.stop)
        inside = (start is None or score >= start) and (stop is None or score <= stop)
        return inside and (self.side == "block" or self._could_pass(item))

    def _could_pass(self, item: JudgedItem) -> bool:
        stage, _, rest = item.reason.partition(":")
        objects = stage in _BY_SCORE and rest.partition(":")[0] == self.check and self.negative
        return item.may_pass and (stage in _PASSABLE or objects)


def audit_of(policy: Policy) -> Audit:
    """The audit of a policy. Raises UsageError where it has none: no other labels may certify."""
    if policy.audit is None:
        raise UsageError(
            "the policy has no `audit:`, so no labels may certify it: labels of items that somebody chose are no random"
            " sample. See docs/certificates.md"
        )
    return policy.audit


def regions_of(policy: Policy) -> tuple[AuditRegion, ...]:
    """The sides of a policy's audit. Raises UsageError where there are none, or a check's thresholds are not one."""
    regions = tuple(_region(policy, side, given) for side, given in audit_of(policy).sides().items())
    for region in regions:
        if policy.checks[region.check].by:
            raise UsageError(
                f"check {region.check!r} has thresholds by attribute (`by:`), and a certificate is of one threshold;"
                " give each of them a check of its own"
            )
    return regions


def _region(policy: Policy, side: CertifiedSide, given: AuditSide) -> AuditRegion:
    return AuditRegion(
        side=side,
        check=given.check,
        rate=given.rate,
        negative=policy.checks[given.check].side == "negative",
        start=given.from_,
        stop=given.to,
    )


def group_of(audit: Audit, item: JudgedItem) -> str:
    """The group with which the audit draws an item."""
    return item.attributes.get(audit.group) or item.content_hash or item.item_id


def drawn_for(audit: Audit, region: AuditRegion, items: Sequence[JudgedItem]) -> list[JudgedItem]:
    """The items of a region that were drawn for it, one per group: the one with the smallest hash of its id."""
    smallest: dict[str, tuple[str, JudgedItem]] = {}
    for item in items:
        if not item.audit or not region.holds(item):
            continue
        group = group_of(audit, item)
        # Items that only the other side's higher rate has drawn are no sample for this side.
        if audit_value(audit.salt, group) >= region.rate:
            continue
        digest = hashlib.sha256(item.item_id.encode("utf-8", "surrogatepass")).hexdigest()
        if group not in smallest or (digest, item.item_id) < (smallest[group][0], smallest[group][1].item_id):
            smallest[group] = (digest, item)
    return [item for _, item in smallest.values()]

"""The audit of a policy, as certificates need it: which items were drawn for a side, and their groups. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moderation.errors import UsageError
from moderation.evaluation.population import JudgedItem
from moderation.policy.audit import Audit, AuditSide, audit_value
from moderation.policy.certified import CertifiedSide, region_name
from moderation.policy.check import Check
from moderation.policy.matching import attribute_values
from moderation.policy.model import Policy
from moderation.policy.thresholds import as_float32

# Stages of a reason (`negative:explicit:review`) where only a score may keep an item from passing.
_PASSABLE = ("default", "positive", "vouch")
_BY_SCORE = ("negative", "context", "isolated")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRegion:
    """One side of an audit: the check whose threshold may be certified, and where its items are drawn.

    attribute, value: of a threshold by attribute: only items that have the value. others: (attribute, value) of the
    thresholds by attribute of the check that are certified, too; without an attribute of its own, the region has the
    items that have none of them. passes_from: of a positive check, the score from which on every item passes by it.
    """

    side: CertifiedSide
    check: str
    rate: float
    negative: bool
    start: float | None
    stop: float | None
    attribute: str | None = None
    value: str | None = None
    others: tuple[tuple[str, str], ...] = ()
    passes_from: float | None = None

    @property
    def action(self) -> str:
        """The action's name in certificates."""
        return f"{self.side}:{self.check}"

    @property
    def name(self) -> str:
        """The region's name: its action, and the value of the attribute that it is of."""
        return region_name(self.action, self.attribute, self.value)

    @property
    def threshold(self) -> str:
        """The key of the threshold that it certifies: `block`, `pass`, or the `review` that a pass ends at."""
        return "review" if self.falls else self.side

    def fits(self, item: JudgedItem) -> list[tuple[str, str]]:
        """The certified thresholds by attribute that an item selects."""
        return [(a, v) for a, v in self.others if v in attribute_values(item.attributes.get(a))]

    def _is_of(self, item: JudgedItem) -> bool:
        fits = self.fits(item)
        return not fits if self.attribute is None else (self.attribute, self.value) in fits

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
        if score is None or not self._is_of(item):
            return False
        start, stop = as_float32(self.start), as_float32(self.stop)
        inside = (start is None or score >= start) and (stop is None or score <= stop)
        return inside and (self._could_pass(item) if self.side == "pass" else not _is_decided_by_list(item))

    def _could_pass(self, item: JudgedItem) -> bool:
        stage, _, rest = item.reason.partition(":")
        if not item.may_pass:
            return False
        if not self.negative:
            return stage in _PASSABLE and not self._lacks_votes(item)
        if stage in _PASSABLE and item.verdict == "pass":
            return True
        # Below a negative check's threshold nothing more passes than before, where another rule does not let it. What
        # the run reviewed for want of a certificate would pass by the policy as it is written.
        objects = stage == "default" or (stage in _BY_SCORE and rest.partition(":")[0] == self.check)
        return objects and item.approved is not False and item.objectors <= {self.check}

    def _lacks_votes(self, item: JudgedItem) -> bool:
        """Whether an item is over the threshold and was reviewed: a frame has no score, so it passes at none."""
        score, passes_from = item.scores[self.check], as_float32(self.passes_from)
        return item.verdict == "review" and score is not None and passes_from is not None and score >= passes_from


def _is_decided_by_list(item: JudgedItem) -> bool:
    return item.reason.startswith("list:") and item.verdict != "review"


def audit_of(policy: Policy) -> Audit:
    """The audit of a policy. Raises UsageError where it has none: no other labels may certify."""
    if policy.audit is None:
        raise UsageError(
            "the policy has no `audit:`, so no labels may certify it: labels of items that somebody chose are no random"
            " sample. See docs/certificates.md"
        )
    return policy.audit


def regions_of(policy: Policy) -> tuple[AuditRegion, ...]:
    """The sides of a policy's audit, whatever the attributes of items. Raises UsageError where there are none."""
    return tuple(_region(policy, side, given) for side, given in audit_of(policy).sides())


def values_with(check: Check, threshold: str) -> tuple[tuple[str, str], ...]:
    """(attribute, value) of the thresholds by attribute of a check that have this key: `block`, `review`, `pass`."""
    return tuple(
        (attribute, value)
        for attribute, by_value in check.by.items()
        for value, other in by_value.items()
        if other.model_dump(by_alias=True)[threshold] is not None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """A side's regions by attribute. pooled: (region, groups drawn) of values that have too few, which the check's own
    threshold decides."""

    regions: tuple[AuditRegion, ...]
    pooled: tuple[tuple[AuditRegion, int], ...] = ()


def split_region(policy: Policy, region: AuditRegion, items: Sequence[JudgedItem], least: int) -> Strata:
    """A region cut by the thresholds by attribute of its check, where at least `least` groups of a value are drawn.

    Only groups are counted and no label is looked at, so that the choice of regions costs no certainty.
    """
    values = values_with(policy.checks[region.check], region.threshold)
    cut = [replace(region, attribute=attribute, value=value, others=values) for attribute, value in values]
    counts = [len(drawn_for(audit_of(policy), one, items)) for one in cut]
    kept = tuple(value for value, count in zip(values, counts, strict=True) if count >= least)
    regions = [replace(region, others=kept)]
    regions += [replace(region, attribute=attribute, value=value, others=kept) for attribute, value in kept]
    pooled = [(one, count) for one, count in zip(cut, counts, strict=True) if count < least]
    return Strata(regions=tuple(regions), pooled=tuple(pooled))


def _region(policy: Policy, side: CertifiedSide, given: AuditSide) -> AuditRegion:
    return AuditRegion(
        side=side,
        check=given.check,
        rate=given.rate,
        negative=policy.checks[given.check].side == "negative",
        start=given.from_,
        stop=given.to,
        passes_from=_highest_pass(policy.checks[given.check]),
    )


def _highest_pass(check: Check) -> float | None:
    by = [other.pass_ for values in check.by.values() for other in values.values()]
    return max((number for number in (check.pass_, *by) if number is not None), default=None)


def group_of(audit: Audit, item: JudgedItem) -> str:
    """The group with which the audit draws an item."""
    return item.attributes.get(audit.group) or item.content_hash or item.item_id


def is_uniform(audit: Audit | None, item: JudgedItem) -> bool:
    """Whether an item has an audit label and is of a sample with one rate: that of the side with the smallest."""
    if item.audit_label is None or audit is None:
        return item.audit_label is not None
    return item.audit is not False and audit_value(audit.salt, group_of(audit, item)) < min(
        side.rate for _, side in audit.sides()
    )


def drawn_for(audit: Audit, region: AuditRegion, items: Sequence[JudgedItem], most: int | None = 1) -> list[JudgedItem]:
    """The items of a region that were drawn for it, at most `most` per group: those with the smallest hashes of their
    ids. They stand group by group, in the order of each group's first item."""
    by_group: dict[str, list[JudgedItem]] = {}
    for item in items:
        if not item.audit or not region.holds(item):
            continue
        group = group_of(audit, item)
        # Items that only the other side's higher rate has drawn are no sample for this side.
        if audit_value(audit.salt, group) < region.rate:
            by_group.setdefault(group, []).append(item)
    return [item for own in by_group.values() for item in sorted(own, key=lambda i: item_order(i.item_id))[:most]]


def item_order(item_id: str) -> tuple[str, str]:
    """By what the items of a group are ordered: the hash of the id."""
    return hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).hexdigest(), item_id

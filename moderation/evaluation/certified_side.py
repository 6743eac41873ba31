"""One certificate from an audit's labels: which of them are errors, what they weigh, and the threshold. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moderation.errors import UsageError
from moderation.evaluation.audit import AuditRegion, group_of
from moderation.evaluation.certify import AuditLabels, Certified, certify
from moderation.evaluation.claim import Claim
from moderation.evaluation.population import JudgedItem, number_groups
from moderation.evaluation.walks import F64
from moderation.labels.meaning import Meaning
from moderation.labels.resolve import Label
from moderation.policy.audit import Audit
from moderation.policy.matching import attribute_values
from moderation.policy.model import Policy
from moderation.policy.thresholds import as_float32


@dataclass(frozen=True, slots=True, kw_only=True)
class SideOutcome:
    """The outcome of one side. drawn: groups; unlabelled: those without a label; unsettled: those not agreed on.

    threshold: as in the policy file; None: not certified. held_back: what would be, were the action's other thresholds
    certified, too. decided: the share of the region's drawn groups that it
    decides.
    """

    region: AuditRegion
    allowed: float
    risk: float
    drawn: int
    unlabelled: int
    unsettled: int
    errors: int
    result: Certified
    threshold: float | None
    decided: float
    held_back: float | None = None


# (check, attribute, value) -> from where on it blocks, so that nothing passes; None, None: whatever the attributes.
Blocks = Mapping[tuple[str, str | None, str | None], float]


def block_thresholds(policy: Policy) -> Blocks:
    """The `block` of every check of a policy."""
    own = {(name, None, None): check.block for name, check in policy.checks.items()}
    by = {
        (name, attribute, value): other.block
        for name, check in policy.checks.items()
        for attribute, values in check.by.items()
        for value, other in values.items()
    }
    return {key: block for key, block in (own | by).items() if block is not None}


def certify_side(
    audit: Audit,
    region: AuditRegion,
    drawn: Sequence[JudgedItem],
    meaning: Meaning,
    claim: Claim,
    risk: float,
    blocks: Blocks | None = None,
) -> SideOutcome:
    """The outcome of one side from its drawn items. blocks: those of the policy, and the certified ones."""
    blocks = blocks or {}
    labels = [item.audit_label for item in drawn]
    pairs = zip(drawn, labels, strict=True)
    errors = np.array(
        [
            _never_passes(region, item, blocks) or _is_error(region, item, label, meaning, claim)
            for item, label in pairs
        ],
        np.bool_,
    )
    strictness = np.array([_strictness(region, item, blocks) for item in drawn], np.float64)
    groups = number_groups(group_of(audit, item) for item in drawn)[0] if claim.whole_groups else None
    certified = AuditLabels(
        strictness=strictness, errors=errors, groups=groups, weights=weigh_labels(region.name, labels)
    )
    result = certify(certified, claim.allowed(region), risk, _end_of(region, blocks))
    threshold = None if result.threshold is None else _policy_threshold(region, result.threshold)
    return SideOutcome(
        region=region,
        allowed=claim.allowed(region),
        risk=risk,
        drawn=len(drawn),
        unlabelled=labels.count(None),
        unsettled=sum(label is not None and not claim.is_settled(label) for label in labels),
        errors=int(errors.sum()),
        result=result,
        threshold=threshold,
        decided=0.0 if threshold is None else result.labels / len(drawn),
    )


def weigh_labels(name: str, labels: Sequence[Label | None]) -> F64 | None:
    """Smallest probability over that of each label: float64 [N]; None where no label says one. name: of the region.

    Raises UsageError where only some labels say it. A missing label is an error with the largest weight.
    """
    probabilities = [None if label is None else label.probability for label in labels]
    known = [probability for probability in probabilities if probability is not None]
    if not known:
        return None
    unsaid = len(labels) - labels.count(None) - len(known)
    if unsaid:
        raise UsageError(f"{name}: {unsaid:,} audit labels have no `probability`, others have one: all or none")
    least = min(known)
    weights = np.array([least / (probability or least) for probability in probabilities], np.float64)
    return weights


def _strictness(region: AuditRegion, item: JudgedItem, blocks: Blocks) -> float:
    """Larger is decided more surely. What only a part of a picture would block was not blocked, whatever its score: the
    score that counts lies somewhere under the threshold that it was held against."""
    score = region.strictness(item.scores[region.check] or 0.0)
    if not _is_blocked_by_part(region, item):
        return score
    block = _block_by_values(region, item, blocks)
    if block is None:
        block = blocks.get((region.check, None, None), score)
    return min(score, float(np.nextafter(np.float32(block), np.float32(0))))


def _is_blocked_by_part(region: AuditRegion, item: JudgedItem) -> bool:
    return region.side == "block" and item.reason.startswith(f"context:{region.check}:")


def _end_of(region: AuditRegion, blocks: Blocks) -> float:
    """The strictness over which thresholds must lie: fine items that are blocked would hide bad ones that pass."""
    if not region.falls:
        return -math.inf
    keys = ((region.check, region.attribute, region.value), (region.check, None, None))
    block = next((blocks[key] for key in keys if key in blocks), 1.0)
    return -min(1.0, as_float32(block) or 0.0)


def _never_passes(region: AuditRegion, item: JudgedItem, blocks: Blocks) -> bool:
    """Whether a value of an attribute blocks an item of the pass side: an error, which is on the safe side."""
    score, block = item.scores[region.check], _block_by_values(region, item, blocks)
    return region.falls and score is not None and block is not None and score >= block


def _block_by_values(region: AuditRegion, item: JudgedItem, blocks: Blocks) -> float | None:
    """The strictest `block` that the attributes of an item select, as float32."""
    selected = [
        block
        for (check, attribute, value), block in blocks.items()
        if check == region.check and attribute is not None and value in attribute_values(item.attributes.get(attribute))
    ]
    return as_float32(min(selected, default=None))


def _is_error(region: AuditRegion, item: JudgedItem, label: Label | None, meaning: Meaning, claim: Claim) -> bool:
    # An item without a settled label counts as an error: leaving it out would select the easy ones.
    if label is None or label.words is None or not claim.is_settled(label):
        return True
    # One that passes only beyond several thresholds is an error of each, which is on the safe side.
    if region.side == "pass" and len(region.fits(item)) > 1:
        return True
    # So is one that perhaps does not pass: among items that do, fine ones would hide the bad ones.
    if region.falls and item.verdict != "pass" and item.approved is None:
        return True
    # So is what perhaps is not blocked: a part of it is over the threshold, and the picture is not.
    if _is_blocked_by_part(region, item):
        return True
    return meaning.is_bad(label.words) is (region.side == "pass")


def _policy_threshold(region: AuditRegion, strictness: float) -> float:
    """A threshold for the policy file, such that its float32 decides exactly the certified items.

    A negative check reviews from its threshold on, so a certified pass ends just below: the next float32.
    """
    score = np.float32(-strictness if region.falls else strictness)
    exact = np.nextafter(score, np.float32(2)) if region.falls else score
    return float(str(exact))  # the shortest decimal that is this float32


def all_or_none(sides: Sequence[SideOutcome]) -> tuple[SideOutcome, ...]:
    """The sides without thresholds of actions of which another threshold, for other items, is not certified.

    A policy cannot say that a check decides for some attributes alone.
    """
    failed = {side.region.action for side in sides if side.threshold is None}
    return tuple(
        side
        if side.region.action not in failed
        else replace(side, threshold=None, decided=0.0, held_back=side.threshold)
        for side in sides
    )

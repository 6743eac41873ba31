"""A policy with certified thresholds, and without what is not certified. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moderation.evaluation.audit import AuditRegion
from moderation.evaluation.certified_side import SideOutcome
from moderation.policy.certified import not_covered, withdraw
from moderation.policy.model import Policy


def apply_certified(
    policy: Policy, sides: Sequence[SideOutcome], pooled: Sequence[AuditRegion]
) -> tuple[Policy, tuple[str, ...]]:
    """(the policy with the certified thresholds and without uncertified actions, these actions).

    pooled: thresholds by attribute that the check's own takes the place of, where that is certified.
    """
    certified = [side for side in sides if side.threshold is not None]
    tree: dict[str, Any] = policy.model_dump(mode="json", by_alias=True, exclude_unset=True)
    actions = {side.region.action for side in certified}
    for region in pooled:
        if region.action in actions:
            _drop_threshold(tree["checks"][region.check], region)
    # The check's own threshold first: the others are held against it.
    for side in sorted(certified, key=lambda side: side.region.attribute is not None):
        _set_threshold(tree["checks"][side.region.check], side)
    for side in certified:
        _keep_order(tree["checks"][side.region.check])
    with_thresholds = Policy.model_validate(tree)
    withdrawn = not_covered(with_thresholds, {side.region.action for side in certified})
    return withdraw(with_thresholds, withdrawn), withdrawn


def _drop_threshold(check: dict[str, Any], region: AuditRegion) -> None:
    """Take out a threshold by attribute, and what is empty without it."""
    values = check["by"][region.attribute]
    values[region.value].pop(region.threshold, None)
    if not values[region.value]:
        del values[region.value]
    if not values:
        del check["by"][region.attribute]


def _set_threshold(check: dict[str, Any], side: SideOutcome) -> None:
    threshold, region = side.threshold, side.region
    assert threshold is not None
    if region.attribute is not None:
        own = check["by"][region.attribute][region.value]
        _review_unblocked(check, own, region.threshold, threshold)
        own[region.threshold] = threshold
        block, review = own.get("block", check.get("block")), own.get("review", check.get("review"))
        if block is not None and review is not None and review > block:
            own["review"] = block
        return
    if side.region.side == "block":
        _review_unblocked(check, check, "block", threshold)
        check["block"] = threshold
        if check.get("review") is not None:
            check["review"] = min(check["review"], threshold)
    elif side.region.falls:
        check["review"] = threshold
        if check.get("block") is not None:
            # Items over `block` belong to the block side; they never pass.
            check["review"] = min(threshold, check["block"])
    else:
        check["pass"] = threshold
        check["side"] = "positive"  # perhaps an attribute so far, because it was not certified


def _review_unblocked(check: dict[str, Any], own: dict[str, Any], key: str, threshold: float) -> None:
    """Review from the old `block` on where the certified one is higher: no pass certificate has looked at these items.

    own: the check, or its thresholds for a value of an attribute.
    """
    old = own.get("block") if key == "block" else None
    review = own.get("review", check.get("review"))
    if old is None or threshold <= old or (review is not None and review <= old):
        return
    own["review"] = old
    # Only a threshold that the check itself has can be another one for a value.
    check.setdefault("review", check["block"])


def _keep_order(check: dict[str, Any]) -> None:
    """Lower each `review` to the `block` beside it: a policy has none over it."""
    for own in [own for values in check.get("by", {}).values() for own in values.values()]:
        block = own.get("block", check.get("block"))
        if block is not None and own.get("review") is not None:
            own["review"] = min(own["review"], block)
        elif block is not None and check.get("review") is not None:
            check["review"] = min(check["review"], block)

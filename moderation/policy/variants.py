"""The checks of one item: by its kind, with the thresholds that its attributes select; pure."""

from __future__ import annotations

from dataclasses import replace

from moderation.policy.bind import BoundCheck, BoundPolicy
from moderation.policy.thresholds import BoundThresholds, fitting, strictest
from moderation.types import ItemFacts, Kind, Seen

_MAX_VARIANTS = 4096  # cached at most; one per combination of values that the policy names


def checks_for(bound: BoundPolicy, seen: Seen | None, facts: ItemFacts | None) -> tuple[BoundCheck, ...]:
    """The checks of an item. seen: None counts as an image; facts: None counts as no attributes."""
    kind = Kind.IMAGE if seen is None else seen.kind
    checks = bound.checks_of[kind]
    if not bound.by_attribute or facts is None:
        return checks
    fits = tuple(fitting(check.by, facts.attributes) for check in checks)
    if not any(fits):
        return checks
    key = (kind, fits)
    if key not in bound.variants:
        if len(bound.variants) >= _MAX_VARIANTS:
            bound.variants.clear()
        bound.variants[key] = tuple(_with_thresholds(check, own) for check, own in zip(checks, fits, strict=True))
    return bound.variants[key]


def _with_thresholds(check: BoundCheck, own: tuple[BoundThresholds, ...]) -> BoundCheck:
    if not own:
        return check
    instead = strictest(own)
    block = check.block if instead.block is None else instead.block
    review = check.review if instead.review is None else instead.review
    if block is not None and review is not None:
        review = min(review, block)  # they may come from different attributes
    # A check stops the cascade where it decides: see `Policy.stops_at`.
    stops_at = check.stops_at
    if stops_at is not None:
        stops_at = block if check.stops_by_block or review is None else review
    return replace(
        check,
        block=block,
        review=review,
        pass_=check.pass_ if instead.pass_ is None else instead.pass_,
        stops_at=stops_at,
    )

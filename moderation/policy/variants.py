"""The checks as they are for one item: by its kind, and with the thresholds that its attributes fit; pure."""

from __future__ import annotations

from dataclasses import replace

from moderation.policy.bind import BoundCheck, BoundPolicy
from moderation.policy.thresholds import BoundThresholds, fitting, strictest
from moderation.types import ItemFacts, Kind, Seen

_MAX_VARIANTS = 4096  # remembered; there are as many as combinations of values that the policy names


def checks_for(bound: BoundPolicy, seen: Seen | None, facts: ItemFacts | None) -> tuple[BoundCheck, ...]:
    """The checks of an item. seen: None, as of an image; facts: None, as of an item without attributes."""
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
        review = min(review, block)  # of two that fit one may say the one, one the other
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

"""Thresholds by attribute: which of them an item's values select, and the strictest of those; pure.

The selected thresholds replace the check's own. Of several (a region and a business line, or an album whose rows are of
two regions) the strictest of each kind holds: the lowest `block` and `review`, the highest `pass`. So their order in a
file means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from moderation.policy.check import Check
from moderation.policy.matching import attribute_values


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundThresholds:
    """Thresholds of a check, as float32 values, for items whose attribute has the value."""

    attribute: str
    value: str
    block: float | None
    review: float | None
    pass_: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StrictestThresholds:
    """The thresholds that hold where several fit; None: the check's own."""

    block: float | None
    review: float | None
    pass_: float | None


def as_float32(number: float | None) -> float | None:
    """A number in the type of the tables, so that a rejudge over them decides alike."""
    return None if number is None else float(np.float32(number))


def bind_thresholds(check: Check) -> tuple[BoundThresholds, ...]:
    """All thresholds by attribute of a check."""
    return tuple(
        BoundThresholds(
            attribute=attribute,
            value=value,
            block=as_float32(other.block),
            review=as_float32(other.review),
            pass_=as_float32(other.pass_),
        )
        for attribute, values in check.by.items()
        for value, other in values.items()
    )


def fitting(by: Iterable[BoundThresholds], attributes: Mapping[str, str]) -> tuple[BoundThresholds, ...]:
    """The thresholds that an item's attributes select."""
    return tuple(one for one in by if one.value in attribute_values(attributes.get(one.attribute)))


def strictest(fitting: Iterable[BoundThresholds]) -> StrictestThresholds:
    """The strictest of each threshold."""
    given = list(fitting)
    return StrictestThresholds(
        block=min((one.block for one in given if one.block is not None), default=None),
        review=min((one.review for one in given if one.review is not None), default=None),
        pass_=max((one.pass_ for one in given if one.pass_ is not None), default=None),
    )

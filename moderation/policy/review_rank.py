"""The order in which people should look at items: a rank, 0..1, the highest first; pure.

The weighted mean of five terms, each 0..1. A term that is not known of an item drops out with its weight, so that no
number is made up for it; where none is known there is no rank.

    uncertainty    how close the decision was: highest in the middle of a check's review band, and where a default was
                   close to another decision
    severity       the level of the check (or list) that objected, as a fraction of the policy's levels
    reach          how many see it: log(1 + attribute) / log(1 + full)
    disagreement   the widest difference between two of the votes of the deciding check on its highest frame
    age            days from the attribute's date to the day of the run, as a fraction of `full_days`
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

from pydantic import Field, model_validator

from moderation.policy.section import PolicySection
from moderation.policy.thresholds import as_float32
from moderation.types import Evidence, ItemFacts, Verdict


class Reach(PolicySection):
    """How many see an item."""

    attribute: str = Field(min_length=1, description="a number: views, followers, reports")
    weight: float = Field(default=1.0, gt=0)
    full: float = Field(default=1_000_000, gt=0, description="from this number on, the term is 1")


class Age(PolicySection):
    """How long an item has waited."""

    attribute: str = Field(min_length=1, description="a date or time in ISO form: 2026-12-31, 2026-12-31T12:00:00Z")
    weight: float = Field(default=0.5, gt=0)
    full_days: float = Field(default=7.0, gt=0, description="from this age on, the term is 1")


class ReviewOrder(PolicySection):
    """Weights of the terms of `review_rank`; 0 leaves one out."""

    uncertainty: float = Field(default=1.0, ge=0)
    severity: float = Field(default=1.0, ge=0)
    disagreement: float = Field(default=0.5, ge=0)
    reach: Reach | None = None
    age: Age | None = None

    @model_validator(mode="after")
    def _weighs_something(self) -> ReviewOrder:
        if not (self.uncertainty or self.severity or self.disagreement or self.reach or self.age):
            raise ValueError("every weight is 0, so there is no order")
        return self


class Reviewed(NamedTuple):
    """What is known of an item that a person has to look at.

    by_check: whether a check decided, by a score. votes: (frame, score) of the votes that the decision rests on.
    """

    reason: str
    confidence: float | None
    severity: str | None
    by_check: bool
    votes: Sequence[tuple[int | None, float]]


def votes_of(evidence: Iterable[Evidence]) -> list[tuple[int | None, float]]:
    """Evidence as the votes of `Reviewed`."""
    return [(one.frame, one.score) for one in evidence]


def review_rank(
    order: ReviewOrder,
    severities: Sequence[str],
    verdict: Verdict,
    item: Reviewed,
    facts: ItemFacts | None,
    as_of: date | None,
) -> float | None:
    """The rank of an item, float32; None where its verdict is not review, or nothing is known to order it by."""
    if verdict is not Verdict.REVIEW:
        return None
    attributes: Mapping[str, str] = facts.attributes if facts is not None else {}
    terms: list[tuple[float, float | None]] = [
        (order.uncertainty, _uncertainty(item)),
        (order.severity, _severity(item.severity, severities)),
        (order.disagreement, _disagreement(item)),
    ]
    if order.reach is not None:
        terms.append((order.reach.weight, _reach(order.reach, attributes)))
    if order.age is not None:
        terms.append((order.age.weight, _age(order.age, attributes, as_of)))
    known = [(weight, term) for weight, term in terms if weight and term is not None]
    if not known:
        return None
    return as_float32(math.fsum(w * t for w, t in known) / math.fsum(w for w, _ in known))


def _uncertainty(item: Reviewed) -> float | None:
    if item.confidence is None:
        return None
    # Inside a review band the confidence is the distance to its nearer end, which is largest in the middle. Elsewhere
    # it is the distance from another decision.
    in_band = item.reason.startswith("negative:")
    return item.confidence if in_band else 1.0 - item.confidence


def _severity(severity: str | None, levels: Sequence[str]) -> float | None:
    return (levels.index(severity) + 1) / len(levels) if severity in levels else None


def _disagreement(item: Reviewed) -> float | None:
    if not item.by_check or not item.votes:
        return None
    frame = item.votes[0][0]
    scores = [score for at, score in item.votes if at == frame]
    return min(1.0, max(scores) - min(scores)) if len(scores) > 1 else None


def _reach(reach: Reach, attributes: Mapping[str, str]) -> float | None:
    try:
        number = float(attributes.get(reach.attribute, ""))
    except ValueError:
        return None
    if not math.isfinite(number) or number < 0:
        return None
    return min(1.0, math.log1p(number) / math.log1p(reach.full))


def _age(age: Age, attributes: Mapping[str, str], as_of: date | None) -> float | None:
    """None where the date is missing or invalid, or the run has no day; 0 for a date after the run."""
    try:
        since = datetime.fromisoformat(attributes.get(age.attribute, ""))
    except ValueError:
        return None
    if as_of is None:
        return None
    day = since.date() if since.tzinfo is None else since.astimezone(UTC).date()
    return min(1.0, max(0, (as_of - day).days) / age.full_days)

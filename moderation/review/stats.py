"""What has happened in a review: pace, agreement, conflicts, appeals. Pure, from decisions."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from moderation.labels.decided_labels import DecidedLabel, decide_labels
from moderation.labels.decisions import Decision, group_by_content, standing_decisions
from moderation.review.agreement import (
    HiddenAccuracy,
    PairAgreement,
    hidden_accuracies,
    pair_agreements,
)

# A longer wait between two decisions is a break.
BREAK_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewerStats:
    """One reviewer. active_s: between decisions, without breaks; per_hour: None where there was only one.

    exposure_s: the median; None where none was measured. hidden: None where there were none.
    """

    reviewer: str
    decisions: int
    undone: int
    answers: dict[str, int]
    active_s: float
    per_hour: float | None
    exposure_s: float | None
    hidden: HiddenAccuracy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewStats:
    """All of a review. decisions: that stand; undone: that were taken back. kappa: over all pairs of reviewers."""

    decisions: int
    undone: int
    items: int
    sources: dict[str, int]
    reviewers: tuple[ReviewerStats, ...]
    pairs: tuple[PairAgreement, ...]
    kappa: float | None
    conflicts: tuple[DecidedLabel, ...]


def measure_review(decisions: Sequence[Decision]) -> ReviewStats:
    """The figures of a review."""
    standing = standing_decisions(decisions)
    # Two reviewers can only differ about the same content.
    by_content = group_by_content(standing)
    pairs, kappa = pair_agreements(by_content)
    hidden = {accuracy.reviewer: accuracy for accuracy in hidden_accuracies(by_content)}
    names = sorted({decision.reviewer for decision in decisions})
    labels = decide_labels(decisions)
    return ReviewStats(
        decisions=len(standing),
        undone=_count_undone(decisions, standing),
        items=len({decision.item_id for decision in standing}),
        sources=dict(sorted(Counter(str(decision.source) for decision in standing).items())),
        reviewers=tuple(_of_reviewer(name, decisions, standing, hidden.get(name)) for name in names),
        pairs=pairs,
        kappa=kappa,
        conflicts=tuple(label for label in labels if label.is_disputed),
    )


def active_seconds(decisions: Iterable[Decision]) -> float:
    """Seconds between decisions, without those longer than BREAK_S."""
    times = sorted(decision.decided_at.timestamp() for decision in decisions)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return sum(gap for gap in gaps if gap <= BREAK_S)


def _of_reviewer(
    name: str, decisions: Sequence[Decision], standing: Sequence[Decision], hidden: HiddenAccuracy | None
) -> ReviewerStats:
    made = [decision for decision in decisions if decision.reviewer == name]
    own = [decision for decision in standing if decision.reviewer == name]
    active_s = active_seconds(made)
    measured = [decision.exposure_s for decision in own if decision.exposure_s is not None]
    return ReviewerStats(
        reviewer=name,
        decisions=len(own),
        undone=_count_undone(made, own),
        answers=dict(sorted(Counter(str(decision.decision) for decision in own).items())),
        active_s=active_s,
        per_hour=(len(made) - 1) / active_s * 3600 if active_s > 0 else None,
        exposure_s=statistics.median(measured) if measured else None,
        hidden=hidden,
    )


def _count_undone(decisions: Sequence[Decision], standing: Sequence[Decision]) -> int:
    kept = {decision.decision_id for decision in standing}
    # A row that only undoes says nothing itself.
    return sum(d.decision_id not in kept and d.undoes is None for d in decisions)

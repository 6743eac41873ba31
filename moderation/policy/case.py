"""One item as the rules of a policy see it, and what a rule says; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moderation.policy import context
from moderation.policy.bind import BoundPolicy
from moderation.policy.scores import CheckScore
from moderation.types import ErrorCode, ItemFacts, ItemVotes, Seen, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One item as the rules see it.

    scores: of the deciding checks, and of the attributes that rules read. error: why it could not be judged
    whole. seen: how much of it was looked at; None: not told, and no pass is withheld for it. facts: what else is
    known of it; None: nothing, so that it is on no list. votes, rows: None and empty where nothing of it was scored.
    """

    bound: BoundPolicy
    scores: Sequence[CheckScore]
    kinship: context.Kinship | None = None
    error: ErrorCode | None = None
    seen: Seen | None = None
    facts: ItemFacts | None = None
    votes: ItemVotes | None = None
    rows: Sequence[Sequence[float]] = ()


class CaseDecision(NamedTuple):
    """What a rule says. by: the check that decided, if one did. shown: rows that its evidence may use; empty: any.

    threshold: the one of that check that decided. note: the reason of a list's entry. severity: of a list.
    """

    verdict: Verdict
    reason: str
    by: CheckScore | None = None
    confidence: float | None = None
    shown: tuple[int, ...] = ()
    threshold: float | None = None
    note: str = ""
    severity: str | None = None


class Exceeding(NamedTuple):
    """A check over a threshold; excess: how far, as a fraction of the way from the threshold to 1."""

    score: CheckScore
    threshold: float
    excess: float


def excess_over(score: float, threshold: float) -> float:
    """How far a score is over a threshold, as a fraction of the way from there to 1."""
    room = 1.0 - threshold
    return min(1.0, (score - threshold) / room) if room > 0 else 1.0


def furthest(candidates: Iterable[tuple[CheckScore, float | None, float | None]]) -> Exceeding | None:
    """Of (check, score, threshold) the first of those furthest over the threshold; None where none is over."""
    best: Exceeding | None = None
    for candidate, score, threshold in candidates:
        if threshold is None or score is None or score < threshold:
            continue
        excess = excess_over(score, threshold)
        if best is None or excess > best.excess:
            best = Exceeding(candidate, threshold, excess)
    return best


def decide_by_check(verdict: Verdict, stage: str, top: Exceeding, confidence: float) -> CaseDecision:
    """A decision that a check makes."""
    reason = f"{stage}:{top.score.check.name}:{verdict}"
    return CaseDecision(verdict, reason, top.score, confidence, threshold=top.threshold)

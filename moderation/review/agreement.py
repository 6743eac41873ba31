"""How far reviewers agree: Cohen's kappa by pair and over all, and accuracy on hidden items. Pure.

Kappa = (observed - expected) / (1 - expected), expected from each reviewer's own shares of block and pass
(J. Cohen, A coefficient of agreement for nominal scales, 1960).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from moderation.labels.decided_labels import is_ruling
from moderation.labels.decisions import Answer, Decision, DecisionSource, counted_answers, standing_decisions

_GIVEN = frozenset({Answer.BLOCK, Answer.PASS})
_Key = TypeVar("_Key")  # of an item, or of a content of one
Rating = tuple[str, str]  # what each of two reviewers said of an item


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """How far two reviewers agree. items: that both answered. kappa: None where chance alone would agree."""

    reviewers: tuple[str, str]
    items: int
    agreed: int
    kappa: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenAccuracy:
    """How many of the hidden items a reviewer answered as they were known."""

    reviewer: str
    items: int
    right: int


def cohens_kappa(ratings: Sequence[Rating]) -> float | None:
    """Cohen's kappa of two raters; None without ratings, and where both always say the same one thing."""
    if not ratings:
        return None
    n = len(ratings)
    first, second = Counter(a for a, _ in ratings), Counter(b for _, b in ratings)
    expected = sum(first[word] * second[word] for word in first) / n**2
    if expected == 1:
        return None
    observed = sum(a == b for a, b in ratings) / n
    return (observed - expected) / (1 - expected)


def group_by_item(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    """Item id -> its decisions, in order."""
    by_item: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_item.setdefault(decision.item_id, []).append(decision)
    return by_item


def pair_agreements(by_item: Mapping[_Key, Sequence[Decision]]) -> tuple[tuple[PairAgreement, ...], float | None]:
    """Agreement of each pair of reviewers, and kappa over all of their common items.

    Over all: each pair's ratings in both directions, so that it does not matter who is called first. An appeal, and an
    expert who knew what others had said, are no independent answers and are left out.
    """
    ratings: dict[tuple[str, str], list[Rating]] = {}
    for own in by_item.values():
        said = {a.reviewer: str(a.decision) for a in _independent(own)}
        for pair in combinations(sorted(said), 2):
            ratings.setdefault(pair, []).append((said[pair[0]], said[pair[1]]))
    pairs = tuple(
        PairAgreement(reviewers=pair, items=len(own), agreed=sum(a == b for a, b in own), kappa=cohens_kappa(own))
        for pair, own in sorted(ratings.items())
    )
    both_ways = [r for own in ratings.values() for a, b in own for r in ((a, b), (b, a))]
    return pairs, cohens_kappa(both_ways)


def hidden_accuracies(by_item: Mapping[_Key, Sequence[Decision]]) -> tuple[HiddenAccuracy, ...]:
    """Of each reviewer, how many hidden items were answered as an expert, or two others who agree, had said."""
    items: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for own in by_item.values():
        standing = standing_decisions(own)
        for hidden in standing:
            known = _known(standing, hidden.reviewer) if hidden.source is DecisionSource.HIDDEN else None
            if known is not None and hidden.decision is not Answer.SKIP:
                items[hidden.reviewer] += 1
                right[hidden.reviewer] += hidden.decision is known
    return tuple(HiddenAccuracy(reviewer=name, items=items[name], right=right[name]) for name in sorted(items))


def _independent(decisions: Sequence[Decision]) -> list[Decision]:
    answers = [answer for answer in counted_answers(standing_decisions(decisions)) if answer.decision in _GIVEN]
    late = [answer for answer in answers if not is_ruling(answer)]
    # An expert who was the first to answer knew of nobody.
    return answers if answers[:1] and is_ruling(answers[0]) and len(late) == len(answers) - 1 else late


def _known(standing: Sequence[Decision], but: str) -> Answer | None:
    answers = [a for a in counted_answers(standing) if a.reviewer != but and a.decision in _GIVEN]
    rulings = [answer.decision for answer in answers if is_ruling(answer)]
    if rulings:
        return rulings[-1]
    said = {answer.decision for answer in answers}
    return said.pop() if len(said) == 1 and len(answers) > 1 else None

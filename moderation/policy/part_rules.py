"""The rules of `rules.py` over the items of a part, as masks in the same order; pure.

Each function here is the twin of the one of the same name there, and decides the same for each item
(tests/unit/results/test_judged.py compares them). The rules for lists, parts of pictures and a cascade that has
ended have no twin: `judge_part` leaves such items to `judge_item`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from moderation.policy.bind import BoundPolicy
from moderation.policy.part_scores import F64, I64, Flags, PartScores, column_of
from moderation.policy.vouched import BoundVouch
from moderation.types import Verdict

NO_CHECK: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCase:
    """The items of a part as the rules see them."""

    bound: BoundPolicy
    scores: PartScores

    def deciding(self) -> list[int]:
        """Places of the checks that rules ask."""
        return [k for k, check in enumerate(self.scores.checks) if check.side != "attribute" or check.watched]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRuling:
    """What a rule says of I items. holds: bool [I]. check: index, int64 [I], NO_CHECK where none decides.

    confidence, threshold: float64 [I], NaN = none. reason: whole, or its beginning where a check decides.
    unsure: bool [I], items for which columns cannot tell.
    """

    verdict: Verdict
    reason: str
    holds: Flags
    check: I64
    confidence: F64
    threshold: F64
    unsure: Flags | None = None


def _furthest(case: PartCase, numbers: F64, thresholds: Sequence[float | None]) -> tuple[Flags, I64, F64, F64]:
    """(whether any is over, the check furthest over its threshold, its excess, the threshold); like `case.furthest`.

    numbers: float64 [I,K], NaN where a check has none or is not asked. thresholds: of each check.
    """
    count = len(case.scores)
    best, excess = np.full(count, NO_CHECK, np.int64), np.full(count, -np.inf)
    over_at = np.full(count, np.nan)
    for k in case.deciding():
        threshold = thresholds[k]
        if threshold is None:
            continue
        number, room = numbers[:, k], 1.0 - threshold
        own = np.minimum(1.0, (number - threshold) / room) if room > 0 else np.ones(count)
        better = (number >= threshold) & (own > excess)
        best[better], excess[better], over_at[better] = k, own[better], threshold
    return best != NO_CHECK, best, np.where(best == NO_CHECK, np.nan, excess), over_at


def block_by_negative(case: PartCase) -> PartRuling:
    """A negative check is over its `block`."""
    over, best, excess, threshold = _furthest(case, case.scores.scores, [c.block for c in case.scores.checks])
    return PartRuling(
        verdict=Verdict.BLOCK, reason="negative", holds=over, check=best, confidence=excess, threshold=threshold
    )


def review_isolated(case: PartCase) -> PartRuling:
    """A frame is over `block`, but the pooled score is not."""
    thresholds = [c.block if c.isolated else None for c in case.scores.checks]
    over, best, excess, threshold = _furthest(case, case.scores.highest, thresholds)
    return PartRuling(
        verdict=Verdict.REVIEW, reason="isolated", holds=over, check=best, confidence=excess, threshold=threshold
    )


def review_by_negative(case: PartCase) -> PartRuling:
    """A negative check is over its `review`."""
    scores = case.scores
    over, best, excess, threshold = _furthest(case, scores.scores, [c.review for c in scores.checks])
    confidence = excess.copy()
    for k in case.deciding():
        end, low = scores.checks[k].block, scores.checks[k].review
        if end is not None and low is not None and end > low:
            own = best == k
            number = scores.scores[own, k]
            confidence[own] = np.minimum(1.0, 2.0 * np.minimum(number - low, end - number) / (end - low))
    return PartRuling(
        verdict=Verdict.REVIEW, reason="negative", holds=over, check=best, confidence=confidence, threshold=threshold
    )


def review_nulls(case: PartCase) -> PartRuling:
    """A check that says `null: review` has no score of some frame."""
    check = np.full(len(case.scores), NO_CHECK, np.int64)
    for k in reversed(case.deciding()):
        if case.scores.checks[k].null_is_review:
            check[~case.scores.complete[:, k]] = k
    return _plain_ruling(case, Verdict.REVIEW, "null", check != NO_CHECK, check)


def pass_by_positive(case: PartCase) -> PartRuling:
    """A positive check with a score of every frame is over its `pass`."""
    scores = case.scores
    asked = np.where(scores.complete, scores.scores, np.nan)
    over, best, excess, threshold = _furthest(case, asked, [c.pass_ for c in scores.checks])
    return PartRuling(
        verdict=Verdict.PASS, reason="positive", holds=over, check=best, confidence=excess, threshold=threshold
    )


def pass_by_vouch(case: PartCase, rule: BoundVouch) -> PartRuling:
    """All that a positive rule asks of scores holds, on every frame; `declared` is not told here."""
    scores = case.scores
    holds, confidence = np.ones(len(scores), np.bool_), np.full(len(scores), np.inf)
    for name, least in rule.at_least.items():
        k = column_of(scores.checks, name)
        holds &= scores.complete[:, k] & (scores.scores[:, k] >= least)
        room = 1.0 - least
        own = np.minimum(1.0, (scores.scores[:, k] - least) / room) if room > 0 else np.ones(len(scores))
        confidence = np.minimum(confidence, own)
    for name, limit in rule.below.items():
        k = column_of(scores.checks, name)
        holds &= scores.complete[:, k] & (scores.highest[:, k] < limit)
    ruling = _plain_ruling(case, Verdict.PASS, f"vouch:{rule.name}:pass", holds)
    return PartRuling(
        verdict=ruling.verdict,
        reason=ruling.reason,
        holds=holds,
        check=ruling.check,
        confidence=np.where(np.isinf(confidence), np.nan, confidence),
        threshold=ruling.threshold,
        unsure=holds if rule.declared is not None else None,
    )


def review_unasked(case: PartCase) -> PartRuling:
    """`default: pass` does not pass an item of which nothing was asked."""
    holds = np.full(len(case.scores), case.bound.policy.default == "pass")
    for k, check in enumerate(case.scores.checks):
        if check.side != "attribute":
            holds &= np.isnan(case.scores.scores[:, k])
    return _plain_ruling(case, Verdict.REVIEW, "null:all:review", holds)


def by_default(case: PartCase) -> PartRuling:
    """No check decided."""
    verdict = Verdict(case.bound.policy.default)
    closest = np.full(len(case.scores), np.inf)
    for k in case.deciding():
        check, number = case.scores.checks[k], case.scores.scores[:, k]
        if verdict is Verdict.PASS:
            against = [t for t in (check.review, check.block) if t]
        else:
            against = [check.pass_] if check.pass_ else []
            number = np.where(case.scores.complete[:, k], number, np.nan)
        for threshold in against:
            closest = np.fmin(closest, (threshold - number) / threshold)
    confidence = np.where(np.isinf(closest), np.nan, np.maximum(0.0, np.minimum(1.0, closest)))
    ruling = _plain_ruling(case, verdict, f"default:{verdict}", np.ones(len(case.scores), np.bool_))
    return PartRuling(
        verdict=verdict,
        reason=ruling.reason,
        holds=ruling.holds,
        check=ruling.check,
        confidence=confidence,
        threshold=ruling.threshold,
    )


def _plain_ruling(case: PartCase, verdict: Verdict, reason: str, holds: Flags, check: I64 | None = None) -> PartRuling:
    """A ruling without a confidence or a threshold."""
    none = np.full(len(case.scores), np.nan)
    check = np.full(len(case.scores), NO_CHECK, np.int64) if check is None else check
    return PartRuling(verdict=verdict, reason=reason, holds=holds, check=check, confidence=none, threshold=none)


def rulings(case: PartCase) -> Sequence[Callable[[], PartRuling]]:
    """The rules in the order of `rules.RULES`, each asked only while an item is undecided."""
    return (
        lambda: block_by_negative(case),
        lambda: review_isolated(case),
        lambda: review_by_negative(case),
        lambda: review_nulls(case),
        lambda: pass_by_positive(case),
        *(lambda rule=rule: pass_by_vouch(case, rule) for rule in case.bound.vouch),
        lambda: review_unasked(case),
        lambda: by_default(case),
    )

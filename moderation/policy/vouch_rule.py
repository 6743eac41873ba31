"""The rule that passes an item by the policy's `vouch` section; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moderation.policy.case import Case, CaseDecision, excess_over
from moderation.policy.scores import CheckScore
from moderation.policy.vouched import BoundVouch, is_as_declared
from moderation.types import Verdict


def pass_by_vouch(case: Case) -> CaseDecision | None:
    """All that a positive rule asks holds, on every frame; of several rules the first by name."""
    if not case.bound.vouch:
        return None
    scores = {score.check.name: score for score in case.scores}
    for rule in case.bound.vouch:
        if _holds(rule, case, scores):
            margins = [excess_over(scores[name].score or 0.0, least) for name, least in rule.at_least.items()]
            return CaseDecision(Verdict.PASS, f"vouch:{rule.name}:pass", confidence=min(margins, default=None))
    return None


def _holds(rule: BoundVouch, case: Case, scores: Mapping[str, CheckScore]) -> bool:
    return (
        all(_reaches(scores[name], least) for name, least in rule.at_least.items())
        and all(_stays_below(scores[name], limit) for name, limit in rule.below.items())
        and (rule.declared is None or is_as_declared(rule.declared, case.facts, case.rows, _pictures(case)))
    )


def _reaches(score: CheckScore, least: float) -> bool:
    return score.complete and score.score is not None and score.score >= least


def _stays_below(score: CheckScore, limit: float) -> bool:
    highest = score.highest()
    return score.complete and highest is not None and highest < limit


def _pictures(case: Case) -> Sequence[int]:
    """Rows that are pictures by themselves, not parts of others."""
    return range(len(case.rows)) if case.kinship is None else case.kinship.roots

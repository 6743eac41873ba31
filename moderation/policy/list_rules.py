"""The rules of allow- and deny-lists; pure."""

from __future__ import annotations

from collections.abc import Iterator

from moderation.policy.case import Case, CaseDecision
from moderation.policy.entries import ListEntry
from moderation.policy.matching import BoundList, match_list
from moderation.policy.scores import CheckScore
from moderation.types import Verdict


def block_by_list(case: Case) -> CaseDecision | None:
    """The item is on a deny-list that blocks."""
    return _by_list(case, "deny", Verdict.BLOCK)


def review_by_list(case: Case) -> CaseDecision | None:
    """The item is on a deny-list that asks for a person."""
    return _by_list(case, "deny", Verdict.REVIEW)


def allow_by_list(case: Case) -> CaseDecision | None:
    """The item is on an allow-list, on no deny-list, and no severe check objects.

    A severe check without a score objects, too. An error, or something not looked at, still withholds the pass.
    """
    allowed = _by_list(case, "allow", Verdict.PASS)
    if allowed is None or review_by_list(case) is not None or any(map(_objects, _severe(case))):
        return None
    return allowed


def _severe(case: Case) -> Iterator[CheckScore]:
    return (score for score in case.scores if score.check.severe)


def _objects(score: CheckScore) -> bool:
    check = score.check
    if not score.complete and (check.null_is_review or check.order is not None):
        return True  # not computed, or not asked after a stop that the list would override
    highest = score.highest()
    lowest = check.block if check.review is None else check.review
    return highest is not None and lowest is not None and highest >= lowest


def _by_list(case: Case, action: str, verdict: Verdict) -> CaseDecision | None:
    for bound in case.bound.lists:
        if bound.action != action or (action == "deny" and bound.verdict != verdict):
            continue
        entry = _match(bound, case)
        if entry is not None:
            reason = f"list:{bound.name}:{verdict}"
            return CaseDecision(verdict, reason, note=entry.reason, severity=bound.severity)
    return None


def _match(bound: BoundList, case: Case) -> ListEntry | None:
    return None if case.facts is None else match_list(bound, case.facts, case.votes)

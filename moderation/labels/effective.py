"""The decision that holds for each item, of all that reviewers said of it.

An upheld or rejected appeal holds before all others, then an expert's answer, then two that agree, then the latest.
What was undone does not count, nor what says neither block nor pass, nor answers to hidden items, which only measure
their reviewer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource, standing_decisions


def effective_decisions(outs: Sequence[str]) -> dict[str, Decision]:
    """Item id -> the decision that holds, over the decisions of several runs.

    Raises DamagedDecisionsError where a chain is not whole, StorageError.
    """
    return hold([decision for out in dict.fromkeys(outs) for decision in read_decisions(out)])


def hold(
    decisions: Iterable[Decision], key: Callable[[Decision], str] = lambda decision: decision.item_id
) -> dict[str, Decision]:
    """The decision that holds for each key: of each item, or of each content."""
    by_key: defaultdict[str, list[Decision]] = defaultdict(list)
    for decision in standing_decisions(decisions):
        if decision.decision in (Answer.BLOCK, Answer.PASS) and decision.source != DecisionSource.HIDDEN:
            by_key[key(decision)].append(decision)
    return {name: _holding(said) for name, said in by_key.items()}


def _holding(said: Sequence[Decision]) -> Decision:
    said = sorted(said, key=lambda decision: (decision.decided_at, decision.decision_id))
    for strong in (
        [decision for decision in said if decision.source == DecisionSource.APPEAL],
        [decision for decision in said if decision.expert],
        _agreed(said),
    ):
        if strong:
            return strong[-1]
    return said[-1]


def _agreed(said: Sequence[Decision]) -> list[Decision]:
    """The decisions with an answer that two reviewers or more gave, and more than gave the other."""
    reviewers = {answer: {d.reviewer for d in said if d.decision is answer} for answer in (Answer.BLOCK, Answer.PASS)}
    block, passed = len(reviewers[Answer.BLOCK]), len(reviewers[Answer.PASS])
    if max(block, passed) < 2 or block == passed:
        return []
    answer = Answer.BLOCK if block > passed else Answer.PASS
    return [decision for decision in said if decision.decision is answer]

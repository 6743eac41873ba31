"""The decision that holds for each content of an item, of all that reviewers said of it.

By the rule of `decided_labels`: an expert's answer or that to an appeal (the latest of them), then what two agree on,
then the latest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from moderation.labels.decided_labels import decide_labels, given_answers, latest_labels, settle
from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, ContentKey, Decision, group_by_content, standing_decisions

_Key = TypeVar("_Key")


def effective_decisions(outs: Sequence[str]) -> dict[ContentKey, Decision]:
    """Item and content -> the decision that holds, over the decisions of several runs.

    Raises DamagedDecisionsError where a chain is not whole, StorageError.
    """
    return hold([decision for out in dict.fromkeys(outs) for decision in read_decisions(out)])


def hold(decisions: Iterable[Decision]) -> dict[ContentKey, Decision]:
    """The decision that holds for each content of each item."""
    return _settled(group_by_content(standing_decisions(decisions)))


def hold_by(decisions: Iterable[Decision], key: Callable[[Decision], str]) -> dict[str, Decision]:
    """The decision that holds for each key."""
    by_key: defaultdict[str, list[Decision]] = defaultdict(list)
    for decision in standing_decisions(decisions):
        by_key[key(decision)].append(decision)
    return _settled(by_key)


def answers_by_item(decisions: Iterable[Decision]) -> dict[str, Answer]:
    """Item id -> `block` or `pass` by the rule, of the content that was decided last; `escalate` where that is all."""
    listed = list(decisions)
    escalated = {d.item_id: Answer.ESCALATE for d in standing_decisions(listed) if d.decision is Answer.ESCALATE}
    return escalated | {label.item_id: label.holds.decision for label in latest_labels(decide_labels(listed))}


def _settled(groups: Mapping[_Key, Sequence[Decision]]) -> dict[_Key, Decision]:
    answers = {key: given_answers(said) for key, said in groups.items()}
    return {key: settle(own)[0] for key, own in answers.items() if own}

"""What an item waits for, by the answers that it has: a second opinion, an expert, or nobody. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from moderation.labels.decided_labels import is_ruling
from moderation.labels.decisions import Answer, Decision, counted_answers
from moderation.review.items import Stage
from moderation.review.settings import draw

_GIVEN = frozenset({Answer.BLOCK, Answer.PASS})


def needs_second(item_id: str, first: Decision, *, severe: bool, audit: bool, share: float, salt: str) -> bool:
    """Whether one answer is not enough: a severe block, an item of the audit, or drawn by the keyed hash of its id."""
    if audit or (severe and first.decision is Answer.BLOCK):
        return True
    return draw(salt, "second", item_id) < share


def stage_of(
    item_id: str, standing: Sequence[Decision], *, severe: bool, audit: bool, share: float, salt: str
) -> Stage:
    """What the item waits for. standing: its decisions that count. severe: by its severity, or a word of an answer.

    Answers of an audit agree where their words do; elsewhere where block or pass do.
    """
    answers = counted_answers(standing)
    if not answers:
        return Stage.OPEN
    if {answer.decision for answer in answers if is_ruling(answer)} & _GIVEN:
        return Stage.SETTLED
    said = {_says(answer, audit) for answer in answers}
    if len(said) > 1 or answers[0].decision is Answer.ESCALATE:
        return Stage.EXPERT
    if len(answers) > 1:
        return Stage.SETTLED
    if needs_second(item_id, answers[0], severe=severe, audit=audit, share=share, salt=salt):
        return Stage.SECOND
    return Stage.SETTLED


def _says(answer: Decision, audit: bool) -> tuple[Answer, frozenset[str]]:
    return answer.decision, frozenset(answer.labels) if audit else frozenset()

"""Decisions to labels, by one rule: an expert's answer, else what two agree on, else the latest single one. Pure.

Undone decisions, skips, escalations and hidden items do not count; the answer to an appeal counts as an expert's, and
of several such the latest holds. Of each other reviewer the latest answer counts. Of an item of the audit every answer
is kept, because certificates ask for more: two answers that agree, or an expert (`resolve_labels`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moderation.labels.decisions import (
    Answer,
    Decision,
    DecisionSource,
    counted_answers,
    decisions_on,
    group_by_content,
    standing_decisions,
)
from moderation.labels.rows import KEYS, LabelRow

_GIVEN = frozenset({Answer.BLOCK, Answer.PASS})


class LabelRule(StrEnum):
    """Why a label holds."""

    EXPERT = "expert"
    AGREED = "two agree"
    LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedLabel:
    """The label of a content of an item. holds: the decision whose words are the label.

    content_hash: None: nobody named it. answers: that count, one a reviewer.
    is_audit: its answers may certify. is_disputed: not all answers are the same.
    """

    item_id: str
    content_hash: str | None = None
    holds: Decision
    rule: LabelRule
    answers: tuple[Decision, ...]

    @property
    def label(self) -> str:
        """`pass`, `block`, or with the reviewer's words `block|explicit`."""
        return label_text(self.holds)

    @property
    def is_audit(self) -> bool:
        """Whether an answer is of the audit."""
        return any(answer.source is DecisionSource.AUDIT for answer in self.answers)

    @property
    def is_disputed(self) -> bool:
        """Whether reviewers said block and pass."""
        return len({answer.decision for answer in self.answers}) > 1


def decide_labels(decisions: Iterable[Decision]) -> list[DecidedLabel]:
    """One label per content of an item that has an answer, in the order of first decisions.

    Decisions come in the order in which they were made.
    """
    by_item: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_item.setdefault(decision.item_id, []).append(decision)
    standing = [decision for own in by_item.values() for decision in standing_decisions(own)]
    labels = (_label_of(item_id, content, said) for (item_id, content), said in group_by_content(standing).items())
    return [label for label in labels if label is not None]


def label_on(standing: Sequence[Decision], item_id: str, content_hash: str | None) -> DecidedLabel | None:
    """The label of a content of an item, also of one that no decision names; None where no answer holds for it.

    standing: of the item, without those that were undone, in order.
    """
    return _label_of(item_id, content_hash, decisions_on(standing, content_hash))


def _label_of(item_id: str, content_hash: str | None, said: Sequence[Decision]) -> DecidedLabel | None:
    answers = given_answers(said)
    if not answers:
        return None
    holds, rule = settle(answers)
    return DecidedLabel(item_id=item_id, content_hash=content_hash, holds=holds, rule=rule, answers=tuple(answers))


def latest_labels(labels: Iterable[DecidedLabel]) -> list[DecidedLabel]:
    """One label per item: of the content that was decided last, for those who fetch what is at a URI now."""
    latest: dict[str, DecidedLabel] = {}
    for label in labels:
        known = latest.get(label.item_id)
        if known is None or known.holds.decided_at <= label.holds.decided_at:
            latest[label.item_id] = label
    return list(latest.values())


def label_rows(
    labels: Iterable[DecidedLabel], *, keys: Collection[str] = ("item_id", "content_hash")
) -> list[LabelRow]:
    """Rows of a labels file.

    Of an item of the audit a row per answer; of others a row per answer that agrees with the label. keys: by which
    items are found. Not by URI unless asked: another picture may lie there by now.
    """
    return [_row(label, answer, keys) for label in labels for answer in _kept(label)]


def training_rows(labels: Iterable[DecidedLabel]) -> list[Mapping[str, str]]:
    """One row per item to learn from, of the content decided last.

    `uri`, `item_id`, `group`, `rule`, and `label`: words, else `block` or `pass`.
    Without the audit: its labels can't certify what has learned from them.
    """
    return [
        {
            "uri": label.holds.uri,
            "item_id": label.item_id,
            "label": "|".join(label.holds.labels) or str(label.holds.decision),
            "group": label.holds.group_id or "",
            "content_hash": label.holds.content_hash or "",
            "rule": str(label.rule),
        }
        for label in latest_labels(labels)
        if not label.is_audit
    ]


def label_text(decision: Decision) -> str:
    """The answer and its words; the answer first, so that a word that a policy does not know cannot make it fine."""
    return "|".join((str(decision.decision), *decision.labels))


def is_ruling(answer: Decision) -> bool:
    """Whether an answer settles an item: an expert's, or that of an appeal."""
    return answer.expert or answer.source is DecisionSource.APPEAL


def given_answers(standing: Iterable[Decision]) -> list[Decision]:
    """The answers that count, one a reviewer, by their times: the latest, or the latest ruling of who has ruled."""
    given = sorted((d for d in standing if d.decision in _GIVEN), key=lambda decision: decision.decided_at)
    given = [decision for decision in given if decision.source is not DecisionSource.HIDDEN]
    ruled = {decision.reviewer for decision in given if is_ruling(decision)}
    return counted_answers(d for d in given if is_ruling(d) or d.reviewer not in ruled)


def settle(answers: Sequence[Decision]) -> tuple[Decision, LabelRule]:
    """Which of the answers that count holds, and why; there is one at least."""
    rulings = [answer for answer in answers if is_ruling(answer)]
    if rulings:
        return rulings[-1], LabelRule.EXPERT
    ranked = Counter(answer.decision for answer in answers).most_common()
    decision, count = ranked[0]
    if count > 1 and (len(ranked) == 1 or ranked[1][1] < count):
        return [answer for answer in answers if answer.decision is decision][-1], LabelRule.AGREED
    return answers[-1], LabelRule.LATEST


def _kept(label: DecidedLabel) -> Sequence[Decision]:
    if label.is_audit:
        return label.answers
    if label.rule is LabelRule.LATEST:
        return [label.holds]
    agreeing = [answer for answer in label.answers if answer.decision is label.holds.decision]
    # The one that holds comes last: of two experts the later one is right.
    return [*[answer for answer in agreeing if answer is not label.holds], label.holds]


def _row(label: DecidedLabel, answer: Decision, keys: Collection[str]) -> LabelRow:
    content = answer.content_hash or label.content_hash or ""
    values = {"item_id": answer.item_id, "uri": answer.uri, "content_hash": content}
    return LabelRow(
        keys={name: values[name] for name in KEYS if name in keys and values[name]},
        label=label_text(answer) if label.is_audit else label.label,
        reviewer=answer.reviewer,
        source=str(answer.source),
        expert=is_ruling(answer),
    )

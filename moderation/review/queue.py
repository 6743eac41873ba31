"""The queue: what each item waits for, and which rows come next for a reviewer. No files; not for several threads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from moderation.hashes.search import I64
from moderation.labels.decided_labels import is_ruling
from moderation.labels.decisions import (
    Answer,
    Decision,
    DecisionSource,
    counted_answers,
    decisions_on,
    standing_decisions,
)
from moderation.review.appeals import Appeal
from moderation.review.filters import QueueFilter
from moderation.review.items import Stage
from moderation.review.second import stage_of
from moderation.review.settings import ReviewSettings
from moderation.review.verdict_rows import Flags, VerdictRows

_STAGES = tuple(Stage)
_CODE = {stage: code for code, stage in enumerate(_STAGES)}


class ReviewQueue:
    """Items with their stages, kept up to date as decisions come in.

    severe_levels: of the policy. severe_words: checks of those levels; an answer that names one is severe.
    """

    def __init__(
        self,
        rows: VerdictRows,
        settings: ReviewSettings,
        *,
        severe_levels: Sequence[str],
        severe_words: Collection[str],
        appeals: Iterable[Appeal] = (),
    ) -> None:
        self.rows = rows
        self.severe: Flags = rows.severe(severe_levels)
        self._settings = settings
        self._severe_words = frozenset(severe_words)
        self._stages = np.full(len(rows), _CODE[Stage.OPEN], np.int8)
        self._known = self._none()
        self._decisions: dict[int, list[Decision]] = {}
        self._answered: dict[str, Flags] = {}
        self._skipped: dict[str, Flags] = {}
        self._chosen: dict[QueueFilter, Flags] = {}
        self._appeals: dict[int, Appeal] = {}
        for appeal in appeals:
            row = rows.row_of.get(appeal.item_id)
            if row is not None:
                self._appeals[row] = appeal  # the latest counts

    def apply(self, decisions: Iterable[Decision]) -> None:
        """Take decisions into account, in order; those of items that are not in the queue change nothing."""
        touched: dict[int, set[str]] = {}
        for decision in decisions:
            row = self.rows.row_of.get(decision.item_id)
            if row is not None:
                self._decisions.setdefault(row, []).append(decision)
                touched.setdefault(row, set()).add(decision.reviewer)
        for row, reviewers in touched.items():
            self._update(row, reviewers)

    def stage(self, row: int) -> Stage:
        """What an item waits for, its appeals left aside."""
        return _STAGES[int(self._stages[row])]

    def answers(self, row: int) -> list[Decision]:
        """The answers that count, the latest of each reviewer."""
        return counted_answers(self.standing(row))

    def standing(self, row: int, more: Iterable[Decision] = ()) -> list[Decision]:
        """All decisions of an item that were not undone, in order. more: such as are not yet applied, of any items.

        OUT may have decisions of an earlier run on what lay at the same URI then: those of other content are left out.
        """
        own = [decision for decision in more if decision.item_id == self.rows.item_ids[row]]
        content = self.rows.content_of(row)
        standing = standing_decisions([*self._decisions.get(row, ()), *own])
        return standing if content is None else decisions_on(standing, content)

    def find(self, row: int, decision_id: str) -> Decision | None:
        """A decision of an item by its id."""
        return next((d for d in self._decisions.get(row, ()) if d.decision_id == decision_id), None)

    def open_appeal(self, row: int) -> Appeal | None:
        """The appeal of an item that nobody has decided."""
        appeal = self._appeals.get(row)
        if appeal is None or any(appeal.is_decided_by(decision) for decision in self.standing(row)):
            return None
        return appeal

    def is_blind(self, row: int, reviewer: str) -> bool:
        """Whether the reviewer must not see what the machine made of the item: of the audit, and not yet answered."""
        return bool(self.rows.audit[row]) and not self._answered_by(reviewer)[row]

    def chosen(self, wanted: QueueFilter) -> Flags:
        """bool [N]: what a filter chooses, whatever its stage."""
        if wanted not in self._chosen:
            if len(self._chosen) >= 64:
                self._chosen.clear()
            self._chosen[wanted] = self.rows.chosen(wanted)
        return self._chosen[wanted]

    def waiting(self, reviewer: str, wanted: QueueFilter, *, expert: bool) -> I64:
        """int64 [M]: rows that wait for this reviewer, in order; claims are not looked at."""
        free = self.chosen(wanted).copy()
        if wanted.appeals:
            free &= self._with_open_appeals(reviewer)
        elif wanted.undecided:
            free &= self._waits_for(reviewer, expert=expert)
        if wanted.tells_verdict:
            free &= ~self.rows.audit | self._answered_by(reviewer)
        order = self.rows.order if wanted.order == "rank" else self.rows.order[::-1]
        return order[free[order]]

    def settled(self, reviewer: str, wanted: QueueFilter) -> I64:
        """int64 [M]: rows whose answer is known, by an expert or by two, and that this reviewer has not answered."""
        known = self._known & self.chosen(wanted) & ~self._answered_by(reviewer)
        if wanted.tells_verdict:
            known &= ~self.rows.audit
        return np.flatnonzero(known).astype(np.int64)

    def known_answer(self, row: int) -> Answer | None:
        """What an expert or an appeal, or two reviewers who agree, said of an item; None where none did."""
        answers = self.answers(row)
        ruled = [answer.decision for answer in answers if is_ruling(answer)]
        if ruled:
            return ruled[-1]
        said = {answer.decision for answer in answers}
        return said.pop() if len(said) == 1 and len(answers) > 1 else None

    def count(self, wanted: QueueFilter) -> dict[Stage, int]:
        """How many of the chosen items are in each stage."""
        numbers = np.bincount(self._stages[self.chosen(wanted)], minlength=len(_STAGES)).tolist()
        return dict(zip(_STAGES, numbers, strict=True))

    def open_appeals(self, wanted: QueueFilter) -> int:
        """How many items have an appeal that nobody has decided. wanted: whatever else it chooses by than appeals."""
        of = self.chosen(replace(wanted, appeals=True))
        return sum(bool(of[row]) and self.open_appeal(row) is not None for row in self._appeals)

    def _waits_for(self, reviewer: str, *, expert: bool) -> Flags:
        wanted = [_CODE[Stage.OPEN], _CODE[Stage.SECOND], *([_CODE[Stage.EXPERT]] if expert else [])]
        waits: Flags = np.isin(self._stages, wanted)
        return waits & ~self._answered_by(reviewer) & ~self._skipped.get(reviewer, self._none())

    def _with_open_appeals(self, reviewer: str) -> Flags:
        flags = self._none()
        for row in self._appeals:
            # Who has answered it before must not judge the appeal.
            flags[row] = self.open_appeal(row) is not None and not self._answered_by(reviewer)[row]
        return flags & ~self._skipped.get(reviewer, self._none())

    def _answered_by(self, reviewer: str) -> Flags:
        return self._answered.get(reviewer, self._none())

    def _none(self) -> Flags:
        return np.zeros(len(self.rows), np.bool_)

    def _update(self, row: int, reviewers: Iterable[str]) -> None:
        standing = self.standing(row)
        words = {word for decision in standing for word in decision.labels}
        stage = stage_of(
            self.rows.item_ids[row],
            standing,
            severe=bool(self.severe[row]) or bool(words & self._severe_words),
            audit=bool(self.rows.audit[row]),
            share=self._settings.second_share,
            salt=self._settings.salt,
        )
        self._stages[row] = _CODE[stage]
        self._known[row] = stage is Stage.SETTLED and self.known_answer(row) is not None
        for reviewer in reviewers:
            own = [decision for decision in standing if decision.reviewer == reviewer]
            said = any(decision.decision is not Answer.SKIP for decision in own)
            self._flag(self._answered, reviewer)[row] = said
            self._flag(self._skipped, reviewer)[row] = bool(own) and not said

    def _flag(self, flags: dict[str, Flags], reviewer: str) -> Flags:
        return flags.setdefault(reviewer, self._none())


def space_out(rows: I64, severe: Flags, wanted: int, *, in_row: int, run: int) -> list[int]:
    """The first `wanted` of `rows`, where after `in_row` severe ones the next that is not severe comes first.

    severe: bool [N], by row. run: severe ones that came last before these. Where none is left that is not severe, the
    severe ones go on.
    """
    flags = severe[rows]
    hard, soft = np.flatnonzero(flags), np.flatnonzero(~flags)
    picked: list[int] = []
    at_hard = at_soft = 0
    while len(picked) < min(wanted, len(rows)):
        has_hard, has_soft = at_hard < len(hard), at_soft < len(soft)
        takes_hard = has_hard and (not has_soft or (run < in_row and hard[at_hard] < soft[at_soft]))
        if takes_hard:
            picked.append(int(rows[hard[at_hard]]))
            at_hard, run = at_hard + 1, run + 1
        else:
            picked.append(int(rows[soft[at_soft]]))
            at_soft, run = at_soft + 1, 0
    return picked


def source_of(stage: Stage, *, audit: bool, saw_verdict: bool) -> DecisionSource:
    """Why a decision was made, as it is kept. An answer of the audit counts as one only if the verdict was not seen."""
    if stage is Stage.HIDDEN:
        return DecisionSource.HIDDEN
    if stage is Stage.APPEAL:
        return DecisionSource.APPEAL
    if audit and not saw_verdict:
        return DecisionSource.AUDIT
    return DecisionSource.SECOND if stage in (Stage.SECOND, Stage.EXPERT) else DecisionSource.QUEUE

"""Which items a reviewer gets next, and why each: by rank, with near-copies, severe ones spaced out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np

from moderation.hashes.search import I64
from moderation.review.filters import QueueFilter
from moderation.review.items import Stage
from moderation.review.queue import ReviewQueue, space_out
from moderation.review.settings import ReviewSettings, draw
from moderation.review.verdict_rows import Flags

_MAX_COPIES: Final = 36  # of one picture that are handed out together

Picked = list[tuple[int, Stage]]


class Picking:
    """Picks rows; remembers what each reviewer got last. Not for several threads."""

    def __init__(self, queue: ReviewQueue, settings: ReviewSettings) -> None:
        self._queue = queue
        self._settings = settings
        self._slots: dict[str, int] = {}
        self._severe_run: dict[str, int] = {}

    def pick(self, reviewer: str, wanted: int, filters: QueueFilter, held: Collection[str], decided: int) -> Picked:
        """The next rows, and why each is handed out. held: items that somebody has. decided: by this reviewer."""
        if wanted <= 0:
            return []
        queue, rows = self._queue, self._queue.rows
        waiting = queue.waiting(reviewer, filters, expert=reviewer in self._settings.experts)
        free = np.zeros(len(rows), np.bool_)
        free[waiting] = True
        free[[rows.row_of[item] for item in held if item in rows.row_of]] = False
        picked = self._space_out(reviewer, waiting[free[waiting]], wanted)
        stage = Stage.APPEAL if filters.appeals else None
        chosen = [(member, stage or queue.stage(member)) for row in picked for member in self._with_copies(row, free)]
        return self._with_hidden(reviewer, filters, held, chosen, decided)

    def _space_out(self, reviewer: str, waiting: I64, wanted: int) -> list[int]:
        """The first of each set of near-copies."""
        if not len(waiting):
            return []
        numbers = self._queue.rows.copies[waiting]
        heads = waiting[np.r_[True, numbers[1:] != numbers[:-1]]]
        run = self._severe_run.get(reviewer, 0)
        picked = space_out(heads, self._queue.severe, wanted, in_row=self._settings.severe_in_row, run=run)
        for row in picked:
            run = run + 1 if self._queue.severe[row] else 0
        self._severe_run[reviewer] = run
        return picked

    def _with_copies(self, row: int, free: Flags) -> list[int]:
        others = self._queue.rows.members.get(int(self._queue.rows.copies[row]), ())
        return [row, *[other for other in others if other != row and free[other]][: _MAX_COPIES - 1]]

    def _with_hidden(
        self, reviewer: str, filters: QueueFilter, held: Collection[str], chosen: Picked, decided: int
    ) -> Picked:
        """Now and then an item whose answer is known comes before another."""
        first = self._slots.get(reviewer, decided)
        self._slots[reviewer] = first + len(chosen)
        if filters.appeals or not filters.undecided:
            return chosen
        salt, share = self._settings.salt, self._settings.hidden_share
        drawn = [n for n in range(len(chosen)) if draw(salt, "hidden", reviewer, str(first + n)) < share]
        if not drawn:
            return chosen
        ids = self._queue.rows.item_ids
        known = [int(row) for row in self._queue.settled(reviewer, filters) if ids[row] not in held]
        mixed = list(chosen)
        for place in reversed(drawn[: len(known)]):
            row = known.pop(int(draw(salt, "which", reviewer, str(first + place)) * len(known)))
            mixed.insert(place, (row, Stage.HIDDEN))
        return mixed

"""Which decisions of a batch may be taken, and what the server knows of each that the page does not. No files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from moderation.errors import UsageError, one_line
from moderation.labels.decisions import Answer, Decision, DecisionSource, check_decision
from moderation.pages.text import short_line
from moderation.review.appeals import APPEAL
from moderation.review.claims import ClaimBook
from moderation.review.items import Stage
from moderation.review.outcomes import Refusal, RefusedDecision
from moderation.review.queue import ReviewQueue, source_of
from moderation.review.settings import check_reviewer

# Keys of `shown` that tell what the machine made of an item.
MACHINE: frozenset[str] = frozenset({"verdict", "score", "scores", "reason", "check", "label", "severity"})


class Taking:
    """Checks decisions against claims and earlier ones. Not for several threads."""

    def __init__(self, queue: ReviewQueue, claims: ClaimBook, experts: Collection[str]) -> None:
        self._queue = queue
        self._claims = claims
        self._experts = frozenset(experts)
        self._seen: set[tuple[str, int]] = set()

    def note_seen(self, reviewer: str, row: int) -> None:
        """The reviewer has been shown what the machine made of this item of the audit."""
        self._seen.add((reviewer, row))

    def sort_out(self, decisions: Sequence[Decision]) -> tuple[list[Decision], list[str], list[RefusedDecision]]:
        """Decisions to write, complete; ids that are there already; and what is refused."""
        accepted: dict[str, Decision] = {}
        repeated: list[str] = []
        refused: list[RefusedDecision] = []
        used: set[tuple[str | None, str]] = set()
        for decision in decisions:
            result = self._take(decision, accepted, used)
            if isinstance(result, Decision):
                accepted[decision.decision_id] = result
                used.add((decision.claim, decision.item_id))
            elif result is None:
                repeated.append(decision.decision_id)
            else:
                refused.append(result)
        return list(accepted.values()), repeated, refused

    def stage_again(self, target: Decision) -> Stage:
        """Why the item of an undone decision is handed out again."""
        if target.source is DecisionSource.HIDDEN:
            return Stage.HIDDEN
        row = self._queue.rows.row_of[target.item_id]
        if target.source is DecisionSource.APPEAL and self._queue.open_appeal(row) is not None:
            return Stage.APPEAL
        return self._queue.stage(row)

    def _take(
        self, decision: Decision, accepted: dict[str, Decision], used: Collection[tuple[str | None, str]]
    ) -> Decision | RefusedDecision | None:
        try:
            check_decision(decision)
            check_reviewer(decision.reviewer)
        except UsageError as error:
            return _refuse(decision, Refusal.INVALID, one_line(error))
        row = self._queue.rows.row_of.get(decision.item_id)
        if row is None:
            return _refuse(decision, Refusal.UNKNOWN_ITEM, "no such item in this queue")
        known = self._queue.find(row, decision.decision_id) or accepted.get(decision.decision_id)
        if known is not None:
            same = (known.item_id, known.decision, known.reviewer) == (
                decision.item_id,
                decision.decision,
                decision.reviewer,
            )
            return None if same else _refuse(decision, Refusal.CONFLICT, "its id is there with another answer")
        if decision.undoes is not None:
            return self._take_change(decision, row, accepted.values())
        return self._take_claimed(decision, row, used)

    def _take_change(self, decision: Decision, row: int, before: Iterable[Decision]) -> Decision | RefusedDecision:
        """before: of the same batch; a reviewer may take back what a page has not yet sent."""
        standing = {kept.decision_id: kept for kept in self._queue.standing(row, before)}
        target = standing.get(decision.undoes or "")
        if target is None or target.reviewer != decision.reviewer:
            return _refuse(decision, Refusal.NOT_YOURS, "there is no such decision of this reviewer to take back")
        appeal = {APPEAL: target.shown[APPEAL]} if APPEAL in target.shown else {}
        source = target.source
        if source is DecisionSource.AUDIT and self._saw_verdict(decision, row):
            source = DecisionSource.QUEUE
        return self._complete(replace(decision, shown={**decision.shown, **appeal}), row, source)

    def _take_claimed(
        self, decision: Decision, row: int, used: Collection[tuple[str | None, str]]
    ) -> Decision | RefusedDecision:
        claim = self._claims.get(decision.claim or "")
        if claim is None:
            return _refuse(decision, Refusal.CLAIM_UNKNOWN, "no such claim, or it ended; ask for the next items")
        if claim.reviewer != decision.reviewer:
            return _refuse(decision, Refusal.CLAIM_OF_ANOTHER, "this claim is another reviewer's")
        stage = claim.items.get(decision.item_id)
        if stage is None or (decision.claim, decision.item_id) in used:
            return _refuse(decision, Refusal.CLAIM_TAKEN, "the item is not in this claim any more")
        appeal = self._queue.open_appeal(row) if stage is Stage.APPEAL else None
        shown = dict(decision.shown)
        if appeal is not None:
            shown[APPEAL] = appeal.appeal
        audit = bool(self._queue.rows.audit[row])
        source = source_of(stage, audit=audit, saw_verdict=self._saw_verdict(decision, row))
        return self._complete(replace(decision, shown=shown), row, source)

    def _saw_verdict(self, decision: Decision, row: int) -> bool:
        return (decision.reviewer, row) in self._seen or bool(MACHINE & decision.shown.keys())

    def _complete(self, decision: Decision, row: int, source: DecisionSource) -> Decision:
        cells = self._queue.rows.keys_of(row)
        return replace(decision, **cells, source=source, expert=decision.reviewer in self._experts)


def undo_of(target: Decision, now_s: float) -> Decision:
    """The decision that takes another one back. now_s: Unix seconds."""
    return replace(
        target,
        decision_id=f"undo:{hashlib.sha256(target.decision_id.encode()).hexdigest()[:32]}",
        decision=Answer.SKIP,
        decided_at=datetime.fromtimestamp(now_s, UTC),
        labels=(),
        reason="",
        comment="",
        exposure_s=None,
        shown={},
        undoes=target.decision_id,
    )


def _refuse(decision: Decision, code: Refusal, message: str) -> RefusedDecision:
    return RefusedDecision(decision_id=short_line(str(decision.decision_id), 128), code=code, message=message)

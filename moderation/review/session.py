"""A review of one run: hands out items, takes decisions, takes them back. What the reviewers' page drives.

    with open_session(out, ReviewSettings(experts=frozenset({"eve"}))) as session:
        offers = session.next_items("ann", 20)
        outcome = session.decide([Decision(..., claim=offers[0].claim)])

Calls may come from several threads. A decision that `decide` reports as taken is on disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.labels.decision_store import DecisionLog, open_decisions
from moderation.labels.decisions import Decision, standing_decisions
from moderation.policy.model import SEVERITIES
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.review.appeals import read_appeals
from moderation.review.claims import ClaimBook, ItemClaim
from moderation.review.filters import QueueFilter
from moderation.review.items import Offer, QueueItem, Stage, blinded
from moderation.review.outcomes import DecideOutcome, ReviewerProgress, ReviewProgress, pace_per_minute
from moderation.review.picking import Picked, Picking
from moderation.review.queue import ReviewQueue
from moderation.review.settings import MAX_BATCH, MAX_UNDO, ReviewSettings, check_reviewer
from moderation.review.taking import Taking, undo_of
from moderation.review.verdict_rows import read_verdict_rows

_LOG = logging.getLogger(__name__)
_EVERYTHING: Final = QueueFilter()


class ReviewSession:
    """The state of a review; see the functions."""

    def __init__(
        self,
        queue: ReviewQueue,
        log: DecisionLog,
        claims: ClaimBook,
        settings: ReviewSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._queue = queue
        self._log = log
        self._claims = claims
        self._clock = clock
        self._lock = threading.RLock()
        self._own: dict[str, list[Decision]] = {}
        self._picking = Picking(queue, settings)
        self._taking = Taking(queue, claims, settings.experts)
        earlier = log.decisions()
        self._apply(earlier)
        for decision in earlier:
            claims.drop_decided(decision.claim, decision.item_id)

    def next_items(
        self, reviewer: str, n: int = 20, filters: QueueFilter = _EVERYTHING, have: Collection[str] = ()
    ) -> tuple[Offer, ...]:
        """About `n` items that this reviewer holds from now on; near-copies of one come along. Empty: nothing waits.

        have: ids of items that the reviewer's page has already; items that are held but not among them come first, so
        that a page that is loaded again gets them back. Raises UsageError for a name or a number out of bounds.
        """
        check_reviewer(reviewer)
        if not 1 <= n <= MAX_BATCH:
            raise UsageError(f"{n} items at once: 1 to {MAX_BATCH}")
        with self._lock:
            now_s = self._clock()
            self._claims.renew(reviewer, now_s)
            own = self._claims.own(reviewer, now_s)
            again = self._held_again(own, filters, have)[:n]
            held = {*own, *self._claims.others(reviewer, now_s)}
            decided = len(self._own.get(reviewer, ()))
            rows = self._picking.pick(reviewer, n - len(again), filters, held, decided)
            fresh = self._hand_out(reviewer, rows, now_s) if rows else []
            return self._offers(reviewer, [*again, *fresh])

    def decide(self, decisions: Sequence[Decision]) -> DecideOutcome:
        """Take decisions, each by itself; those that are reported as taken are on disk.

        The caller sets decision_id, item_id, decision, reviewer, decided_at, labels, reason, comment, exposure_s,
        shown, claim, and `undoes` to change an earlier answer (which needs no claim); the rest is filled in here.
        Raises FatalError where OUT cannot be written, StorageError; then nothing of it is taken, and it may be sent
        again.
        """
        with self._lock:
            now_s = self._clock()
            for reviewer in {decision.reviewer for decision in decisions}:
                self._claims.renew(reviewer, now_s)
            accepted, repeated, refused = self._taking.sort_out(decisions)
        appended = self._log.append(accepted)
        kept = (*appended.found, *appended.written)
        with self._lock:
            self._apply(kept)
            for decision in kept:
                self._claims.drop_decided(decision.claim, decision.item_id)
        return DecideOutcome(
            taken=tuple(decision.decision_id for decision in appended.written),
            repeated=(*repeated, *appended.repeated),
            refused=tuple(refused),
        )

    def undo(self, reviewer: str, n: int = 1) -> tuple[Offer, ...]:
        """Take back the reviewer's last `n` decisions (at most MAX_UNDO); their items are handed out again.

        The last one comes first. An item that somebody else holds by now is left out. Raises as `decide`.
        """
        check_reviewer(reviewer)
        if not 1 <= n <= MAX_UNDO:
            raise UsageError(f"undo of {n}: 1 to {MAX_UNDO}")
        with self._lock:
            targets = standing_decisions(self._own.get(reviewer, ()))[-n:][::-1]
            rows = [undo_of(target, self._clock()) for target in targets]
        self._log_and_apply(rows)
        return self._hold(reviewer, targets)

    def hold_again(self, reviewer: str, item_ids: Sequence[str]) -> tuple[Offer, ...]:
        """Items whose decisions a reviewer has undone are theirs again, unless somebody else holds them by now.

        In the order of `item_ids`; items that this reviewer never decided are left out. Raises FatalError,
        StorageError.
        """
        with self._lock:
            latest = {d.item_id: d for d in self._own.get(reviewer, ()) if d.undoes is None}
        return self._hold(reviewer, [latest[item_id] for item_id in item_ids if item_id in latest])

    def claim_of(self, reviewer: str, item_id: str) -> str | None:
        """The claim by which a reviewer holds an item now."""
        with self._lock:
            held = self._claims.own(reviewer, self._clock()).get(item_id)
            return None if held is None else held[0].claim

    def item(self, reviewer: str, item_id: str) -> QueueItem:
        """An item as this reviewer may see it now. Raises UsageError where there is no such item."""
        with self._lock:
            row = self._queue.rows.row_of.get(item_id)
            if row is None:
                raise UsageError(f"no item {item_id[:60]!r} in this queue")
            return self._shown([row], reviewer)[0]

    def release(self, reviewer: str) -> None:
        """Give back what a reviewer holds."""
        with self._lock:
            self._claims.release(reviewer, self._clock())

    def progress(self, filters: QueueFilter = _EVERYTHING) -> ReviewProgress:
        """How far the review is, over the chosen items."""
        with self._lock:
            now_s = self._clock()
            counts = self._queue.count(filters)
            names = sorted({*self._own, *self._claims.holders(now_s)})
            return ReviewProgress(
                total=sum(counts.values()),
                by_stage=counts,
                appeals=self._queue.open_appeals(filters),
                reviewers=tuple(self._progress_of(name, now_s) for name in names),
            )

    def _hold(self, reviewer: str, targets: Sequence[Decision]) -> tuple[Offer, ...]:
        """The items of these undone decisions, for their reviewer, without those that somebody else holds by now."""
        with self._lock:
            now_s = self._clock()
            rows = self._queue.rows.row_of
            free = {
                target.item_id: self._taking.stage_again(target)
                for target in targets
                if self._claims.held_by(target.item_id, now_s) in (None, reviewer) and target.item_id in rows
            }
            if not free:
                return ()
            claim = self._claims.make(reviewer, free, now_s)
            return self._offers(reviewer, [(rows[item_id], claim.claim, stage) for item_id, stage in free.items()])

    def _progress_of(self, reviewer: str, now_s: float) -> ReviewerProgress:
        standing = standing_decisions(self._own.get(reviewer, ()))
        return ReviewerProgress(
            reviewer=reviewer,
            decided=len(standing),
            per_minute=pace_per_minute(standing, now_s),
            holding=len(self._claims.own(reviewer, now_s)),
        )

    def _held_again(
        self, own: Mapping[str, tuple[ItemClaim, Stage]], filters: QueueFilter, have: Collection[str]
    ) -> list[tuple[int, str, Stage]]:
        """What a reviewer holds and the page does not have."""
        chosen, row_of = self._queue.chosen(filters), self._queue.rows.row_of
        lost = [(row_of[item], by) for item, by in own.items() if item not in have and item in row_of]
        return [
            (row, claim.claim, stage)
            for row, (claim, stage) in lost
            if chosen[row] and (stage is Stage.APPEAL) == filters.appeals
        ]

    def _hand_out(self, reviewer: str, rows: Picked, now_s: float) -> list[tuple[int, str, Stage]]:
        ids = self._queue.rows.item_ids
        claim = self._claims.make(reviewer, {ids[row]: stage for row, stage in rows}, now_s)
        return [(row, claim.claim, stage) for row, stage in rows]

    def _offers(self, reviewer: str, held: Sequence[tuple[int, str, Stage]]) -> tuple[Offer, ...]:
        items = self._shown([row for row, _, _ in held], reviewer)
        ends_s = self._clock() + self.settings.claim_s
        return tuple(
            Offer(
                item=item,
                claim=claim,
                expires_s=ends_s,
                stage=Stage.OPEN if stage is Stage.HIDDEN else stage,
                earlier=self._earlier(row) if stage is Stage.EXPERT else (),
                appeal=self._appeal_text(row) if stage is Stage.APPEAL else None,
            )
            for item, (row, claim, stage) in zip(items, held, strict=True)
        )

    def _shown(self, rows: Sequence[int], reviewer: str) -> list[QueueItem]:
        shown = []
        for row, item in zip(rows, self._queue.rows.items(rows), strict=True):
            blind = self._queue.is_blind(row, reviewer)
            if item.audit and not blind:
                self._taking.note_seen(reviewer, row)
            shown.append(blinded(item) if blind else item)
        return shown

    def _earlier(self, row: int) -> tuple[str, ...]:
        # Without names: an expert judges the item.
        return tuple(" ".join((answer.decision, *answer.labels)) for answer in self._queue.answers(row))

    def _appeal_text(self, row: int) -> str | None:
        appeal = self._queue.open_appeal(row)
        return None if appeal is None else appeal.text

    def _log_and_apply(self, decisions: Sequence[Decision]) -> None:
        appended = self._log.append(decisions)
        with self._lock:
            self._apply((*appended.found, *appended.written))

    def _apply(self, decisions: Sequence[Decision]) -> None:
        self._queue.apply(decisions)
        for decision in decisions:
            self._own.setdefault(decision.reviewer, []).append(decision)


@contextmanager
def open_session(
    out: str, settings: ReviewSettings | None = None, *, clock: Callable[[], float] = time.time
) -> Iterator[ReviewSession]:
    """Hold the review of a run for the length of a block.

    Raises UsageError where OUT is not of a run or too large, LeaseHeldError where another process reviews it,
    DamagedDecisionsError where its decisions are not whole, FatalError where it cannot be written, StorageError.
    """
    settings = settings or ReviewSettings()
    run = open_run(out)
    levels, words = severe_of(run, settings)
    rows = read_verdict_rows(run, settings.salt)
    with open_decisions(out) as log:
        queue = ReviewQueue(rows, settings, severe_levels=levels, severe_words=words, appeals=read_appeals(out))
        yield ReviewSession(queue, log, ClaimBook(out, settings.claim_s, clock()), settings, clock)


def severe_of(run: StoredRun, settings: ReviewSettings) -> tuple[tuple[str, ...], frozenset[str]]:
    """(severities that are severe, checks of them), by the run's policy; where that is gone, the highest there is.

    Raises UsageError for a level that the policy does not have.
    """
    try:
        policy = load_policy_of_run(run)
    except UsageError as error:
        _LOG.warning("%s; only %s counts as severe", error, SEVERITIES[-1])
        return SEVERITIES[-1:], frozenset()
    levels = policy.severe_levels
    if settings.severe_from is not None:
        if settings.severe_from not in policy.severities:
            raise UsageError(
                f"severe_from {settings.severe_from!r}: no such severity"
                f"{did_you_mean(settings.severe_from, policy.severities)}"
            )
        levels = policy.severities[policy.severities.index(settings.severe_from) :]
    return levels, frozenset(name for name, check in policy.checks.items() if check.severity in levels)

"""Shards that are run again, and suspect shards that are bisected: who is to blame, and how often is too often."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from moderation.errors import FatalError
from moderation.runtime.bisection import Bisection, StepEnding, codes_by_item
from moderation.runtime.state import Progress, RunTally
from moderation.runtime.worker_pool import Assignment
from moderation.types import Shard

# Shards of lost nodes come back without blame, but not for ever: a shard whose every node goes away is to blame.
MAX_LOSSES = 10
# Suspects among the first shards, or as a share of all, that are the fault of the set-up rather than of items.
MIN_SUSPECTS = 8
MAX_SUSPECTS_SHARE = 0.25
RETRY_WAIT_S = 1.0


@dataclass(slots=True, kw_only=True)
class Retries:
    """Shards that came back from a worker without a receipt.

    A shard that is blamed for it waits a little and is tried again; after `max_attempts` it is a suspect shard.
    """

    max_attempts: int
    tally: RunTally
    progress: Progress
    suspects: int = 0  # shards that were ever suspect
    _waiting: deque[tuple[float, Shard]] = field(default_factory=deque)  # (not before, shard)
    _bisections: deque[Bisection] = field(default_factory=deque)
    _failures: Counter[str] = field(default_factory=Counter)  # by shard
    _losses: Counter[str] = field(default_factory=Counter)  # by shard

    @property
    def pending(self) -> bool:
        """Whether anything is left to run again or to bisect."""
        return bool(self._waiting or self._bisections)

    def next_shard(self, now_s: float) -> Shard | None:
        """A shard to run again whose wait is over."""
        if self._waiting and self._waiting[0][0] <= now_s:
            return self._waiting.popleft()[1]
        return None

    def next_bisection(self) -> Bisection | None:
        """A suspect shard to go on with."""
        return self._bisections.popleft() if self._bisections else None

    def requeue(self, assignment: Assignment, reason: str) -> None:
        """Run again at once, without blame. reason: for the tally; a step of a bisection is not counted."""
        if assignment.bisection is not None:
            self._bisections.appendleft(assignment.bisection)
            return
        self.tally.retries[reason] += 1
        self._waiting.appendleft((0.0, assignment.shard))

    def requeue_lost(self, assignment: Assignment, reason: str, detail: str, now_s: float) -> None:
        """Run again without blame after a loss that was another's fault, but not for ever."""
        shard_id = assignment.shard.shard_id
        if assignment.bisection is None:
            if self._losses[shard_id] >= MAX_LOSSES:
                self.blame_lost(assignment, detail, now_s)
                return
            self._losses[shard_id] += 1
        self.requeue(assignment, reason)

    def blame_lost(self, assignment: Assignment, detail: str, now_s: float) -> None:
        """The worker died of the shard, or was killed because the shard was overdue. Raises FatalError."""
        ending = StepEnding.TIMEOUT if assignment.overdue else StepEnding.DIED
        self.blame(assignment, ending, "" if assignment.bisection is not None else detail, now_s)

    def blame(self, assignment: Assignment, ending: StepEnding, detail: str, now_s: float) -> None:
        """The shard failed. Raises FatalError when so many do that it must be the set-up."""
        if assignment.bisection is not None:
            self.record_step(assignment.bisection, ending, detail)
            return
        shard = assignment.shard
        self._failures[shard.shard_id] += 1
        self.tally.retries[ending] += 1
        attempt = self._failures[shard.shard_id]
        self.progress.note("shard_retry", f"shard {ending} {detail}".strip(), shard=shard.shard_id, attempt=attempt)
        if attempt < self.max_attempts:
            self._waiting.append((now_s + RETRY_WAIT_S * attempt, shard))
            return
        self._bisections.append(Bisection(shard=shard))
        self.suspects += 1
        self._check_setup(f"failed {attempt} times each; the last {ending} {detail}".rstrip())

    def _check_setup(self, failure: str) -> None:
        tried = self.tally.receipts + self.suspects
        if self.suspects >= MIN_SUSPECTS and self.suspects > MAX_SUSPECTS_SHARE * tried:
            raise FatalError(f"{self.suspects} of {tried} shards {failure}: more likely the set-up than the items")

    def record_step(self, bisection: Bisection, ending: StepEnding, detail: str = "") -> None:
        """A step of a bisection ended; its next step waits unless it is done. Raises FatalError."""
        step = bisection.step()
        poison_before = set(bisection.poison)
        bisection.record(ending, detail)
        if ending is not StepEnding.DONE:
            self.tally.retries[f"search:{ending}"] += 1
        shard_id = bisection.shard.shard_id
        new_poison = {i: e for i, e in bisection.poison.items() if i not in poison_before}
        if new_poison:
            self.progress.note("poison", "item set aside", shard=shard_id, items=codes_by_item(new_poison))
        else:
            message = f"{step.action} of {len(step.items)} items ({step.memory} memory): {ending}"
            self.progress.note("search", message, shard=shard_id)
        if not bisection.done:
            self._bisections.appendleft(bisection)

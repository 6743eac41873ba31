"""Shards that are run again, and suspect shards that are bisected: who is to blame, and how often is too often."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from moderation.errors import FatalError, ItemError
from moderation.runtime.bisection import SURVIVED, Bisection, StepEnding, codes_by_item, max_deaths
from moderation.runtime.shard_queue import PlanCounts
from moderation.runtime.state import Progress, RunTally
from moderation.runtime.worker_pool import Assignment
from moderation.types import Shard

# Shards of lost nodes are requeued without blame, but not forever: a shard whose nodes all go away is to blame.
MAX_LOSSES = 10
# The set-up is at fault rather than items when MIN_SUSPECTS shards are suspect, MIN_FAILED_SHARDS have failed (or there
# are no more), two searches could have ended, and nothing has ever succeeded, in this call or earlier ones.
MIN_SUSPECTS = 8
MIN_FAILED_SHARDS = 24
RETRY_WAIT_S = 1.0


class PlannedQueue(Protocol):
    """The shards that nobody has tried yet."""

    def take(self) -> Shard | None:
        """The next one, if one is ready."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether there are no more."""
        ...

    @property
    def planned(self) -> PlanCounts:
        """Counts of the plan so far; those of earlier calls among them."""
        ...


def keep_nowhere(_: Mapping[str, ItemError]) -> None:
    """A `keep_poison` that keeps nothing."""


@dataclass(slots=True, kw_only=True)
class Retries:
    """Shards that came back from a worker without a receipt.

    A blamed shard waits a little and is tried again; after `max_attempts` it is a suspect shard, and searched in turns
    with other work. poison: items that earlier calls set aside. keep_poison: called with all items that are set aside,
    once a success has shown that the set-up is not at fault.
    """

    max_attempts: int
    tally: RunTally
    progress: Progress
    queue: PlannedQueue
    poison: Mapping[str, ItemError] = field(default_factory=dict)
    keep_poison: Callable[[Mapping[str, ItemError]], None] = keep_nowhere
    suspects: int = 0  # shards that were ever suspect
    _succeeded: bool = False
    _unkept: bool = False
    _all_poison: dict[str, ItemError] = field(default_factory=dict)
    _failed_steps: int = 0
    _max_items: int = 1  # of a suspect shard
    _shards_since_step: int = 0
    _waiting: deque[tuple[float, Shard]] = field(default_factory=deque)  # (not before, shard)
    _bisections: deque[Bisection] = field(default_factory=deque)
    _failures: Counter[str] = field(default_factory=Counter)  # by shard
    _losses: Counter[str] = field(default_factory=Counter)  # by shard

    @property
    def pending(self) -> bool:
        """Whether anything is left to run again or to bisect."""
        return bool(self._waiting or self._bisections)

    def __post_init__(self) -> None:
        self._all_poison.update(self.poison)

    @property
    def succeeded(self) -> bool:
        """Whether anything was ever judged: a shard by this call or an earlier one, or some items of a suspect one."""
        return self._succeeded or self.queue.planned.committed_shards > 0

    @property
    def search_is_due(self) -> bool:
        """Whether a suspect shard is to be searched next: in turns with other shards, so that both progress."""
        return bool(self._bisections) and self._shards_since_step > 0 and not self._only_held

    @property
    def _only_held(self) -> bool:
        """Whether all searches would only write error rows, while no success yet rules out a faulty set-up."""
        return not self.succeeded and all(b.judges_nothing for b in self._bisections)

    def take_shard(self, now_s: float) -> Shard | None:
        """A shard to run again, or a new one: new ones first as long as nothing has succeeded."""
        if not self.succeeded and (shard := self._take_new()) is not None:
            return shard
        return self._next_waiting(now_s) or self._take_new()

    def _next_waiting(self, now_s: float) -> Shard | None:
        """A shard to run again whose wait is over."""
        if self._waiting and self._waiting[0][0] <= now_s:
            return self._waiting.popleft()[1]
        return None

    def _take_new(self) -> Shard | None:
        """The next untried shard, without those that `_take_known` takes."""
        while (shard := self.queue.take()) is not None and self._take_known(shard):
            pass
        return shard

    def _take_known(self, shard: Shard) -> bool:
        """Whether a shard holds items that are set aside already; if so, it is queued to run alone, without them."""
        known = {
            item.item_id: self._all_poison[item.item_id] for item in shard.items if item.item_id in self._all_poison
        }
        if known:
            self._bisections.append(Bisection(shard=shard, poison=known))
        return bool(known)

    def next_bisection(self) -> Bisection | None:
        """A suspect shard to go on with."""
        if not self._bisections:
            return None
        if not self.succeeded:
            # Shards that get only error rows come last: if the set-up is at fault, all those rows would be wrong.
            held = [b for b in self._bisections if b.judges_nothing]
            if len(held) == len(self._bisections) and (self._waiting or not self.queue.exhausted):
                return None
            self._bisections = deque([*(b for b in self._bisections if not b.judges_nothing), *held])
        self._shards_since_step = 0
        return self._bisections.popleft()

    def count_shard(self) -> None:
        """Record that other work was handed out."""
        self._shards_since_step += 1

    def record_success(self) -> None:
        """Record that something was judged: so the set-up is not at fault for what was set aside."""
        self._succeeded = True
        self._keep()

    def _keep(self) -> None:
        if self._unkept and self.succeeded:
            self.keep_poison(dict(self._all_poison))
            self._unkept = False

    def requeue(self, assignment: Assignment, reason: str) -> None:
        """Run again at once, without blame. reason: for the tally; a step of a bisection is not counted."""
        if assignment.bisection is not None:
            self._bisections.appendleft(assignment.bisection)
            return
        self.tally.retries[reason] += 1
        self._waiting.appendleft((0.0, assignment.shard))

    def requeue_lost(self, assignment: Assignment, reason: str, detail: str, now_s: float) -> None:
        """Run again without blame after a loss with another cause; after MAX_LOSSES, with blame."""
        shard_id = assignment.shard.shard_id
        if assignment.bisection is None:
            if self._losses[shard_id] >= MAX_LOSSES:
                self.blame_lost(assignment, detail, now_s)
                return
            self._losses[shard_id] += 1
        self.requeue(assignment, reason)

    def blame_lost(self, assignment: Assignment, detail: str, now_s: float) -> None:
        """Blame a shard of which the worker died, or was killed as overdue. Raises FatalError."""
        ending = StepEnding.TIMEOUT if assignment.overdue else StepEnding.DIED
        self.blame(assignment, ending, "" if assignment.bisection is not None else detail, now_s)

    def blame(self, assignment: Assignment, ending: StepEnding, detail: str, now_s: float) -> None:
        """Count a failure of a shard. Raises FatalError when so many fail that the set-up must be at fault."""
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
        self._max_items = max(self._max_items, len(shard.items))
        self._check_setup(f"{ending} {detail}".rstrip())

    def _check_setup(self, failure: str) -> None:
        """Raises FatalError when many shards failed and nothing ever succeeded: the set-up must be at fault."""
        failed = len(self._failures)
        if self.succeeded or self.suspects < MIN_SUSPECTS or self._failed_steps < 2 * max_deaths(self._max_items):
            return
        if failed >= MIN_FAILED_SHARDS or self.queue.exhausted:
            raise FatalError(
                f"{failed} shards failed, {self.suspects} of them {self.max_attempts} times, and none succeeded;"
                f" the last {failure}: more likely the set-up than the items"
            )

    def record_step(self, bisection: Bisection, ending: StepEnding, detail: str = "") -> None:
        """Record how a step of a bisection ended, and queue the bisection unless it is done. Raises FatalError."""
        step = bisection.step()
        poison_before = set(bisection.poison)
        judged_nothing = bisection.judges_nothing
        bisection.record(ending, detail)
        if ending is not StepEnding.DONE:
            self.tally.retries[f"search:{ending}"] += 1
        failed = ending is not StepEnding.DONE or (step.action == "isolated" and detail != SURVIVED)
        if failed:
            self._failed_steps += 1
        elif not judged_nothing:
            self.record_success()
        shard_id = bisection.shard.shard_id
        new_poison = {i: e for i, e in bisection.poison.items() if i not in poison_before}
        if new_poison:
            self._all_poison.update(new_poison)
            self._unkept = True
            self._keep()
            self.progress.note("poison", "item set aside", shard=shard_id, items=codes_by_item(new_poison))
        else:
            message = f"{step.action} of {len(step.items)} items ({step.memory} memory): {ending}"
            self.progress.note("search", message, shard=shard_id)
        if not bisection.done:
            self._bisections.appendleft(bisection)
        if failed:
            self._check_setup(f"{ending} {detail}".rstrip())

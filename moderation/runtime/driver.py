"""The bounded loop: hands shards to workers, takes receipts, and loses nothing when workers die.

A shard whose worker died (or hung, or raised) is tried again; after `shard_attempts` it is a suspect shard: one worker,
which does nothing else meanwhile, bisects it for the guilty items (`bisection.py`), in turns with other work. Shards of
a lost node are tried again without blame. Ray notices late that a node is gone, so the driver waits for a worker that
is out of reach.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from moderation.config.model import RuntimeConfig
from moderation.errors import FatalError, ItemError
from moderation.runtime.assigning import overdue_assignments
from moderation.runtime.bisection import StepEnding
from moderation.runtime.handout import Handout
from moderation.runtime.retries import Retries, keep_nowhere
from moderation.runtime.shard_queue import ShardQueue
from moderation.runtime.state import Doubt, Progress, RunTally, Stop
from moderation.runtime.worker_pool import Assignment, WorkerAnswer, WorkerHandle, WorkerPool
from moderation.storage import StorageError

POLL_S = 0.5
# By default Ray gives a node up after five checks, three seconds apart; one that hangs, ten seconds later.
DOUBT_S = 30.0
# A worker that is placed but has not loaded by then hangs: the largest weights from a slow bucket take minutes.
LOAD_TIMEOUT_S = 1800.0
# A worker that Ray cannot place, or whose stack does not load, ends at once: this many in a row without a success are
# no accident.
MAX_FAILED_STARTS = 5
# Starts that fail with a lost node are no fault of the stack; this many in a row are the fault of the cluster.
MAX_LOST_STARTS = 100


def drive(
    pool: WorkerPool,
    queue: ShardQueue,
    config: RuntimeConfig,
    progress: Progress,
    stop: Stop,
    enough: Callable[[RunTally], bool] = lambda _: False,
    *,
    decode_timeout_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    poison: Mapping[str, ItemError] = MappingProxyType({}),
    keep_poison: Callable[[Mapping[str, ItemError]], None] = keep_nowhere,
) -> RunTally:
    """Run every shard of the queue, or as many as there is time for (`RunTally.partial`).

    poison: items that earlier calls have set aside. keep_poison: called with all of them when there are more.
    decode_timeout_s: of one item, by which a shard's own time is reckoned.
    enough: asked after each round; true ends the run as a stop does, by plan. clock: seconds, the same as `stop`'s.
    Raises FatalError (resumable): output not writable, stack not loadable, storage failing beyond retries.
    """
    tally = RunTally()
    retries = Retries(
        max_attempts=config.shard_attempts,
        tally=tally,
        progress=progress,
        queue=queue,
        poison=poison,
        keep_poison=keep_poison,
    )
    loop = _DriverLoop(
        pool=pool,
        queue=queue,
        config=config,
        progress=progress,
        stop=stop,
        tally=tally,
        retries=retries,
        handout=Handout(pool=pool, retries=retries, config=config, decode_timeout_s=decode_timeout_s),
        said_no_room_s=clock(),
    )
    try:
        while not loop.finished(clock()):
            loop.assign(clock())
            answers = pool.wait(POLL_S)
            now_s = clock()
            # First what is done: an error ends its worker, and what that has committed would be done again.
            for answer in sorted(answers, key=lambda one: one.ending != "done"):
                loop.settle(answer, now_s)
            loop.watch(now_s)
            if not stop.requested and enough(tally):
                stop.request("enough", config.grace_s)
        loop.tick()
    finally:
        queue.close()
        pool.close()
    return tally


@dataclass(slots=True, kw_only=True)
class _DriverLoop:
    pool: WorkerPool
    queue: ShardQueue
    config: RuntimeConfig
    progress: Progress
    stop: Stop
    tally: RunTally
    retries: Retries
    handout: Handout
    said_no_room_s: float
    doubts: list[Doubt] = field(default_factory=list)
    watched_s: float = -math.inf
    failed_starts: int = 0  # in a row
    lost_starts: int = 0  # in a row

    def finished(self, now_s: float) -> bool:
        """Whether nothing is left to hand out or wait for; after a stop, nothing in flight or no time for it."""
        busy = any(worker.assignments for worker in self.pool.workers)
        left = bool(busy or self.retries.pending or self.doubts)
        if self.stop.requested:
            self.tally.partial = left or not self.queue.exhausted
            return not busy or self.stop.overdue(now_s)
        return self.queue.exhausted and not left

    def assign(self, now_s: float) -> None:
        """Give each worker as many assignments as it has room for."""
        if self.stop.requested:
            return
        planned = self.queue.planned
        # No more workers than shards are known to be left; more join as the listing goes on.
        self.pool.fill(planned.shards - planned.committed_shards - self.tally.receipts)
        self.handout.hand_out(now_s)

    def settle(self, answer: WorkerAnswer, now_s: float) -> None:
        """Take an answer."""
        worker = answer.worker
        if worker not in self.pool.workers:
            return  # removed meanwhile, with its assignments
        if answer.call == worker.placing:
            self._settle_placing(worker, answer, now_s)
        elif answer.call == worker.loading:
            self._settle_loading(worker, answer, now_s)
        elif answer.call in worker.assignments:
            self._settle_assignment(worker, answer, now_s)

    def _settle_placing(self, worker: WorkerHandle, answer: WorkerAnswer, now_s: float) -> None:
        worker.placing = None
        # Otherwise `loading` fails for the same reason, and its answer says why.
        if answer.ending == "done":
            worker.facts = dict(answer.value)
            worker.placed_s = now_s

    def _settle_loading(self, worker: WorkerHandle, answer: WorkerAnswer, now_s: float) -> None:
        if answer.ending == "done":
            worker.loading = None
            worker.facts = answer.value
            self.failed_starts = self.lost_starts = 0
            self.handout.add(worker)
            self.tally.note_ready(now_s)
            self.tally.workers.append(dict(worker.facts))
            self.progress.note("worker", "worker ready", **worker.facts)
            return
        _raise_if_fatal(answer)
        # A lost node looks unreachable at first; a stack that kills its process is reported as a death.
        lost = answer.ending != "raised" and (answer.ending == "unreachable" or self.pool.is_node_gone(worker))
        self._fail_start(worker, answer.detail, lost=lost)

    def _fail_start(self, worker: WorkerHandle, reason: str, *, lost: bool = False) -> None:
        self._remove(worker)
        self.failed_starts += not lost
        self.lost_starts += lost
        self.progress.note("worker_failed", f"a worker did not start: {reason}")
        if self.failed_starts >= MAX_FAILED_STARTS or self.lost_starts >= MAX_LOST_STARTS:
            failed = self.failed_starts + self.lost_starts
            raise FatalError(f"{failed} workers in a row did not start; the last: {reason}")

    def _settle_assignment(self, worker: WorkerHandle, answer: WorkerAnswer, now_s: float) -> None:
        if answer.ending == "done":
            self._settle_done(worker, answer)
        elif answer.ending == "raised":
            _raise_if_fatal(answer)
            self.retries.blame(worker.assignments.pop(answer.call), StepEnding.RAISED, answer.detail, now_s)
            self.handout.add(worker)
            if not isinstance(answer.error, StorageError):
                # A device that failed once fails again; a fresh process costs seconds. Its other shards are innocent.
                self._replace(worker)
        else:
            self._lose(worker, now_s, detail=answer.cause, unreachable=answer.ending == "unreachable")

    def _settle_done(self, worker: WorkerHandle, answer: WorkerAnswer) -> None:
        assignment = worker.assignments.pop(answer.call)
        self.handout.add(worker)
        if assignment.bisection is None:
            self.retries.record_success()
        else:
            detail = answer.value if isinstance(answer.value, str) else ""
            self.retries.record_step(assignment.bisection, StepEnding.DONE, detail)
        if assignment.step is None or assignment.step.action == "run":
            self.tally.add_receipt(answer.value, worker.facts)
            self.progress.shard_done(answer.value, self.queue.planned)

    def _settle_ready(self, worker: WorkerHandle) -> None:
        """Take the answers that a failing worker has ready, so that what is committed is not done again."""
        for answer in self.pool.ready_answers(worker):
            if answer.ending == "done":
                self._settle_done(worker, answer)

    def _take_back(self, worker: WorkerHandle) -> tuple[Assignment, ...]:
        """End a worker; the assignments that it has not answered."""
        self._settle_ready(worker)
        self._remove(worker)
        return tuple(worker.assignments.values())

    def _remove(self, worker: WorkerHandle) -> None:
        self.handout.remove(worker)
        self.pool.remove(worker)

    def _replace(self, worker: WorkerHandle) -> None:
        for assignment in self._take_back(worker):
            self.retries.requeue(assignment, "neighbour")

    def _lose(self, worker: WorkerHandle, now_s: float, *, detail: str = "", unreachable: bool = False) -> None:
        """A worker is gone: its assignments are tried again, once it is known whether its node went, too."""
        assignments = self._take_back(worker)
        doubt = Doubt(worker=worker, assignments=assignments, until_s=now_s + DOUBT_S)
        if unreachable and not self.pool.is_node_gone(worker):
            self.progress.note("worker_doubt", "worker out of reach", pid=worker.facts.get("pid"))
            self.doubts.append(doubt)
        else:
            self._requeue_lost(doubt, detail, now_s)

    def _requeue_lost(self, lost: Doubt, detail: str, now_s: float) -> None:
        """Requeue a lost worker's assignments: with blame, unless its node is gone, too, or another was overdue."""
        node_gone = self.pool.is_node_gone(lost.worker)
        hung = any(a.overdue for a in lost.assignments)
        self.progress.note(
            "worker_lost",
            "node lost" if node_gone else "worker hung and was killed" if hung else "worker died",
            pid=lost.worker.facts.get("pid"),
            shards=[a.shard.shard_id for a in lost.assignments],
        )
        for assignment in lost.assignments:
            if node_gone:
                self.retries.requeue_lost(assignment, "node", detail, now_s)
            elif hung and not assignment.overdue:
                self.retries.requeue_lost(assignment, "neighbour", detail, now_s)
            else:
                self.retries.blame_lost(assignment, detail, now_s)

    def watch(self, now_s: float) -> None:
        """Kill workers whose shard or loading is overdue, settle doubts, and report when the cluster has no room.

        Looks at each worker twice a second: a thousand of them, for each shard, cost as much as all else together.
        """
        self._settle_doubts(now_s)
        self._watch_room(now_s)
        self.stop.tell(self.progress, self.config.grace_s)
        if now_s - self.watched_s < POLL_S:
            return
        self.watched_s = now_s
        for worker in list(self.pool.workers):
            self._watch_worker(worker, now_s)
        self.tick()

    def tick(self) -> None:
        """Tell how far the run is."""
        self.progress.tick(self.queue.planned, self.pool.items_in_flight())

    def _settle_doubts(self, now_s: float) -> None:
        for doubt in list(self.doubts):
            if now_s > doubt.until_s or self.pool.is_node_gone(doubt.worker):
                self.doubts.remove(doubt)
                self._requeue_lost(doubt, "out of reach", now_s)

    def _watch_worker(self, worker: WorkerHandle, now_s: float) -> None:
        if overdue_assignments(worker, now_s):
            self._settle_ready(worker)
        overdue = overdue_assignments(worker, now_s)
        for assignment in overdue:
            assignment.overdue = True
        if overdue:
            self._lose(worker, now_s)
        elif worker.loading is not None and worker.placed_s is not None and now_s - worker.placed_s > LOAD_TIMEOUT_S:
            self._fail_start(worker, f"not loaded after {LOAD_TIMEOUT_S:.0f} s")

    def _watch_room(self, now_s: float) -> None:
        if not self.pool.workers or any(w.placed_s is not None for w in self.pool.workers):
            self.said_no_room_s = now_s
        elif now_s - self.said_no_room_s > self.config.no_room_every_s and self.pool.size is not None:
            self.said_no_room_s = now_s
            self.progress.note(
                "no_room",
                f"waiting for room in the cluster: a worker needs {self.pool.size.num_cpus:g} CPU"
                f" and {self.pool.size.num_gpus:g} GPU",
                nodes=self.pool.node_resources(),
            )


def _raise_if_fatal(answer: WorkerAnswer) -> None:
    if answer.ending == "raised" and isinstance(answer.error, FatalError):
        raise answer.error from None

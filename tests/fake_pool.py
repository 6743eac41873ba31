"""A pool of workers in memory, with a clock that only moves when somebody waits: the driver's loop in milliseconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from moderation.runtime.sizing import WorkerSize
from moderation.runtime.worker_pool import Assignment, WorkerAnswer, WorkerHandle
from moderation.types import Item, MediaObject, Shard


@dataclass(slots=True)
class FakeClock:
    """Seconds; starts late, so that 0.0 is not a moment of the run."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of an assignment, or of the start of a worker, `after_s` seconds later.

    done; raised: with `error`; died: with the whole worker; hung: never answers; unreachable: with the whole worker,
    whose node is lost `node_gone_after_s` later, or never; unseen: committed, but the worker dies before it says so.
    """

    ending: Literal["done", "raised", "died", "hung", "unreachable", "unseen"] = "done"
    after_s: float = 1.0
    error: Exception | None = None
    node_gone_after_s: float = math.inf
    value: Any = None  # the answer of what is done, instead of the usual one


DONE = Fate()
DIED = Fate("died")
HUNG = Fate("hung")
Script = Callable[[WorkerHandle, Assignment], Fate]


@dataclass(slots=True)
class _Call:
    """A question to a worker. ready_s: when its answer is there, unless the worker ends before."""

    ready_s: float
    ending: str
    value: Any = None
    error: Exception | None = None
    shard_id: str | None = None  # that is committed at `committed_s`
    committed_s: float = math.inf


@dataclass(slots=True)
class _Process:
    """The process behind a handle. ended_s: when it is gone, or out of reach."""

    node: str
    calls: dict[int, _Call] = field(default_factory=dict)
    ended_s: float = math.inf
    ending: str = "died"


@dataclass(slots=True, kw_only=True)
class FakePool:
    """Workers that do what the script says. commits: how often each shard was committed, seen by the driver or not."""

    clock: FakeClock
    script: Script = lambda _worker, _assignment: DONE
    starts: Iterator[Fate] = field(default_factory=lambda: iter(()))
    wanted: int = 2
    placed: bool = True
    load_s: float = 1.0
    size: WorkerSize | None = None
    workers: list[WorkerHandle] = field(default_factory=list)
    submitted: list[tuple[WorkerHandle, Assignment]] = field(default_factory=list)
    commits: Counter[str] = field(default_factory=Counter)
    started: int = 0
    max_at_once: int = 0
    closed: bool = False
    _gone_s: dict[str, float] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def fill(self, max_workers: int) -> None:
        """Start workers up to `wanted`."""
        self.size = WorkerSize(num_cpus=1.0, num_gpus=0.0)
        while len(self.workers) < min(self.wanted, max(1, max_workers)):
            self.workers.append(self._start(next(self.starts, Fate(after_s=self.load_s))))
        self.max_at_once = max(self.max_at_once, len(self.workers))

    def _start(self, fate: Fate) -> WorkerHandle:
        self.started += 1
        process = _Process(node=f"node{self.started}")
        worker = WorkerHandle(actor=process, loading=next(self._numbers), placing=next(self._numbers))
        facts = {"node": process.node, "pid": self.started, "loaded_memory_bytes": 100}
        if self.placed:
            process.calls[worker.placing] = _Call(self.clock.now_s, "done", facts)
        process.calls[worker.loading] = self._schedule(process, fate, facts)
        return worker

    def submit(self, worker: WorkerHandle, assignment: Assignment) -> None:
        """Ask the script what becomes of it."""
        self.submitted.append((worker, assignment))
        number = next(self._numbers)
        fate = self.script(worker, assignment)
        call = self._schedule(worker.actor, fate, _value(assignment))
        if (assignment.step is None or assignment.step.action == "run") and fate.ending in ("done", "unseen"):
            call.shard_id, call.committed_s = assignment.shard.shard_id, self.clock.now_s + fate.after_s
        worker.actor.calls[number] = call
        worker.assignments[number] = assignment

    def _schedule(self, process: _Process, fate: Fate, value: Any) -> _Call:
        at_s = self.clock.now_s + fate.after_s
        if fate.ending in ("died", "unreachable", "unseen") and at_s < process.ended_s:
            process.ended_s = at_s
            process.ending = "unreachable" if fate.ending == "unreachable" else "died"
            self._gone_s[process.node] = at_s + fate.node_gone_after_s
        if fate.ending in ("done", "raised"):
            return _Call(at_s, fate.ending, value if fate.value is None else fate.value, fate.error)
        return _Call(math.inf, "hung")

    def wait(self, timeout_s: float) -> list[WorkerAnswer]:
        """Move the clock to the next answer, or by the timeout."""
        calls = [(w, c) for w in self.workers for c in (w.placing, w.loading, *w.assignments) if c in w.actor.calls]
        ready = [(w, c) for w, c in calls if _ready_s(w, c) <= self.clock.now_s]
        if not ready:
            next_s = min((_ready_s(w, c) for w, c in calls), default=math.inf)
            self.clock.now_s = min(self.clock.now_s + timeout_s, next_s)
            # Like Ray's: who waited for one answer gets one, though others may have come with it.
            ready = [(w, c) for w, c in calls if _ready_s(w, c) <= self.clock.now_s][:1]
        return [self._answer(w, c) for w, c in ready]

    def items_in_flight(self) -> int:
        return 0

    def ready_answers(self, worker: WorkerHandle) -> list[WorkerAnswer]:
        """Those of assignments."""
        return [self._answer(worker, c) for c in list(worker.assignments) if _ready_s(worker, c) <= self.clock.now_s]

    def _answer(self, worker: WorkerHandle, number: int) -> WorkerAnswer:
        call: _Call = worker.actor.calls[number]
        if call.ready_s <= worker.actor.ended_s:
            detail = "" if call.error is None else f"{type(call.error).__name__}: {call.error}"
            return WorkerAnswer(
                worker=worker,
                call=number,
                ending="done" if call.ending == "done" else "raised",
                value=call.value,
                error=call.error,
                detail=detail,
            )
        gone = ConnectionError("gone")
        ending = worker.actor.ending
        return WorkerAnswer(worker=worker, call=number, ending=ending, error=gone, detail=f"ConnectionError: {gone}")

    def is_node_gone(self, worker: WorkerHandle) -> bool:
        """Whether its node is lost by now."""
        return self._gone_s.get(worker.actor.node, math.inf) <= self.clock.now_s

    def node_resources(self) -> Sequence[Mapping[str, float]]:
        """One small node."""
        return [{"CPU": 1.0}]

    def remove(self, worker: WorkerHandle) -> None:
        """End a worker."""
        if worker in self.workers:
            self.workers.remove(worker)
            for call in worker.actor.calls.values():
                if call.shard_id is not None and call.committed_s <= min(self.clock.now_s, worker.actor.ended_s):
                    self.commits[call.shard_id] += 1

    def close(self) -> None:
        """End all workers."""
        self.closed = True
        for worker in list(self.workers):
            self.remove(worker)


def _ready_s(worker: WorkerHandle, number: int) -> float:
    return min(worker.actor.calls[number].ready_s, worker.actor.ended_s)


def _value(assignment: Assignment) -> Any:
    action = "run" if assignment.step is None else assignment.step.action
    if action == "isolated":
        return "survived"
    if action == "probe":
        return len(assignment.shard.items)
    return {
        "shard_id": assignment.shard.shard_id,
        "rows_in": len(assignment.shard.items),
        "counts": {"frames": len(assignment.shard.items)},
        "peak_memory_bytes": 150,
    }


def guilty_items(fates: Mapping[str, Fate], isolated_ending: str = "SIGSEGV") -> Script:
    """A script: whoever touches an item of `fates` has its fate, as long as it is not set aside."""

    def script(_: WorkerHandle, assignment: Assignment) -> Fate:
        poison = {} if assignment.bisection is None else assignment.bisection.poison
        touched = [i.item_id for i in assignment.shard.items if i.item_id in fates and i.item_id not in poison]
        if not touched:
            return DONE
        if assignment.step is not None and assignment.step.action == "isolated":
            return Fate(value=isolated_ending)
        return fates[touched[0]]

    return script


def in_turn(fates: Iterable[Fate]) -> Script:
    """A script: the fates of the assignments, in the order of their submission; then all is well."""
    coming = iter(fates)
    return lambda _worker, _assignment: next(coming, DONE)


def numbered_shards(shards: int, items: int = 2) -> list[Shard]:
    """Shards `s0`, `s1`, ... of items `s0-0`, `s0-1`, ..."""

    def item(name: str) -> Item:
        return Item(item_id=name, uri=name, objects=(MediaObject(uri=name, name="a.jpg", size_bytes=10),))

    return [
        Shard(shard_id=f"s{n}", items=tuple(item(f"s{n}-{place}") for place in range(items))) for n in range(shards)
    ]

"""A thousand workers in simulated time, for the real driver: a heap holds their answers, so that they cost little.

What the pool itself takes is counted apart (`spent_s`), so that the rest of the thread's time is the driver's own.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from moderation.runtime.sizing import WorkerSize
from moderation.runtime.worker_pool import Assignment, WorkerAnswer, WorkerHandle
from moderation.types import Item, MediaObject, Shard

# Of a real shard of 256 pictures of the default stack, so that what is counted and logged has its usual size.
RECEIPT: Mapping[str, Any] = {
    "rows": {"verdicts": 256, "votes": 256},
    "sha256": {"verdicts": "a" * 64, "votes": "b" * 64},
    "counts": {
        "frames": 256,
        "verdict:pass": 240,
        "verdict:review": 12,
        "verdict:block": 4,
        "status:ok": 254,
        "status:error": 2,
        "kind:image": 250,
        "kind:unknown": 6,
        "error:corrupt": 2,
        "check:explicit:block": 4,
        "check:explicit:review": 8,
        "asked:open_nsfw": 256,
        "asked:image_safety": 256,
    },
    "seconds": {"fetch": 0.4, "decode": 1.9, "score": 3.1, "judge": 0.05, "write": 0.06},
    "waits": {"fetch:starved": 0.0, "decode:blocked": 0.7, "device:starved": 0.3, "device:lock": 1.2},
    "bytes_read": 25_600_000,
    "peak_memory_bytes": 2_000_000_000,
    "committed_at": 1_790_000_000.0,
}


@dataclass(slots=True)
class SimulatedClock:
    """Seconds that only move when the driver waits."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.now_s


def shard_receipt(shard_id: str, rows: int) -> dict[str, Any]:
    """What a worker answers: the receipt of a shard, with its five slowest items."""
    slowest = {f"{shard_id[:24]}{n:08d}": 0.4 - n / 100 for n in range(5)}
    return {**RECEIPT, "shard_id": shard_id, "rows_in": rows, "slowest": slowest, "worker": "0123456789ab/4711"}


@dataclass(slots=True, kw_only=True)
class SimulatedPool:
    """Workers that load at once and judge each shard in one to three minutes of simulated time.

    together: answers that have come when the driver looks, at least. spent_s: processor time within this pool.
    """

    clock: SimulatedClock
    wanted: int
    together: int = 1
    workers: list[WorkerHandle] = field(default_factory=list)
    size: WorkerSize | None = None
    spent_s: float = 0.0
    rounds: int = 0
    _heap: list[tuple[float, int, WorkerHandle]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)
    _random: Random = field(default_factory=lambda: Random(0))

    def fill(self, max_workers: int) -> None:
        """Start workers up to `wanted`."""
        self.size = WorkerSize(num_cpus=1.0, num_gpus=0.0)
        while len(self.workers) < min(self.wanted, max(1, max_workers)):
            number = next(self._numbers)
            facts = {"node": f"node{number}", "pid": number, "loaded_memory_bytes": 1_000_000_000}
            worker = WorkerHandle(actor=facts, loading=number)
            heapq.heappush(self._heap, (self.clock.now_s + 1.0, number, worker))
            self.workers.append(worker)

    def submit(self, worker: WorkerHandle, assignment: Assignment) -> None:
        """Judge a shard."""
        began = time.thread_time()
        number = next(self._numbers)
        worker.assignments[number] = assignment
        heapq.heappush(self._heap, (self.clock.now_s + self._random.uniform(60.0, 180.0), number, worker))
        self.spent_s += time.thread_time() - began

    def wait(self, timeout_s: float) -> list[WorkerAnswer]:
        """Move the clock until so many answers have come as are wanted together."""
        began = time.thread_time()
        self.rounds += 1
        answers = []
        while self._heap and (len(answers) < self.together or self._heap[0][0] <= self.clock.now_s):
            ready_s, number, worker = heapq.heappop(self._heap)
            self.clock.now_s = max(self.clock.now_s, ready_s)
            answers.append(WorkerAnswer(worker=worker, call=number, ending="done", value=_value(worker, number)))
        if not answers:
            self.clock.now_s += timeout_s
        self.spent_s += time.thread_time() - began
        return answers

    def items_in_flight(self) -> int:
        """Nothing."""
        return 0

    def ready_answers(self, worker: WorkerHandle) -> Sequence[WorkerAnswer]:
        """None."""
        return ()

    def is_node_gone(self, worker: WorkerHandle) -> bool:
        """Never."""
        return False

    def node_resources(self) -> Sequence[Mapping[str, float]]:
        """None."""
        return ()

    def remove(self, worker: WorkerHandle) -> None:
        """Forget a worker."""
        self.workers.remove(worker)

    def close(self) -> None:
        """Forget all."""
        self.workers.clear()


def _value(worker: WorkerHandle, number: int) -> dict[str, Any]:
    assignment = worker.assignments.get(number)
    if assignment is None:
        return dict(worker.actor)
    return shard_receipt(assignment.shard.shard_id, len(assignment.shard.items))


@dataclass(slots=True, kw_only=True)
class ShardSupply:
    """Shards of pictures as a listing of a bucket has them. spent_s: processor time of making them up."""

    shards: int
    items: int
    spent_s: float = 0.0

    def __iter__(self) -> Iterator[Shard]:
        for number in range(self.shards):
            began = time.thread_time()
            first = number * self.items
            shard = Shard(shard_id=f"{number:032x}", items=tuple(map(listed_item, range(first, first + self.items))))
            self.spent_s += time.thread_time() - began
            yield shard


def listed_item(number: int) -> Item:
    """An object as an S3 listing shows it."""
    uri = f"s3://bucket/photos/{number:010d}.jpg"
    media = MediaObject(uri=uri, name=uri[-14:], size_bytes=100_000, etag=f"{number * 2654435761 % 2**128:032x}")
    return Item(item_id=f"{number:032d}", uri=uri, objects=(media,))

"""What the driver keeps track of: the tally of a run, workers in doubt, requests to stop; and whom it tells."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from moderation.runtime.shard_queue import PlanCounts
from moderation.runtime.worker_pool import Assignment, WorkerHandle
from moderation.types import Shard


class Progress(Protocol):
    """Told what happens; a bar, log lines or metrics."""

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """A shard is committed. planned: counts of the plan so far."""

    def note(self, event: str, message: str, **facts: object) -> None:
        """Something that the one who reads the log at night should know."""


@dataclass(slots=True)
class Stop:
    """A request to end early: no more shards are handed out, those in flight have until `deadline_s` of `clock`."""

    deadline_s: float | None = None
    reason: str = ""
    clock: Callable[[], float] = time.monotonic

    def request(self, reason: str, grace_s: float) -> None:
        """Ask; asking again ends at once."""
        now_s = self.clock()
        self.deadline_s = now_s if self.deadline_s is not None else now_s + grace_s
        self.reason = self.reason or reason

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self.deadline_s is not None

    def overdue(self, now_s: float) -> bool:
        """Whether the grace is over."""
        return self.deadline_s is not None and now_s >= self.deadline_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A worker out of reach: dead, or with its node? Known when Ray gives the node up, or at `until_s`."""

    worker: WorkerHandle
    assignments: tuple[Assignment, ...]
    until_s: float


@dataclass(slots=True, kw_only=True)
class RunTally:
    """What happened besides receipts; goes into the summary."""

    receipts: int = 0
    items: int = 0
    frames: int = 0
    retries: Counter[str] = field(default_factory=Counter)  # by reason
    workers: list[dict[str, Any]] = field(default_factory=list)
    partial: bool = False
    max_worker_memory_bytes: int = 0

    def add_receipt(self, receipt: Mapping[str, Any], worker_facts: Mapping[str, Any]) -> None:
        """Count a committed shard."""
        self.receipts += 1
        self.items += int(receipt["rows_in"])
        self.frames += int(receipt["counts"].get("frames", 0))
        beyond_models = int(receipt["peak_memory_bytes"]) - int(worker_facts.get("loaded_memory_bytes", 0))
        self.max_worker_memory_bytes = max(self.max_worker_memory_bytes, beyond_models)


def shard_timeout_s(shard: Shard, configured: float | str) -> float:
    """How long a shard may take: as configured, or from its plan.

    auto: five minutes, four seconds per item (a slow CPU scores five images a second) and one second for each 256 KiB
    (such a stretch of video holds a few frames): ten times what was measured, and still an end.
    """
    if isinstance(configured, float | int):
        return float(configured)
    return 300.0 + 4.0 * len(shard.items) + shard.size_bytes / (256 * 1024)

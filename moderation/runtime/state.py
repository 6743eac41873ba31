"""State of the driver: the tally of a run, workers in doubt, requests to stop; and the protocol of its progress."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from moderation.media.limits import OBJECT_S
from moderation.runtime.shard_queue import PlanCounts
from moderation.runtime.worker_pool import Assignment, WorkerHandle
from moderation.types import Shard


class Progress(Protocol):
    """Receives what happens; a bar, log lines or metrics."""

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """A shard is committed. planned: counts of the plan so far."""

    def tick(self, planned: PlanCounts, in_flight: int) -> None:
        """Time goes on; told several times a second. in_flight: items judged of shards that are not committed yet."""

    def note(self, event: str, message: str, **facts: object) -> None:
        """Something that whoever reads the log at night should know."""


@dataclass(slots=True, kw_only=True)
class JudgingClock:
    """When a run began, and when its first worker was ready: rates count from then on. Seconds of one clock."""

    began_s: float
    ready_s: float | None = None

    def note_ready(self, now_s: float) -> None:
        """A worker is ready."""
        self.ready_s = self.ready_s if self.ready_s is not None else now_s

    @property
    def startup_s(self) -> float | None:
        """Seconds from the start to the first ready worker; None before."""
        return None if self.ready_s is None else round(self.ready_s - self.began_s, 3)

    def items_per_s(self, items: int, now_s: float) -> float | None:
        """The rate without the start-up; None before the first worker is ready."""
        return None if self.ready_s is None else items / max(now_s - self.ready_s, 1e-6)

    def left_s(self, items: int, planned: PlanCounts, now_s: float) -> float | None:
        """Seconds until all that is planned is judged; None while the plan or the rate is not known."""
        rate = self.items_per_s(items, now_s)
        if not planned.ended or not rate:
            return None
        return max(0.0, planned.items - planned.committed_items - items) / rate


@dataclass(slots=True)
class Stop:
    """A request to end early: no more shards are handed out, and those in flight have until `deadline_s` of `clock`."""

    deadline_s: float | None = None
    reason: str = ""
    clock: Callable[[], float] = time.monotonic
    told: bool = False

    def request(self, reason: str, grace_s: float) -> None:
        """Ask for the end; a second request ends the run at once."""
        now_s = self.clock()
        self.deadline_s = now_s if self.deadline_s is not None else now_s + grace_s
        self.reason = self.reason or reason

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self.deadline_s is not None

    def tell(self, progress: Progress, grace_s: float) -> None:
        """Report once that the run is stopping, and what happens next."""
        if self.requested and not self.told:
            self.told = True
            progress.note("stopping", _describe_stop(self.reason, grace_s))

    def overdue(self, now_s: float) -> bool:
        """Whether the grace is over."""
        return self.deadline_s is not None and now_s >= self.deadline_s


def _describe_stop(reason: str, grace_s: float) -> str:
    if reason == "enough":
        return "as much as was asked for is judged; shards in flight are finished"
    again = "; Ctrl-C again stops at once" if reason == "SIGINT" else ""
    return f"{reason}: shards in flight are finished, at most {grace_s:g} s{again}; the same command goes on later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A worker out of reach: it died, or its node is gone. Decided when Ray gives the node up, or at `until_s`."""

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
    storage_retries: int = 0
    ready_s: float | None = None  # when the first worker was ready, by the driver's clock

    def note_ready(self, now_s: float) -> None:
        """A worker is ready."""
        self.ready_s = self.ready_s if self.ready_s is not None else now_s

    def add_receipt(self, receipt: Mapping[str, Any], worker_facts: Mapping[str, Any]) -> None:
        """Count a committed shard."""
        self.receipts += 1
        self.items += int(receipt["rows_in"])
        self.frames += int(receipt["counts"].get("frames", 0))
        self.storage_retries += int(receipt.get("storage_retries", 0))
        beyond_models = int(receipt["peak_memory_bytes"]) - int(worker_facts.get("loaded_memory_bytes", 0))
        self.max_worker_memory_bytes = max(self.max_worker_memory_bytes, beyond_models)


def shard_timeout_s(shard: Shard, configured: float | str, decode_s: float) -> float:
    """How long a shard may take: as configured, or from its plan.

    auto: five minutes, plus four seconds per object (a slow CPU scores five images a second; an album has several),
    plus what decoding takes where every item takes all its time, or one second per 256 KiB (so much video holds a few
    frames) where that is longer. decode_s: `media.decode_timeout_s` over the threads that decode.
    """
    if isinstance(configured, float | int):
        return float(configured)
    objects = sum(max(1, len(item.objects)) for item in shard.items)
    return 300.0 + OBJECT_S * objects + max(shard.size_bytes / (256 * 1024), decode_s * len(shard.items))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOutcome:
    """What became of a plan in one call. shard_ids: of all planned shards. facts: for the summary."""

    shard_ids: Sequence[str]
    wall_s: float
    partial: bool
    facts: Mapping[str, Any]

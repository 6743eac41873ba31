"""What the loop of a run keeps track of: tasks at workers, workers in doubt, the tally; and how it is told to stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from moderation.runtime.bisection import Step, Suspicion
from moderation.runtime.shard_queue import Feed
from moderation.runtime.worker_pool import Member
from moderation.types import Shard


class Progress(Protocol):
    """Told what happens; a bar or log lines."""

    def shard_done(self, receipt: Mapping[str, Any], feed: Feed) -> None:
        """A shard is committed."""

    def note(self, event: str, message: str, **facts: object) -> None:
        """Something that the one who reads the log at night should know."""


@dataclass(slots=True)
class Stop:
    """A request to end early: no more shards are handed out, those in flight have until `deadline_s`."""

    deadline_s: float | None = None
    reason: str = ""

    def request(self, reason: str, grace_s: float) -> None:
        """Ask; asking again ends at once."""
        now = time.monotonic()
        self.deadline_s = now if self.deadline_s is not None else now + grace_s
        self.reason = self.reason or reason

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self.deadline_s is not None

    @property
    def overdue(self) -> bool:
        """Whether the grace is over."""
        return self.deadline_s is not None and time.monotonic() >= self.deadline_s


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """A shard, or a step of a search in one, at a worker."""

    shard: Shard
    deadline_s: float
    suspicion: Suspicion | None = None
    step: Step | None = None
    late: bool = False  # killed by the watchdog


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A worker out of reach: dead, or with its node? Known when Ray gives the node up, or at `until_s`."""

    member: Member
    tasks: tuple[Task, ...]
    until_s: float


@dataclass(slots=True, kw_only=True)
class Tally:
    """What happened besides receipts; goes into the summary."""

    receipts: int = 0
    items: int = 0
    frames: int = 0
    retries: Counter[str] = field(default_factory=Counter)  # by reason
    workers: list[dict[str, Any]] = field(default_factory=list)
    partial: bool = False
    max_worker_memory_bytes: int = 0


def shard_timeout_s(shard: Shard, configured: float | str) -> float:
    """How long a shard may take: as configured, or from its plan.

    auto: five minutes, four seconds an item (a slow CPU scores five images a second) and a second for each 256 KiB
    (such a stretch of video holds a few frames): ten times what was measured, and still an end.
    """
    if isinstance(configured, float | int):
        return float(configured)
    return 300.0 + 4.0 * len(shard.items) + shard.size_bytes / (256 * 1024)

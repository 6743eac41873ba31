"""Assignments for workers, and their deadlines."""

from __future__ import annotations

from moderation.config.model import RuntimeConfig
from moderation.runtime.bisection import Bisection
from moderation.runtime.isolated_run import LOAD_TIMEOUT_S as ISOLATED_LOAD_TIMEOUT_S
from moderation.runtime.state import shard_timeout_s
from moderation.runtime.worker_pool import Assignment, WorkerHandle
from moderation.types import Shard


def assign_shard(shard: Shard, config: RuntimeConfig, now_s: float, *, decode_s: float) -> Assignment:
    """A shard to run and commit. decode_s: as in `shard_timeout_s`."""
    timeout_s = shard_timeout_s(shard, config.shard_timeout_s, decode_s)
    # Shards in flight share the device, and in the worst case wait for each other.
    deadline_s = now_s + timeout_s * config.shards_in_flight
    return Assignment(shard=shard, timeout_s=timeout_s, deadline_s=deadline_s)


def assign_step(bisection: Bisection, config: RuntimeConfig, now_s: float, *, decode_s: float) -> Assignment:
    """The next step of the search in a suspect shard. decode_s: as in `shard_timeout_s`."""
    step = bisection.step()
    shard = Shard(shard_id=bisection.shard.shard_id, items=step.items)
    assignment = assign_shard(shard, config, now_s, decode_s=decode_s)
    assignment.bisection, assignment.step = bisection, step
    if step.action == "isolated":
        assignment.deadline_s += ISOLATED_LOAD_TIMEOUT_S
    return assignment


def overdue_assignments(worker: WorkerHandle, now_s: float) -> list[Assignment]:
    """The assignments whose deadline has passed."""
    return [a for a in worker.assignments.values() if now_s > a.deadline_s]

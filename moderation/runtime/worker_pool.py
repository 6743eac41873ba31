"""What the driver knows of its workers: handles, assignments, answers; and the pool as a protocol.

Ray's pool is `ray_pool.RayWorkerPool`, that of one machine alone `process_pool.ProcessWorkerPool`; tests drive a pool
in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from moderation.runtime.bisection import Bisection, Step
from moderation.runtime.sizing import Resources, WorkerSize
from moderation.types import Shard


@dataclass(slots=True, kw_only=True, eq=False)
class Assignment:
    """A shard, or one step of the bisection of a suspect shard, at a worker.

    timeout_s: for the items alone. deadline_s: when the watchdog kills the worker, by the driver's clock.
    """

    shard: Shard
    timeout_s: float
    deadline_s: float
    bisection: Bisection | None = None
    step: Step | None = None
    overdue: bool = False  # its worker was killed by the watchdog


@dataclass(slots=True, kw_only=True, eq=False)
class WorkerHandle:
    """A worker: loading until the call `loading` has answered, then with assignments in flight, by their calls.

    placing: the call that answers with its node and process once it runs somewhere; None after that.
    nodes_at_start: ids of the cluster's nodes when it was asked for.
    """

    actor: Any
    loading: Any | None
    placing: Any | None = None
    placed_s: float | None = None
    nodes_at_start: frozenset[str] = frozenset()
    facts: dict[str, Any] = field(default_factory=dict)
    assignments: dict[Any, Assignment] = field(default_factory=dict)

    @property
    def node(self) -> str | None:
        """The node it runs on, once it has said so."""
        return self.facts.get("node")

    @property
    def bisecting(self) -> bool:
        """Whether it carries out a step of a bisection, and must do nothing else meanwhile."""
        return any(a.bisection is not None for a in self.assignments.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAnswer:
    """How a call to a worker ended.

    raised: the method raised `error`. died: the process is gone, or its answer is lost. unreachable: not known yet.
    detail: one line of what is known. ended_by: the signal or exit code of a process that died, where it is known.
    """

    worker: WorkerHandle
    call: Any
    ending: Literal["done", "raised", "died", "unreachable"]
    value: Any = None
    error: BaseException | None = None
    detail: str = ""
    ended_by: str = ""

    @property
    def cause(self) -> str:
        """A word or two for the log: what ended the process, or the type of the error."""
        return self.ended_by or type(self.error).__name__


class WorkerPool(Protocol):
    """The workers of a run: starts as many as wanted, takes calls, hands out answers."""

    @property
    def workers(self) -> Sequence[WorkerHandle]:
        """Those that are not removed, in the order of their start."""
        ...

    @property
    def size(self) -> WorkerSize | None:
        """What a worker gets of a node; None before the first `fill`."""
        ...

    def fill(self, max_workers: int) -> None:
        """Start workers up to what is wanted now, never more than `max_workers`, and never none."""
        ...

    def submit(self, worker: WorkerHandle, assignment: Assignment) -> None:
        """Have a worker carry out an assignment, and enter it in the worker's `assignments`."""
        ...

    def wait(self, timeout_s: float) -> Sequence[WorkerAnswer]:
        """All answers that are ready; waits for the first at most so long."""
        ...

    def ready_answers(self, worker: WorkerHandle) -> Sequence[WorkerAnswer]:
        """The answers to a worker's assignments that are ready now."""
        ...

    def items_in_flight(self) -> int:
        """Items that the workers have judged of shards that are not committed yet, as far as they have told."""
        ...

    def is_node_gone(self, worker: WorkerHandle) -> bool:
        """Whether the worker's node has left the cluster; for a worker that was never placed, whether any node has."""
        ...

    def node_resources(self) -> Sequence[Resources]:
        """The resources of the nodes that are alive."""
        ...

    def remove(self, worker: WorkerHandle) -> None:
        """End a worker and forget it; the caller puts its assignments back."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...

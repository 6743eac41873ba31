"""The worker pool on Ray: actors, their calls, and Ray's errors told apart."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from moderation.config.model import RuntimeConfig
from moderation.errors import one_line
from moderation.runtime.sizing import Resources, WorkerSize, count_workers, size_workers
from moderation.runtime.task import WorkerTask
from moderation.runtime.worker import MALLOC_ENV, ShardWorker, WorkerPlace
from moderation.runtime.worker_pool import Assignment, WorkerAnswer, WorkerHandle

# Nodes join and leave; asking the head is cheap, but not free.
NODES_EVERY_S = 2.0
# Workers are asked this often, and answer between two batches: a bar that moves once a second is smooth enough.
PROGRESS_EVERY_S = 1.0
# To ask a thousand takes 0.1 s of the driver, so that more than these are asked less often.
PROGRESS_WORKERS = 100
# Ray is asked for all answers this often, should it not have told of one: that worker would stand still for good.
ASK_ALL_EVERY_S = 10.0
# With no call to wait for, the pool sleeps for this share of the timeout: the listing may have a shard soon.
IDLE_SHARE = 0.2


@dataclass(slots=True, kw_only=True)
class RayWorkerPool:
    """The workers of a run as Ray actors of one task.

    own_cluster: whether `connect` has started it, so that its processes have the variables of a worker already.
    """

    task: WorkerTask
    config: RuntimeConfig
    own_cluster: bool = False
    workers: list[WorkerHandle] = field(default_factory=list)
    size: WorkerSize | None = None
    _looked_s: float = -math.inf
    _wanted: int = 1
    _node_ids: frozenset[str] = frozenset()
    _asked_s: float = -math.inf
    # Calls without an answer, and those that Ray has said to be answered. To ask it for two thousand calls each time
    # that one may be answered took 3 ms.
    _calls: dict[Any, WorkerHandle] = field(default_factory=dict)
    _answered: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    _asked_all_s: float = -math.inf
    _questions: dict[Any, WorkerHandle] = field(default_factory=dict)
    _told: dict[int, int] = field(default_factory=dict)  # items in flight, by the id of the handle

    def fill(self, max_workers: int) -> None:
        """Start workers up to what is wanted now, never more than `max_workers` (there may be less work than room)."""
        size = self._look_at_nodes()
        while len(self.workers) < min(self._wanted, max(1, max_workers)):
            self.workers.append(self._start(size))

    def _look_at_nodes(self) -> WorkerSize:
        now_s = time.monotonic()
        if self.size is not None and now_s - self._looked_s <= NODES_EVERY_S:
            return self.size
        nodes = _live_nodes()
        resources: list[Resources] = [n["Resources"] for n in nodes]
        self._node_ids = frozenset(n["NodeID"] for n in nodes)
        if self.size is None or not self.workers:
            self.size = size_workers(self.config, resources)
        self._wanted = count_workers(self.config, self.size, resources)
        self._looked_s = now_s
        return self.size

    def _start(self, size: WorkerSize) -> WorkerHandle:
        options: dict[str, Any] = {
            "num_cpus": size.num_cpus,
            "num_gpus": size.num_gpus,
            # One call more than shards in flight, so that `items_in_flight` is answered while they run.
            "max_concurrency": self.config.shards_in_flight + 1,
            "max_restarts": 0,  # the driver replaces a lost worker, because it knows its shards
            "scheduling_strategy": "SPREAD",
        }
        if not self.own_cluster:
            options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(size.threads), **MALLOC_ENV}}
        actor = ray.remote(ShardWorker).options(**options).remote(self.task, size.threads, _find_place)
        placing, loading = actor.place.remote(), actor.load.remote()
        worker = WorkerHandle(actor=actor, placing=placing, loading=loading, nodes_at_start=self._node_ids)
        self._expect(placing, worker)
        self._expect(loading, worker)
        return worker

    def _expect(self, call: Any, worker: WorkerHandle) -> None:  # noqa: ANN401 - Ray is untyped
        """Have Ray tell when a call is answered, in whatever way it ends."""
        self._calls[call] = worker
        answered = self._answered
        call.future().add_done_callback(lambda _: answered.put(call))

    def submit(self, worker: WorkerHandle, assignment: Assignment) -> None:
        """Have a worker carry out an assignment."""
        step, bisection, actor = assignment.step, assignment.bisection, worker.actor
        if step is None or bisection is None:
            call = actor.run.remote(assignment.shard, {}, "normal")
        elif step.action == "run":
            call = actor.run.remote(assignment.shard, bisection.poison, step.memory)
        elif step.action == "probe":
            call = actor.probe.remote(assignment.shard, bisection.poison, step.memory)
        else:
            call = actor.run_isolated.remote(assignment.shard, assignment.timeout_s)
        worker.assignments[call] = assignment
        self._expect(call, worker)

    def wait(self, timeout_s: float) -> list[WorkerAnswer]:
        """All answers that are ready; waits for the first at most so long."""
        if not self._calls:
            time.sleep(timeout_s * IDLE_SHARE)
            return []
        answers = []
        for call in self._take_answered(timeout_s):
            worker = self._calls.pop(call, None)
            if worker is not None:  # else it was removed meanwhile
                answers.append(_answer(worker, call))
        return answers

    def _take_answered(self, timeout_s: float) -> list[Any]:
        calls = []
        with suppress(Empty):
            calls.append(self._answered.get(timeout=timeout_s))
            while True:
                calls.append(self._answered.get_nowait())
        return [*calls, *self._ask_for_all()]

    def _ask_for_all(self) -> list[Any]:
        now_s, calls = time.monotonic(), list(self._calls)
        if now_s - self._asked_all_s <= ASK_ALL_EVERY_S or not calls:
            return []
        self._asked_all_s = now_s
        ready: list[Any] = ray.wait(calls, num_returns=len(calls), timeout=0)[0]
        return ready

    def ready_answers(self, worker: WorkerHandle) -> list[WorkerAnswer]:
        """The answers to a worker's assignments that are ready now."""
        calls = list(worker.assignments)
        ready = ray.wait(calls, num_returns=len(calls), timeout=0)[0] if calls else []
        return [_answer(worker, call) for call in ready]

    def items_in_flight(self) -> int:
        """Items judged of shards that are not committed yet, as the workers told within the last seconds."""
        self._ask_for_progress(time.monotonic())
        calls = list(self._questions)
        for call in ray.wait(calls, num_returns=len(calls), timeout=0)[0] if calls else []:
            worker = self._questions.pop(call)
            answer = _answer(worker, call)
            self._told[id(worker)] = answer.value if answer.ending == "done" else 0
        return sum(self._told.get(id(worker), 0) for worker in self.workers if worker.assignments)

    def _ask_for_progress(self, now_s: float) -> None:
        if now_s - self._asked_s <= PROGRESS_EVERY_S * max(1.0, len(self.workers) / PROGRESS_WORKERS):
            return
        self._asked_s = now_s
        asked = {id(worker) for worker in self._questions.values()}
        for worker in self.workers:
            if worker.assignments and worker.loading is None and id(worker) not in asked:
                self._questions[worker.actor.items_in_flight.remote()] = worker

    def is_node_gone(self, worker: WorkerHandle) -> bool:
        """Whether the worker's node has left the cluster; for a worker that was never placed, whether any node has."""
        alive = {n["NodeID"] for n in _live_nodes()}
        return not alive.issuperset({worker.node} if worker.node is not None else worker.nodes_at_start)

    def node_resources(self) -> list[Resources]:
        """The resources of the nodes that are alive."""
        return [n["Resources"] for n in _live_nodes()]

    def remove(self, worker: WorkerHandle) -> None:
        """End a worker and forget it."""
        ray.kill(worker.actor, no_restart=True)
        self._told.pop(id(worker), None)
        for call in (worker.placing, worker.loading, *worker.assignments):
            self._calls.pop(call, None)
        self._questions = {call: of for call, of in self._questions.items() if of is not worker}
        if worker in self.workers:
            self.workers.remove(worker)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self.workers):
            self.remove(worker)


def _find_place() -> WorkerPlace:
    """Where this actor runs; called in it."""
    context = ray.get_runtime_context()
    return WorkerPlace(node=context.get_node_id(), gpu_ids=context.get_accelerator_ids().get("GPU", []))


def _live_nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster that are alive, as Ray describes them."""
    return [n for n in ray.nodes() if n["Alive"]]


def _answer(worker: WorkerHandle, call: Any) -> WorkerAnswer:  # noqa: ANN401 - Ray is untyped
    try:
        value = ray.get(call)
    except RayTaskError as error:
        cause = error.cause
        return WorkerAnswer(worker=worker, call=call, ending="raised", error=cause, detail=_detail(cause))
    except ActorUnavailableError as error:
        # A lost node looks like this at first; a process that is gone is reported as a death.
        return WorkerAnswer(worker=worker, call=call, ending="unreachable", error=error, detail=_detail(error))
    except RayError as error:
        # Mostly the process is gone; a fresh worker is also the remedy for whatever else prevents an answer.
        return WorkerAnswer(worker=worker, call=call, ending="died", error=error, detail=_detail(error))
    return WorkerAnswer(worker=worker, call=call, ending="done", value=value)


def _detail(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error, 300)}"

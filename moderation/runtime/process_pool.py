"""The worker pool of one machine without a cluster: each worker is a process that this one has started."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from moderation.config.model import RuntimeConfig
from moderation.errors import one_line
from moderation.runtime.machine import GpuShares, WorkerShare, find_gpus, machine_resources
from moderation.runtime.messages import MethodAnswer, MethodCall, WorkerSetup
from moderation.runtime.process_channel import ProcessChannel, ProcessEnd, WorkerEndedError
from moderation.runtime.sizing import Resources, WorkerSize
from moderation.runtime.task import WorkerTask
from moderation.runtime.worker import MALLOC_ENV, WorkerPlace
from moderation.runtime.worker_pool import Assignment, WorkerAnswer, WorkerHandle

# Workers are asked this often, and answer between two batches: a bar that moves once a second is smooth enough.
PROGRESS_EVERY_S = 1.0
# With no call to wait for, the pool sleeps for this share of the timeout: the listing may have a shard soon.
IDLE_SHARE = 0.2


@dataclass(slots=True, kw_only=True)
class ProcessWorkerPool:
    """The workers of a run as processes of one task on this machine."""

    task: WorkerTask
    config: RuntimeConfig
    workers: list[WorkerHandle] = field(default_factory=list)
    size: WorkerSize | None = None
    _gpus: GpuShares = field(default_factory=lambda: GpuShares(ids=find_gpus()))
    _node: str = field(default_factory=socket.gethostname)
    _numbers: Iterator[int] = field(default_factory=count)
    # What the threads of the channels have heard, and which call is of which worker while it has no answer.
    _heard: SimpleQueue[tuple[ProcessChannel, MethodAnswer | ProcessEnd]] = field(default_factory=SimpleQueue)
    _calls: dict[int, WorkerHandle] = field(default_factory=dict)
    _answers: list[WorkerAnswer] = field(default_factory=list)  # not handed out by `wait` yet
    _asked_s: float = float("-inf")
    _questions: dict[int, WorkerHandle] = field(default_factory=dict)
    _told: dict[int, int] = field(default_factory=dict)  # items in flight, by the process

    def fill(self, max_workers: int) -> None:
        """Start workers up to what is wanted, never more than `max_workers` (there may be less work than room).

        Raises UsageError where this machine has no room for one, FatalError where it starts no more processes.
        """
        share = WorkerShare.of(self.config, self.node_resources()[0])
        self.size = share.size
        while len(self.workers) < min(share.workers, max(1, max_workers)):
            self.workers.append(self._start(share.size))

    def _start(self, size: WorkerSize) -> WorkerHandle:
        gpu_ids = self._gpus.take(size.num_gpus)
        setup = WorkerSetup(
            task=(f"{type(self.task).__module__}:{type(self.task).__qualname__}", self.task.to_json()),
            threads=size.threads,
            # One call more than shards in flight, so that `items_in_flight` is answered while they run.
            calls=self.config.shards_in_flight + 1,
            place=WorkerPlace(node=self._node, gpu_ids=gpu_ids),
        )
        channel = ProcessChannel(setup, _environment(size, gpu_ids), self._note_heard)
        worker = WorkerHandle(
            actor=channel,
            placing=next(self._numbers),
            loading=next(self._numbers),
            placed_s=time.monotonic(),  # it has its room; the time to load runs from here
        )
        for number, method in ((worker.placing, "place"), (worker.loading, "load")):
            self._ask(worker, number, method)
        return worker

    def _note_heard(self, channel: ProcessChannel, heard: MethodAnswer | ProcessEnd) -> None:
        self._heard.put((channel, heard))

    def _ask(self, worker: WorkerHandle, number: Any, method: str, *arguments: object) -> None:  # noqa: ANN401 - a call
        channel: ProcessChannel = worker.actor
        self._calls[number] = worker
        if channel.end is not None:  # its end has been told already, to those that waited then
            self._heard.put((channel, channel.end))
        else:
            channel.ask(MethodCall(number=number, method=method, arguments=arguments))

    def submit(self, worker: WorkerHandle, assignment: Assignment) -> None:
        """Have a worker carry out an assignment."""
        step, bisection, shard = assignment.step, assignment.bisection, assignment.shard
        number = next(self._numbers)
        worker.assignments[number] = assignment
        if step is None or bisection is None:
            self._ask(worker, number, "run", shard, {}, "normal")
        elif step.action == "isolated":
            self._ask(worker, number, "run_isolated", shard, assignment.timeout_s)
        else:
            self._ask(worker, number, step.action, shard, dict(bisection.poison), step.memory)

    def wait(self, timeout_s: float) -> list[WorkerAnswer]:
        """All answers that are ready; waits for the first at most so long."""
        if not self._calls and not self._answers:
            time.sleep(timeout_s * IDLE_SHARE)
            return []
        self._hear(0.0 if self._answers else timeout_s)
        answers, self._answers = self._answers, []
        return answers

    def ready_answers(self, worker: WorkerHandle) -> list[WorkerAnswer]:
        """The answers to a worker's assignments that are ready now."""
        self._hear(0.0)
        return [answer for answer in self._answers if answer.worker is worker and answer.call in worker.assignments]

    def _hear(self, timeout_s: float) -> None:
        """Take what the channels have heard; waits for the first at most so long."""
        try:
            self._take(*self._heard.get(timeout=timeout_s) if timeout_s else self._heard.get_nowait())
            while True:
                self._take(*self._heard.get_nowait())
        except Empty:
            return

    def _take(self, channel: ProcessChannel, heard: MethodAnswer | ProcessEnd) -> None:
        if isinstance(heard, ProcessEnd):
            self._take_end(channel, heard)
        elif heard.number in self._questions:
            del self._questions[heard.number]
            self._told[channel.pid] = heard.value() if heard.ending == "done" else 0
        elif (worker := self._calls.pop(heard.number, None)) is not None:  # else it was removed meanwhile
            self._answers.append(_answer(worker, heard))

    def _take_end(self, channel: ProcessChannel, end: ProcessEnd) -> None:
        lost = [number for number, worker in self._calls.items() if worker.actor is channel]
        for number in lost:
            worker = self._calls.pop(number)
            self._answers.append(
                WorkerAnswer(
                    worker=worker,
                    call=number,
                    ending="died",
                    error=WorkerEndedError(end.detail),
                    detail=end.detail,
                    ended_by=end.ended_by,
                )
            )

    def items_in_flight(self) -> int:
        """Items judged of shards that are not committed yet, as the workers told within the last seconds."""
        self._ask_for_progress(time.monotonic())
        self._hear(0.0)
        return sum(self._told.get(worker.actor.pid, 0) for worker in self.workers if worker.assignments)

    def _ask_for_progress(self, now_s: float) -> None:
        if now_s - self._asked_s <= PROGRESS_EVERY_S:
            return
        self._asked_s = now_s
        asked = {id(worker) for worker in self._questions.values()}
        for worker in self.workers:
            if worker.assignments and worker.loading is None and id(worker) not in asked:
                number = next(self._numbers)
                self._questions[number] = worker
                worker.actor.ask(MethodCall(number=number, method="items_in_flight"))

    def is_node_gone(self, worker: WorkerHandle) -> bool:
        """Never: the node is this machine."""
        return False

    def node_resources(self) -> Sequence[Resources]:
        """Those of this machine."""
        return [machine_resources(self._gpus.ids)]

    def remove(self, worker: WorkerHandle) -> None:
        """End a worker, with all that it has started, and forget it."""
        channel: ProcessChannel = worker.actor
        channel.kill()
        self._told.pop(channel.pid, None)
        self._calls = {number: of for number, of in self._calls.items() if of is not worker}
        self._questions = {number: of for number, of in self._questions.items() if of is not worker}
        self._answers = [answer for answer in self._answers if answer.worker is not worker]
        if worker in self.workers:
            self.workers.remove(worker)
            self._gpus.give_back(channel.gpu_ids, self.size.num_gpus if self.size is not None else 0.0)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self.workers):
            self.remove(worker)


def _environment(size: WorkerSize, gpu_ids: Sequence[str]) -> dict[str, str]:
    """The variables of a worker: this process's, with its share of the cores and GPUs, and the same modules."""
    folders = [folder or str(Path.cwd()) for folder in sys.path]
    return {
        **os.environ,
        **MALLOC_ENV,
        "OMP_NUM_THREADS": str(size.threads),
        "CUDA_VISIBLE_DEVICES": ",".join(gpu_ids),
        "PYTHONPATH": os.pathsep.join(folders),
        # The driver tells the last line that a process wrote; a dump of stacks would bury it.
        "PYTHONFAULTHANDLER": "",
    }


def _answer(worker: WorkerHandle, heard: MethodAnswer) -> WorkerAnswer:
    value = heard.value()
    if heard.ending == "done" and not isinstance(value, BaseException):
        return WorkerAnswer(worker=worker, call=heard.number, ending="done", value=value)
    detail = f"{type(value).__name__}: {one_line(value, 300)}"
    return WorkerAnswer(worker=worker, call=heard.number, ending="raised", error=value, detail=detail)

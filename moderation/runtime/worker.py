"""The worker: owns one device (or some CPU threads), loads its task once and runs shards.

It is a Ray actor, or the object inside a process of this machine: its pool tells it where it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moderation import storage
from moderation.errors import ItemError
from moderation.lean_imports import leave_pandas_out
from moderation.pipeline.counters import peak_memory_bytes
from moderation.runtime.isolated_run import run_isolated
from moderation.runtime.task import MemoryMode, WorkerTask
from moderation.types import Shard

# Freed activations stay in the process: returning them and faulting them in again for each batch cost a third of the
# networks' time (37 against 58 images/s of open_nsfw in eager fp32 on two cores).
MALLOC_ENV = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "536870912"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlace:
    """Where a worker runs, as its pool knows it. gpu_ids: of the GPUs that are its own."""

    node: str
    gpu_ids: Sequence[str]


class ShardWorker:
    """Runs shards of one task; `shards_in_flight` of its methods run at once, in threads."""

    def __init__(self, task: WorkerTask, threads: int, find_place: Callable[[], WorkerPlace]) -> None:
        # Nothing here can fail; an error in `load` reaches the driver as its own exception.
        self._task = task
        self._threads = threads
        self._find_place = find_place

    def place(self) -> dict[str, Any]:
        """Where this process runs; answers before `load`, which may take minutes."""
        return {"node": self._find_place().node, "pid": os.getpid()}

    def load(self) -> dict[str, Any]:
        """Load the task; facts about this worker. Raises UsageError, FatalError."""
        # Read by the libraries of networks when they are loaded, which is in `load`.
        os.environ["OMP_NUM_THREADS"] = str(self._threads)
        leave_pandas_out()
        task_facts = self._task.load(self._threads)
        return {
            **task_facts,
            "threads": self._threads,
            "gpu_ids": list(self._find_place().gpu_ids),
            **self.place(),
            "loaded_memory_bytes": peak_memory_bytes(),
        }

    def run(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> dict[str, Any]:
        """Run and commit a shard; its receipt as a dict, with this worker's name."""
        before = storage.retries()
        receipt = self._task.run(shard, poison, memory)
        retries = storage.retries() - before  # retries of a shard that runs at the same time count for both
        return receipt | {"worker": f"{self.place()['node'][:12]}/{os.getpid()}", "storage_retries": retries}

    def items_in_flight(self) -> int:
        """Items of running shards that have a row already."""
        return self._task.items_in_flight()

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> int:
        """Go through a shard without committing; returns the rows."""
        return self._task.probe(shard, poison, memory)

    def run_isolated(self, shard: Shard, timeout_s: float) -> str:
        """How an isolated run of these items ends."""
        return run_isolated(self._task, shard, threads=self._threads, timeout_s=timeout_s)

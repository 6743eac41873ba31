"""Which worker gets what next: shards breadth first, and steps of a search in a suspect shard between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from moderation.config.model import RuntimeConfig
from moderation.runtime.assigning import assign_shard, assign_step
from moderation.runtime.retries import Retries
from moderation.runtime.worker_pool import WorkerHandle, WorkerPool


@dataclass(slots=True, kw_only=True)
class Handout:
    """Hands work to those workers that have room.

    Only workers that have answered since they were full are looked at: to look at a thousand for each shard cost as
    much as all else that the driver does.

    decode_timeout_s: of one item; see `shard_timeout_s`.
    """

    pool: WorkerPool
    retries: Retries
    config: RuntimeConfig
    decode_timeout_s: float = 0.0
    _open: dict[WorkerHandle, None] = field(default_factory=dict)  # loaded; in the order of their answers

    def add(self, worker: WorkerHandle) -> None:
        """Note that a worker may have room: it has loaded, or answered."""
        self._open[worker] = None

    def remove(self, worker: WorkerHandle) -> None:
        """Forget a worker that is gone."""
        self._open.pop(worker, None)

    def hand_out(self, now_s: float) -> None:
        """Give each worker as much as it has room for, and as there is."""
        self._fill(now_s)
        self._open = {worker: None for worker in self._open if self._has_room(worker)}

    def _fill(self, now_s: float) -> None:
        searcher = self._next_searcher()
        # Breadth first: a worker's second shard waits until every worker has one.
        for depth in range(self.config.shards_in_flight):
            for worker in self._open:
                if len(worker.assignments) != depth or worker.bisecting:
                    continue
                if worker is searcher:
                    if depth == 0:
                        self._search_with(worker, now_s)
                elif not self._assign_to(worker, now_s):
                    return  # what one does not get, the others do not either

    def _has_room(self, worker: WorkerHandle) -> bool:
        return len(worker.assignments) < self.config.shards_in_flight and not worker.bisecting

    def _next_searcher(self) -> WorkerHandle | None:
        """The worker that is to search a suspect shard next, once it is free; one at a time."""
        if not self.retries.search_is_due or any(worker.bisecting for worker in self.pool.workers):
            return None
        loaded = [worker for worker in self.pool.workers if worker.loading is None]
        return min(loaded, key=lambda worker: len(worker.assignments), default=None)

    def _assign_to(self, worker: WorkerHandle, now_s: float) -> bool:
        """Give a worker a shard, or the next step of a search where it has nothing; returns whether there was any."""
        shard = self.retries.take_shard(now_s)
        if shard is not None:
            self.retries.count_shard()
            decode_s = self.decode_timeout_s / self._decode_threads()
            self.pool.submit(worker, assign_shard(shard, self.config, now_s, decode_s=decode_s))
            return True
        return not worker.assignments and self._search_with(worker, now_s)

    def _search_with(self, worker: WorkerHandle, now_s: float) -> bool:
        bisection = self.retries.next_bisection()
        if bisection is not None:
            # With little memory one thread decodes.
            self.pool.submit(worker, assign_step(bisection, self.config, now_s, decode_s=self.decode_timeout_s))
        return bisection is not None

    def _decode_threads(self) -> int:
        """As in `make_task_pools`."""
        if self.config.decode_threads != "auto":
            return self.config.decode_threads
        return 1 if self.pool.size is None else self.pool.size.threads

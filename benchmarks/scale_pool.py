"""What Ray costs the driver: the real worker pool with 2,000 calls in flight, of a thousand workers that are one actor.

Processor milliseconds of the driver's process, Ray's threads in it among them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray

from benchmarks.simulated_pool import ShardSupply, shard_receipt
from moderation.config.model import RuntimeConfig
from moderation.runtime.ray_pool import RayWorkerPool
from moderation.runtime.worker_pool import Assignment, WorkerHandle
from moderation.types import Shard

WORKERS = 1000
SHARDS = 200


class _Workers:
    """All workers: they answer `run` at once, and a shard of the name `hang` never."""

    async def run(self, shard: Shard, _poison: object, _memory: str) -> dict[str, Any]:
        if shard.shard_id == "hang":
            await asyncio.sleep(3600.0)
        return shard_receipt(shard.shard_id, len(shard.items))

    async def items_in_flight(self) -> int:
        return 1


def measure_pool() -> dict[str, Any]:
    """Milliseconds of submitting and of taking an answer, and of asking all workers how far they are."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        actor = ray.remote(_Workers).options(num_cpus=1, max_concurrency=4 * WORKERS).remote()
        ray.get(actor.items_in_flight.remote())
        pool = RayWorkerPool(task=None, config=RuntimeConfig())  # type: ignore[arg-type] # starts no workers
        pool.workers = [WorkerHandle(actor=actor, loading=None) for _ in range(WORKERS)]
        hang = Shard(shard_id="hang", items=())
        for worker in pool.workers:
            for _ in range(2):
                pool.submit(worker, _assignment(hang))
        time.sleep(3.0)
        record: dict[str, Any] = {"workers": WORKERS, "calls_in_flight": 2 * WORKERS}
        for items in (2, 256):
            record[f"{items} items a shard"] = _measure_shards(pool, list(ShardSupply(shards=SHARDS, items=items)))
        began_s = time.process_time()
        pool.items_in_flight()
        time.sleep(3.0)
        pool.items_in_flight()
        record["asking_all_workers_ms"] = round((time.process_time() - began_s) * 1e3, 1)
        return record
    finally:
        ray.shutdown()


def _measure_shards(pool: RayWorkerPool, shards: list[Shard]) -> dict[str, float]:
    """One shard after another, so that each answer comes in a round of its own."""
    submit_s = take_s = 0.0
    for number, shard in enumerate(shards):
        worker = pool.workers[number]
        began_s = time.process_time()
        pool.submit(worker, _assignment(shard))
        submit_s += time.process_time() - began_s
        began_s, taken = time.process_time(), 0
        while not taken:
            for answer in pool.wait(0.5):
                assert answer.ending == "done"
                answer.worker.assignments.pop(answer.call)
                taken += 1
        take_s += time.process_time() - began_s
    return {
        "submit_ms": round(submit_s / len(shards) * 1e3, 3),
        "answer_ms": round(take_s / len(shards) * 1e3, 3),
    }


def _assignment(shard: Shard) -> Assignment:
    return Assignment(shard=shard, timeout_s=60.0, deadline_s=60.0)

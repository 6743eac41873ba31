"""The one way to the workers of a run: Ray's, or processes of this machine, as the configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from moderation.config.model import RuntimeConfig
from moderation.config.pool_choice import PoolKind, choose_pool
from moderation.runtime.machine import WorkerShare, find_gpus, machine_resources
from moderation.runtime.process_pool import ProcessWorkerPool
from moderation.runtime.state import Progress
from moderation.runtime.task import WorkerTask
from moderation.runtime.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPool:
    """A pool without workers yet, and what counts its run for others to see; None where nobody can ask."""

    pool: WorkerPool
    meters: Progress | None = None


def check_pool(config: RuntimeConfig) -> PoolKind:
    """The pool of a run, which can start here. Raises UsageError: against a cluster, or larger than this machine."""
    kind = choose_pool(config)
    if kind == "processes":
        WorkerShare.of(config, machine_resources(find_gpus()))
    return kind


@contextmanager
def open_pool(kind: PoolKind, task: WorkerTask, config: RuntimeConfig, run_id: str) -> Iterator[OpenedPool]:
    """A pool of this kind; Ray is joined or started for it, and left with the context.

    kind: of `check_pool`. Whoever drives the pool closes it.
    Raises FatalError, UsageError as `cluster.connect`.
    """
    if kind == "processes":
        yield OpenedPool(pool=ProcessWorkerPool(task=task, config=config))
        return
    from moderation.runtime.cluster import connect, leave  # Ray only for its own pool
    from moderation.runtime.metrics import Meters
    from moderation.runtime.ray_pool import RayWorkerPool

    try:
        own_cluster = connect(config)
        pool = RayWorkerPool(task=task, config=config, own_cluster=own_cluster)
        yield OpenedPool(pool=pool, meters=Meters(run_id))
    finally:
        leave()

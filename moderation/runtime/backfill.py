"""The job: a source in, a dataset of verdicts out; resumable, with an outcome."""

from __future__ import annotations

import os
from dataclasses import dataclass

from moderation.config.model import Config, RuntimeConfig
from moderation.config.pool_choice import choose_pool
from moderation.errors import UsageError
from moderation.planning.plan import list_shards
from moderation.planning.slices import Slice
from moderation.results.output import check_output
from moderation.runtime.judging_task import JudgingTask
from moderation.runtime.machine import WorkerShare, find_gpus, machine_resources
from moderation.runtime.prepare import prepare_run
from moderation.runtime.resume import RunOutcome, resume_run
from moderation.runtime.run import Run
from moderation.runtime.sizing import count_workers, size_workers


def backfill(
    source: str,
    out: str,
    config: Config,
    *,
    limit: int | None = None,
    fresh: bool = False,
    max_hours: float | None = None,
    max_items: int | None = None,
    part: Slice | None = None,
) -> RunOutcome:
    """Judge every item of a source that has no committed verdict in OUT.

    limit: only the first items of the source (part of the run's identity). max_hours, max_items: end by plan; the next
    call goes on. part: only this slice of the shards; `merge` makes one dataset of all slices.
    Raises UsageError before any work starts, FatalError (resumable) afterwards.
    """
    run = prepare_run(source, out, config, limit, part, fresh=fresh)
    if fresh and part is not None:
        raise UsageError("--fresh with --slice would delete the tables of the other slices; use a new OUT")
    return resume_run(run, judging_task(run), fresh=fresh, max_hours=max_hours, max_items=max_items)


def judging_task(run: Run) -> JudgingTask:
    """The task for the workers of a run."""
    return JudgingTask(config=run.config, policy=run.policy, facts=run.facts, out=run.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run would do."""

    run_id: str
    items: int
    shards: int
    size_bytes: int
    unknown_sizes: int  # items of unknown size
    errors: int  # items that are errors before anything is read
    committed_shards: int
    workers: int
    num_cpus: float
    num_gpus: float
    problems: tuple[str, ...] = ()  # why the run would not succeed


def preview(
    source: str,
    out: str,
    config: Config,
    *,
    limit: int | None = None,
    fresh: bool = False,
    part: Slice | None = None,
) -> Preview:
    """The plan in numbers, and what would stop the run: tries to write to OUT, looks for weights and extras.

    Leaves nothing written and asks no cluster: workers are those of this machine.

    Raises UsageError.
    """
    from moderation.doctor.rehearsal import find_obstacles

    run = prepare_run(source, out, config, limit, part, fresh=fresh)
    committed = set() if fresh else check_output(run)
    items = shards = size_bytes = unknown_sizes = errors = committed_shards = 0
    for shard in list_shards(run.source, config, limit=limit, slice_=part):
        shards += 1
        items += len(shard.items)
        size_bytes += shard.size_bytes
        unknown_sizes += sum(1 for item in shard.items if not item.size_bytes and item.error is None)
        errors += sum(1 for item in shard.items if item.error is not None)
        committed_shards += shard.shard_id in committed
    share = _foresee_workers(config.runtime)
    return Preview(
        run_id=run.facts.run_id,
        items=items,
        shards=shards,
        size_bytes=size_bytes,
        unknown_sizes=unknown_sizes,
        errors=errors,
        committed_shards=committed_shards,
        workers=min(max(shards - committed_shards, 0), share.workers),
        num_cpus=share.size.num_cpus,
        num_gpus=share.size.num_gpus,
        problems=tuple(find_obstacles(config, run.out)),
    )


def _foresee_workers(config: RuntimeConfig) -> WorkerShare:
    """The workers that this machine would run. Raises UsageError where processes have no room in it."""
    if choose_pool(config) == "processes":
        return WorkerShare.of(config, machine_resources(find_gpus()))
    import torch  # seconds that only a preview pays: a run asks Ray

    nodes = [{"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(torch.cuda.device_count())}]
    size = size_workers(config, nodes)
    return WorkerShare(size=size, workers=count_workers(config, size, nodes))

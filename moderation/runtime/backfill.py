"""The job: a source in, a dataset of verdicts out; resumable, and told how it went."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from moderation import storage
from moderation.config.model import Config
from moderation.errors import ModerationError, UsageError
from moderation.planning.names import plan_uri
from moderation.planning.plan import list_shards, plan_shards, read_shard_sizes
from moderation.planning.slices import Slice
from moderation.results.finish import finish_run
from moderation.results.layout import summary_uri
from moderation.results.output import check_output, nothing_left, start_over
from moderation.results.record import write_record
from moderation.runtime.cluster import connect, leave
from moderation.runtime.driver import drive
from moderation.runtime.metrics import Meters
from moderation.runtime.progress import Several, make_progress
from moderation.runtime.run import Run, prepare_run
from moderation.runtime.shard_queue import Feed
from moderation.runtime.state import Stop, Tally
from moderation.runtime.worker import ShardWorker
from moderation.runtime.worker_pool import Crew, share_out, wanted_workers
from moderation.sources import open_source
from moderation.types import Shard

# Shards that wait in the driver: enough for two for each of a hundred workers; a plan row is a few hundred bytes.
FEED_SHARDS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended. `nothing_left`: an earlier call had already done it all."""

    summary: Mapping[str, Any]
    nothing_left: bool
    partial: bool
    error_rate: float
    max_error_rate: float

    @property
    def too_many_errors(self) -> bool:
        """Whether the call should end with exit code 3."""
        return self.error_rate > self.max_error_rate


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
) -> Outcome:
    """Judge every item of a source that OUT has no committed verdict of.

    limit: only the first items of the source (part of the run's identity). max_hours, max_items: end by plan; the next
    call goes on. part: only this slice of the shards; `merge` makes one dataset of all slices.
    Raises UsageError before any work starts, FatalError (resumable) afterwards.
    """
    run = prepare_run(source, out, config, limit, part)
    if fresh and part is not None:
        raise UsageError("--fresh with --slice would delete the tables of the other slices; use a new OUT")
    if fresh:
        # A wrong source must not cost the tables that are there.
        open_source(run.source, config.source)
        start_over(run.out)
    committed = check_output(run)
    if nothing_left(run, committed):
        return outcome_of(run, read_summary(run), nothing_left=True)
    shards = plan_shards(run.source, run.home, config, limit=limit, part=part)
    judged = judge_plan(run, shards, committed, max_hours=max_hours, max_items=max_items)
    summary = finish_run(run, judged.ids, wall_s=judged.wall_s, partial=judged.partial, facts=judged.facts)
    return outcome_of(run, summary, nothing_left=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of a plan in one call. ids: of the shards that were planned. facts: for the summary."""

    ids: Sequence[str]
    wall_s: float
    partial: bool
    facts: Mapping[str, Any]


def judge_plan(
    run: Run,
    shards: Iterator[Shard],
    committed: set[str],
    *,
    max_hours: float | None = None,
    max_items: int | None = None,
    stop: Stop | None = None,
    worker: type[ShardWorker] = ShardWorker,
) -> Judged:
    """Have the shards of a plan judged by Ray actors: all that have no receipt, or as many as there is time for.

    stop: how others than a signal may ask for the end. worker: the actor that does it.
    Raises FatalError (resumable), and what `shards` raises.
    """
    write_record(run, "running")
    began_s = time.monotonic()
    stop = stop or Stop()
    with make_progress(run.facts.run_id) as shown:
        feed = Feed(lambda: shards, committed, FEED_SHARDS)
        try:
            connect(run.config.runtime)
            crew = Crew(config=run.config, policy=run.policy, facts=run.facts, out=run.out, worker=worker)
            progress = Several((shown, Meters(run.facts.run_id)))
            # Only now: Ray puts a handler of its own in place when it connects.
            with _stop_on_signals(stop, run.config.runtime.grace_s):
                tally = drive(crew, feed, run.config.runtime, progress, stop, _enough(began_s, max_hours, max_items))
        except ModerationError as error:
            write_record(run, "failed", error=str(error))
            raise
        finally:
            leave()
    before = len(committed) if run.part is None else feed.planned.committed_shards
    facts = _tally_facts(tally, committed=before, reason=stop.reason)
    if run.part is not None:
        facts["slice"] = str(run.part)
    return Judged(ids=feed.ids, wall_s=time.monotonic() - began_s, partial=tally.partial, facts=facts)


def _enough(began_s: float, max_hours: float | None, max_items: int | None) -> Callable[[Tally], bool]:
    def enough(tally: Tally) -> bool:
        late = max_hours is not None and time.monotonic() - began_s >= max_hours * 3600
        return late or (max_items is not None and tally.items >= max_items)

    return enough


@contextmanager
def _stop_on_signals(stop: Stop, grace_s: float) -> Iterator[None]:
    """SIGTERM (an evicted pod) and Ctrl-C ask the run to end; a second Ctrl-C ends it at once.

    A second SIGTERM does not: who evicts a pod may send several, and each would cut the grace short.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT or not stop.requested:
            stop.request(signal.Signals(number).name, grace_s)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tally_facts(tally: Tally, *, committed: int, reason: str) -> dict[str, Any]:
    return {
        "shards_this_call": tally.receipts,
        "items_this_call": tally.items,
        "frames_this_call": tally.frames,
        "shards_before": committed,
        "retries": dict(sorted(tally.retries.items())),
        "workers": tally.workers,
        "worker_memory_beyond_models_bytes": tally.max_worker_memory_bytes,
        "stopped_by": reason or None,
    }


def read_summary(run: Run, *, judged: bool = True) -> dict[str, Any]:
    """`summary.json` of a run whose shards are all committed; written now if the call died before it could.

    judged: whether there are verdicts to show.
    """
    data = storage.read_optional(summary_uri(run.home))
    found: dict[str, Any] = json.loads(data) if data is not None else {}
    if found.get("state") != "done":
        planned = read_shard_sizes(plan_uri(run.home)) or {}
        return finish_run(run, list(planned), wall_s=0.0, partial=False, facts={}, judged=judged)
    return found


def outcome_of(run: Run, summary: Mapping[str, Any], *, nothing_left: bool) -> Outcome:
    """How a call ended, by the summary that it left."""
    return Outcome(
        summary=summary,
        nothing_left=nothing_left,
        partial=summary.get("state") == "partial",
        error_rate=float(summary.get("error_rate", 0.0)),
        max_error_rate=run.config.runtime.max_error_rate,
    )


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


def preview(
    source: str,
    out: str,
    config: Config,
    *,
    limit: int | None = None,
    fresh: bool = False,
    part: Slice | None = None,
) -> Preview:
    """The plan in numbers; nothing is written, no cluster is asked: workers are those of this machine.

    Raises UsageError.
    """
    run = prepare_run(source, out, config, limit, part)
    committed = set() if fresh else check_output(run)
    items = shards = size = unknown = errors = done = 0
    for shard in list_shards(run.source, config, limit=limit, part=part):
        shards += 1
        items += len(shard.items)
        size += shard.size_bytes
        unknown += sum(1 for item in shard.items if not item.size_bytes and item.error is None)
        errors += sum(1 for item in shard.items if item.error is not None)
        done += shard.shard_id in committed
    nodes = [{"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(torch.cuda.device_count())}]
    share = share_out(config.runtime, nodes)
    return Preview(
        run_id=run.facts.run_id,
        items=items,
        shards=shards,
        size_bytes=size,
        unknown_sizes=unknown,
        errors=errors,
        committed_shards=done,
        workers=min(max(shards - done, 0), wanted_workers(config.runtime, share, nodes)),
        num_cpus=share.num_cpus,
        num_gpus=share.num_gpus,
    )

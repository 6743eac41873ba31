"""Runs the shards of a plan by a pool of workers: from its start to its end, with progress, signals and limits."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

from moderation.errors import ModerationError, one_line
from moderation.pages.drawing import load_ahead
from moderation.results.decided import keep_inputs
from moderation.results.poison import read_poison, write_poison
from moderation.results.record import write_record
from moderation.runtime.driver import drive
from moderation.runtime.open_pool import check_pool, open_pool
from moderation.runtime.progress import ProgressGroup, make_progress
from moderation.runtime.run import Run
from moderation.runtime.shard_queue import ShardQueue
from moderation.runtime.state import PlanOutcome, Progress, RunTally, Stop
from moderation.runtime.task import WorkerTask
from moderation.types import Shard

# Shards that wait in the driver: enough for two per worker of a hundred; a plan row is a few hundred bytes.
MAX_WAITING_SHARDS = 256


def run_plan(
    run: Run,
    task: WorkerTask,
    shards: Iterator[Shard],
    committed: set[str],
    *,
    max_hours: float | None = None,
    max_items: int | None = None,
    stop: Stop | None = None,
    observe: Callable[[Progress], Mapping[str, Any]] | None = None,
) -> PlanOutcome:
    """Have workers carry out a task on the shards of a plan: all that have no receipt, or as many as there is time for.

    stop: lets the caller end the run, as a signal does. observe: called once all is done, while metrics are still
    exported; returns facts for the summary.
    Raises UsageError before any work starts, FatalError (resumable), and what `shards` raises.
    """
    runtime = run.config.runtime
    kind = check_pool(runtime)
    write_record(run, "running", pool=kind)
    if run.facts.policy_hash:
        keep_inputs(run.out, run.policy, run.config)
    began_s = time.monotonic()
    stop = stop or Stop()
    with make_progress(run.facts.run_id) as shown:
        queue = ShardQueue(lambda: shards, committed, MAX_WAITING_SHARDS)
        try:
            with open_pool(kind, task, runtime, run.facts.run_id) as opened:
                progress = ProgressGroup((shown, opened.meters) if opened.meters is not None else (shown,))
                # Only now: Ray installs a handler of its own when it connects.
                with _stop_on_signals(stop, runtime.grace_s):
                    tally = drive(
                        opened.pool,
                        queue,
                        runtime,
                        progress,
                        stop,
                        _enough(began_s, max_hours, max_items),
                        decode_timeout_s=run.config.media.decode_timeout_s,
                        poison=read_poison(run.home),
                        keep_poison=partial(write_poison, run.home),
                    )
                load_ahead()  # of the report, while Ray ends
                observed = observe(progress) if observe is not None and not tally.partial else {}
        except Exception as error:
            _record_failure(run, error, kind)
            raise
    shards_before = len(committed) if run.part is None else queue.planned.committed_shards
    facts = {"pool": kind, **_summary_facts(tally, shards_before=shards_before, stopped_by=stop.reason)}
    if tally.ready_s is not None:
        facts["startup_s"] = round(tally.ready_s - began_s, 3)
    if run.part is not None:
        facts["slice"] = str(run.part)
    facts |= observed
    wall_s = time.monotonic() - began_s
    return PlanOutcome(shard_ids=queue.ids, wall_s=wall_s, partial=tally.partial, facts=facts)


def _record_failure(run: Run, error: Exception, pool: str) -> None:
    """Note in OUT that the run has stopped; where that fails too (a full disk), the first error is the one to tell."""
    told = str(error) if isinstance(error, ModerationError) else f"{type(error).__name__}: {one_line(error, 300)}"
    with suppress(ModerationError, OSError):
        write_record(run, "failed", error=told, pool=pool)


def _enough(began_s: float, max_hours: float | None, max_items: int | None) -> Callable[[RunTally], bool]:
    def enough(tally: RunTally) -> bool:
        out_of_time = max_hours is not None and time.monotonic() - began_s >= max_hours * 3600
        return out_of_time or (max_items is not None and tally.items >= max_items)

    return enough


@contextmanager
def _stop_on_signals(stop: Stop, grace_s: float) -> Iterator[None]:
    """SIGTERM (an evicted pod) and Ctrl-C ask the run to end; a second Ctrl-C ends it at once.

    A second SIGTERM does not: an eviction may send several, and the second would cut the grace short.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request_stop(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT or not stop.requested:
            stop.request(signal.Signals(number).name, grace_s)

    handlers_before = {number: signal.signal(number, request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)


def _summary_facts(tally: RunTally, *, shards_before: int, stopped_by: str) -> dict[str, Any]:
    return {
        "shards_this_call": tally.receipts,
        "items_this_call": tally.items,
        "frames_this_call": tally.frames,
        "shards_before": shards_before,
        "retries": dict(sorted(tally.retries.items())),
        "workers": tally.workers,
        "storage_retries": tally.storage_retries,
        "worker_memory_beyond_models_bytes": tally.max_worker_memory_bytes,
        "stopped_by": stopped_by or None,
    }

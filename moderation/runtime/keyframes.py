"""The job that cuts videos into keyframe tars on CPU nodes: the backfill's loop, resume and receipts, without a stack.

`python -m moderation.runtime.keyframes PLAN CONFIG POLICY THREADS SECONDS` goes through a few items, and perhaps dies:
the worker's autopsy.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from moderation import storage
from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.media import DECODE_VERSION
from moderation.pipeline.counters import peak_memory_bytes
from moderation.pipeline.keyframes import CUT_VERSION, cut_items, cut_shard
from moderation.pipeline.pools import Pools, make_pools
from moderation.planning.plan import decode_shards, plan_shards
from moderation.results.finish import finish_run
from moderation.results.output import check_output, nothing_left, start_over
from moderation.results.record import RunFacts, run_id_of
from moderation.runtime.backfill import Outcome, judge_plan, outcome_of, read_summary
from moderation.runtime.bisection import Care
from moderation.runtime.run import Run, load_policy_of
from moderation.runtime.worker import ShardWorker, set_threads, tread_carefully
from moderation.sources import open_source
from moderation.types import Shard

# A tar is written whole, from memory: of so many videos at 64 frames of 150 KB each, 300 MB.
MOST_ITEMS = 32


class KeyframeWorker(ShardWorker):
    """Cuts shards; answers the driver as a worker that judges them does."""

    autopsy_module = "moderation.runtime.keyframes"

    def load(self) -> dict[str, Any]:
        """Start the threads; facts about this worker."""
        set_threads(1)
        wanted = self._config.runtime.decode_threads
        self._pools = make_pools(self._config, self._threads if wanted == "auto" else wanted)
        context = ray.get_runtime_context()
        return {
            "device": "cpu",
            "threads": self._threads,
            "node": context.get_node_id(),
            "pid": os.getpid(),
            "loaded_memory_bytes": peak_memory_bytes(),
        }

    def moderate(self, shard: Shard, poison: Mapping[str, ItemError], care: Care = "usual") -> dict[str, Any]:
        """Cut and commit a shard; its receipt as a dict."""
        with self._taking(care) as (config, pools):
            return asdict(cut_shard(shard, out=self._out, config=config, pools=pools, poison=poison))

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], care: Care = "usual") -> int:
        """Go through a shard without committing, to see whether it kills the process; returns the rows."""
        with self._taking(care) as (config, pools):
            return sum(1 for _ in cut_items(shard.items, config=config, pools=pools, poison=poison))

    @contextmanager
    def _taking(self, care: Care) -> Iterator[tuple[Config, Pools]]:
        """What to work with. There is no stack here."""
        if care == "usual":
            yield self._config, self._pools
        else:
            config = tread_carefully(self._config)
            yield config, make_pools(config, 1)


def cut_keyframes(
    source: str,
    out: str,
    config: Config,
    *,
    limit: int | None = None,
    fresh: bool = False,
    max_hours: float | None = None,
    max_items: int | None = None,
) -> Outcome:
    """Cut every video of a source that OUT has no committed tar of; resumable like a backfill.

    Of the configuration, `source`, `shards` (at most MOST_ITEMS items), `media` and `runtime` count; GPUs are not used.
    Raises UsageError before any work starts, FatalError (resumable) afterwards.
    """
    run = _prepare(source, out, config, limit)
    if fresh:
        # A wrong source must not cost the tars that are there.
        open_source(run.source, run.config.source)
        start_over(run.out)
    committed = check_output(run)
    if nothing_left(run, committed):
        return outcome_of(run, read_summary(run, judged=False), nothing_left=True)
    shards = plan_shards(run.source, run.home, run.config, limit=limit)
    done = judge_plan(run, shards, committed, max_hours=max_hours, max_items=max_items, worker=KeyframeWorker)
    summary = finish_run(run, done.ids, wall_s=done.wall_s, partial=done.partial, facts=done.facts, judged=False)
    return outcome_of(run, summary, nothing_left=False)


def _prepare(source: str, out: str, config: Config, limit: int | None) -> Run:
    source, out = storage.canonical(source), storage.canonical(out).rstrip("/")
    shards = config.shards.model_copy(update={"max_items": min(config.shards.max_items, MOST_ITEMS)})
    runtime = config.runtime.model_copy(update={"num_gpus": 0.0})
    config = config.model_copy(update={"shards": shards, "runtime": runtime})
    identity = {
        "source": source,
        "limit": limit,
        "source_config": config.source.model_dump(mode="json"),
        "shards": config.shards.model_dump(mode="json"),
        "media": config.media.model_dump(mode="json"),
        "keyframes": CUT_VERSION,
        "decode": DECODE_VERSION,
    }
    return Run(
        source=source,
        out=out,
        home=out,
        config=config,
        policy=load_policy_of(config),
        limit=limit,
        facts=RunFacts(run_id=run_id_of(identity), stack_fingerprint="", policy_hash=""),
        identity=identity,
    )


def main(plan: str, config_file: str, _policy: str, threads: str, seconds: str) -> None:
    """Cut the items of a plan; nothing is written."""
    config = Config.model_validate_json(Path(config_file).read_text(encoding="utf-8"))
    set_threads(int(threads))
    pools = make_pools(config, 1)
    # Its own end, should the worker that waits for it be gone.
    signal.alarm(max(1, math.ceil(float(seconds))))
    for shard in decode_shards(Path(plan).read_bytes()):
        for _ in cut_items(shard.items, config=config, pools=pools):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:6])

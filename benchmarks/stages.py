"""Each stage alone, and all together: `python -m benchmarks.stages [--items 128] [--rounds 3] [--backfill 256]`.

Alone: items a second of processor time of fetch, decode, upload, each detector, judge and write, one thread where the
stage has one. Together: processor milliseconds an item of a bare loop (decode, score, judge; nothing else) and of a
worker's own task in this process, in turn, by stack; then a real `backfill`, of which the receipts tell how long each
stage was busy and what waited for what. JSON goes to `benchmarks/results/stages.json`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.backfill_call import run_backfill
from benchmarks.machine import median, write_result
from benchmarks.peers.inputs import PHOTOGRAPHS, SMALL, make_folder
from benchmarks.stages_alone import THREADS, Alone, items_of, run_config

STACKS: Mapping[str, str] = {"default": "", "one network": "open_nsfw"}
BAR_WARM = 0.95


def measure_alone(folder: Path, rounds: int) -> dict[str, Any]:
    """Items a second of processor time by stage, and its share of an item's time; medians of the rounds."""
    spent: dict[str, list[float]] = {}
    alone = Alone(folder)
    for number in range(rounds + 1):
        for stage, seconds in alone.measure().items():
            if number:  # the first round warms up
                spent.setdefault(stage, []).append(seconds / alone.count)
    medians = {stage: median(each) for stage, each in spent.items()}
    whole = sum(medians.values())
    return {
        stage: {
            "items_per_cpu_s": float(f"{1 / seconds:.4g}"),
            "cpu_ms_an_item": round(seconds * 1e3, 4),
            "share": round(seconds / whole, 4),
        }
        for stage, seconds in medians.items()
    }


def measure_waste(folder: Path, only: str, rounds: int) -> dict[str, Any]:
    """Processor milliseconds an item: a bare loop, and the worker's task with two shards in flight."""
    from moderation.runtime.judging_task import JudgingTask

    run = run_config(only)
    items = items_of(folder)
    alone = Alone(folder, only)
    times: dict[str, list[float]] = {"bare": [], "worker": []}
    walls: dict[str, list[float]] = {"bare": [], "worker": []}
    with tempfile.TemporaryDirectory() as out:
        task = JudgingTask(config=run.config, policy=run.policy, facts=run.facts, out=out)
        task.load(THREADS)
        ways: dict[str, Callable[[], None]] = {
            "bare": alone.run_bare,
            "worker": lambda: _run_worker(task, items, run.config.runtime.shards_in_flight),
        }
        for number in range(rounds + 1):
            for name, work in ways.items():
                began_s, wall_s = time.process_time(), time.perf_counter()
                work()
                if number:
                    times[name].append((time.process_time() - began_s) / len(items) * 1e3)
                    walls[name].append((time.perf_counter() - wall_s) / len(items) * 1e3)
    cpu = {name: median(each) for name, each in times.items()}
    return {
        "cpu_ms_an_item": cpu,
        "cpu_bare_of_worker": round(cpu["bare"] / cpu["worker"], 3),
        "wall_ms_an_item": {name: median(each) for name, each in walls.items()},
        "rounds": {name: [round(value, 3) for value in each] for name, each in times.items()},
    }


def _run_worker(task: Any, items: Sequence[Any], in_flight: int) -> None:  # noqa: ANN401 - a WorkerTask
    from moderation.planning.shards import make_shard

    half = -(-len(items) // in_flight)
    shards = [make_shard(items[start : start + half]) for start in range(0, len(items), half)]
    with ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(lambda shard: task.run(shard, {}, "normal"), shards))


def measure_together(scratch: Path, items: int) -> dict[str, Any]:
    """A real `backfill`: how long each stage was busy, of the time that there were cores; and the waits."""
    folder = make_folder(scratch, SMALL, items)
    out = scratch / "out"
    job = run_backfill(folder, out, items, "--set", "shards.max_items=64")
    summary = job["summary"]
    judging_s = summary["wall_s"] - (summary.get("startup_s") or 0.0)
    return {
        "items": items,
        "images_per_s": round(job["warm"], 2),
        "judging_s": round(judging_s, 2),
        "busy_of_wall": {step: round(spent / judging_s, 4) for step, spent in summary["seconds"].items()},
        "waits_of_wall": {
            f"{who}:{kind}": round(spent / judging_s, 4)
            for who, kinds in summary["waits"].items()
            for kind, spent in kinds.items()
        },
        "bottleneck": summary["bottleneck"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backfill", type=int, default=256, help="items of the real backfill; 0: none")
    given = parser.parse_args()
    if not PHOTOGRAPHS.is_dir():
        sys.exit("no ../shared/data beside the repository: nothing to measure with")
    record: dict[str, Any] = {
        "items": given.items,
        "rounds": given.rounds,
        "timing": "processor seconds, one thread for the networks, in turn, medians; of `backfill` the clock",
        "bar_warm_of_bare": BAR_WARM,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(Path(scratch), SMALL, given.items)
        record["alone"] = measure_alone(folder, given.rounds)
        for stage, figures in record["alone"].items():
            print(f"{stage}: {figures}", flush=True)
        record["bare_and_worker"] = {}
        for name, only in STACKS.items():
            record["bare_and_worker"][name] = measure_waste(folder, only, given.rounds)
            print(name, record["bare_and_worker"][name], flush=True)
        write_result("stages", record)
        if given.backfill:
            record["together"] = measure_together(Path(scratch), given.backfill)
            print(record["together"], flush=True)
    print(write_result("stages", record))


if __name__ == "__main__":
    main()

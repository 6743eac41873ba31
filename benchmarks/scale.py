"""What the driver itself takes: `python -m benchmarks.scale [--shards 1000000] [--at FOLDER] [--only call pool]`.

The real driver with 1,000 fake workers in simulated time, over a million shards of two items each: plan, loop, receipts
and report, as processor milliseconds a shard and as peak memory of a process; Ray's pool with 2,000 calls in flight;
a million items in shards of 256; and `backfill` with one and with two workers here. Each step is a process of
its own. JSON goes to `benchmarks/results/scale.json`.

Receipts lie on the local disk: a million take 4 GB there, and are deleted at the end, unless `--at` names a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, median, write_result
from benchmarks.scale_steps import STEPS

BAR_MS = 2.0
BAR_MIB = 953  # 1 GB
ITEMS = 2
SHARD_ITEMS = 256
PARTS = ("loop", "call", "million", "pool", "workers")


def run_step(name: str, at: Path, shards: int, items: int) -> dict[str, Any]:
    """One step in a process of its own, so that its peak of memory is its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", name, "--at", str(at)]
    command += ["--shards", str(shards), "--items", str(items)]
    environment = {**os.environ, "RAY_DEDUP_LOGS": "0"}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise SystemExit(f"{name}: {ended.stderr[-3000:]}")
    record: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(name, json.dumps(record), flush=True)
    return record


def measure_call(at: Path, shards: int, items: int) -> dict[str, Any]:
    """Plan, receipts, loop and report of so many shards."""
    record: dict[str, Any] = {"shards": shards, "items_a_shard": items}
    for name in ("plan", "fill", "call", "status"):
        step = run_step(name, at, shards, items)
        if name != "fill":
            record[name] = step
    planned_ms = record["plan"]["listed, cut, written"]["cpu_ms_a_shard"]
    record["cpu_ms_a_shard_with_listing"] = round(planned_ms + record["call"]["cpu_ms_a_shard"], 4)
    record["peak_mib"] = max(record["call"]["peak_mib"], *(phase["peak_mib"] for phase in _phases(record["plan"])))
    return record


def _phases(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [phase for phase in record.values() if isinstance(phase, dict)]


def measure_workers(at: Path, pictures: int, rounds: int) -> dict[str, Any]:
    """`backfill` with one worker of two threads, and two of one, interleaved; pictures a second, warm."""
    from benchmarks.backfill_call import run_backfill
    from benchmarks.peers.inputs import SMALL, make_folder

    folder = make_folder(at, SMALL, pictures)
    rates: dict[str, list[float]] = {"1": [], "2": []}
    for number in range(rounds):
        for workers, cpus in (("1", 2), ("2", 1)):
            out = at / f"workers{workers}-{number}"
            settings = (f"runtime.workers={workers}", f"runtime.num_cpus={cpus}", "shards.max_items=64")
            job = run_backfill(folder, out, pictures, *(word for s in settings for word in ("--set", s)))
            rates[workers].append(round(job["warm"], 2))
    medians = {workers: median(each) for workers, each in rates.items()}
    return {
        "pictures": pictures,
        "images_per_s_by_workers": medians,
        "rounds": rates,
        "two_of_one": round(medians["2"] / medians["1"], 3),
    }


def main() -> None:
    """Measure and write; parts that are not asked for stay as the last record has them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=ITEMS, help="of a shard")
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at", type=Path, help="a folder to work in, which is kept")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--step", choices=(*STEPS, "pool"))
    given = parser.parse_args()
    if given.step == "pool":
        from benchmarks.scale_pool import measure_pool

        print(json.dumps(measure_pool()))
        return
    if given.step is not None:
        print(json.dumps(STEPS[given.step](given.at, given.shards, given.items)))
        return
    at = given.at or Path(tempfile.mkdtemp(prefix="scale-"))
    if given.at is not None and at.is_dir() and any(at.iterdir()):
        parser.error(f"--at {at}: not empty; what lies there would be read instead of measured")
    before = RESULTS / "scale.json"
    record: dict[str, Any] = json.loads(before.read_text()) if before.is_file() else {}
    million = 1_000_000 // SHARD_ITEMS
    measures = {
        "loop": lambda: run_step("loop", at / "loop", min(given.shards, 100_000), given.items),
        "call": lambda: measure_call(at / "call", given.shards, given.items),
        "million": lambda: measure_call(at / "million", million, SHARD_ITEMS),
        "pool": lambda: run_step("pool", at, 0, 0),
        "workers": lambda: measure_workers(at, given.pictures, given.rounds),
    }
    try:
        for name in given.only:
            record[name] = measures[name]()
    finally:
        if given.at is None:
            shutil.rmtree(at)
    record |= {"bar_cpu_ms_a_shard": BAR_MS, "bar_peak_mib": BAR_MIB, "timing": "processor seconds; one run each"}
    print(write_result("scale", {key: value for key, value in record.items() if key not in ("at", "machine")}))


if __name__ == "__main__":
    main()

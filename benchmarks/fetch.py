"""Reading small objects from S3 beside a bare concurrent s3fs loop, and listing many; JSON into benchmarks/results/.

`python -m benchmarks.fetch [--objects 20000] [--read 2000] [--size 20000]` starts `rclone serve s3` on loopback. The
bare loop is one process, one s3fs client, coroutines under a semaphore, each body thrown away; once as s3fs does it by
itself (HEAD, then GET) and once told to do a single GET. Ours is what a worker runs: `Fetcher` in
`runtime.fetch_threads` threads, in order, bounded by bytes. Rounds are interleaved, so that what else the machine does
meets all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.asyn import sync

from moderation import storage
from moderation.concurrency import map_ahead
from moderation.config.model import Config, MediaConfig, SourceConfig
from moderation.sources import open_source
from moderation.sources.fetch import Fetcher
from moderation.types import Item
from tests.s3_server import BUCKET, environment, serve_s3

ROUNDS = 3
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description="Reading and listing small objects on S3.")
    parser.add_argument("--objects", type=int, default=20_000, help="objects that are listed")
    parser.add_argument("--read", type=int, default=2_000, help="objects that are read, a round")
    parser.add_argument("--size", type=int, default=20_000, help="bytes of an object")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / BUCKET / "many", given.objects, given.size)
        with serve_s3(folder) as server, environment(server.env()):
            found = {**measure_listing(given.objects), **measure_reading(given.read, given.size)}
    record = {
        "benchmark": "fetch",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rounds": ROUNDS,
        **vars(given),
        **found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fetch.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def fill(folder: Path, objects: int, size: int) -> None:
    """Objects in folders of 1,000, as buckets of pictures often have them."""
    body = random.Random(0).randbytes(size)
    for index in range(objects):
        path = folder / f"{index // 1000:03d}" / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def measure_listing(objects: int) -> dict[str, Any]:
    """Seconds until the first object and until the last; s3fs' own `find`, which answers when it has all."""
    first, ours, bare = [], [], []
    fs = storage.filesystem("s3://")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        count = 0
        for _info in storage.list_objects(f"s3://{BUCKET}/many"):
            if not count:
                first.append(time.perf_counter() - began)
            count += 1
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = fs.find(f"{BUCKET}/many", detail=True)
        bare.append(time.perf_counter() - began)
        assert count == len(found) == objects
    return {
        "listing": {
            "first_object_s": round(statistics.median(first), 3),
            "all_s": round(statistics.median(ours), 2),
            "bare_s3fs_find_s": round(statistics.median(bare), 2),
        }
    }


def measure_reading(count: int, size: int) -> dict[str, Any]:
    """Objects a second: ours, and the bare loop in two manners; the ratio is to the faster of them."""
    items = list(open_source(f"s3://{BUCKET}/many", SourceConfig()))[:count]
    paths = [item.uri.removeprefix("s3://") for item in items]
    threads = Config().runtime.fetch_threads
    ways: dict[str, Callable[[], int]] = {
        "ours": lambda: read_ours(items, threads),
        "bare": lambda: read_bare(paths, threads, {}),
        "bare_single_get": lambda: read_bare(paths, threads, {"max_concurrency": 1}),
        "bare_single_get_64": lambda: read_bare(paths, 64, {"max_concurrency": 1}),
    }
    for way in ways.values():
        way()  # connections, imports, the server's caches
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            read = way()
            rates[name].append(count / (time.perf_counter() - began))
            assert read == count * size
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    best = max(rate for name, rate in medians.items() if name != "ours")
    return {
        "reading": {
            "threads": threads,
            "objects_per_s": medians,
            "rounds_objects_per_s": {name: [round(v, 1) for v in values] for name, values in rates.items()},
            "ratio_to_the_faster_bare_loop": round(medians["ours"] / best, 3),
        }
    }


def read_ours(items: list[Item], threads: int) -> int:
    """As `moderate_items` fetches."""
    runtime = Config().runtime
    with ThreadPoolExecutor(threads) as pool:
        payloads = map_ahead(
            Fetcher(items, MediaConfig()),
            items,
            pool,
            max_ahead=threads * 2,
            budget_bytes=runtime.fetch_budget_bytes // runtime.shards_in_flight,
            expected_bytes=lambda item: item.size_bytes,
            held_bytes=lambda found: sum(len(p) for p in found if isinstance(p, bytes)),
        )
        return sum(len(p) for found in payloads for p in found if isinstance(p, bytes))


def read_bare(paths: list[str], concurrency: int, options: dict[str, Any]) -> int:
    """Nothing but s3fs: no order, no checks, no retries."""
    fs = storage.filesystem("s3://")

    async def read_all() -> int:
        free = asyncio.Semaphore(concurrency)

        async def read(path: str) -> int:
            async with free:
                return len(await fs._cat_file(path, **options))

        return sum(await asyncio.gather(*(read(path) for path in paths)))

    total: int = sync(fs.loop, read_all)
    return total


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "cores": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 1),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()

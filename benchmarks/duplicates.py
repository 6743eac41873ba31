"""Near pairs among ten million made-up hashes: seconds, peak memory and recall; JSON into benchmarks/results/.

`python -m benchmarks.duplicates [--hashes 10000000] [--planted 100000] [--tables N]` draws random hashes, plants copies
that differ in 0 to 31 bits at random places (as many of each), and finds all pairs. Random hashes are the easy case:
those of pictures share more bits, so that buckets are fuller. Then groups are made of a million items, all columns
included. Each step is a process of its own, so that its peak (VmHWM) is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.machine import write_result
from moderation.analysis.duplicates import Nearness, as_table, group_pictures
from moderation.analysis.pictures import Pictures
from moderation.hashes.pairs import TABLES, collapse, near_pairs
from moderation.types import U8

DISTANCE = 31


def make_hashes(count: int, planted: int) -> U8:
    """uint8 [count,32]: random, but for the last `planted`, which are copies of the first with 0 to 31 bits turned."""
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 256, (count, 32), dtype=np.uint8)
    for start in range(0, planted, 10_000):
        size = min(10_000, planted - start)
        bits = np.arange(start, start + size) % (DISTANCE + 1)
        ranks = chance.random((size, 256)).argsort(axis=1).argsort(axis=1)
        flips = np.packbits(ranks < bits[:, None], axis=1)
        here = slice(count - planted + start, count - planted + start + size)
        hashes[here] = hashes[start : start + size] ^ flips
    return hashes


def pairs(count: int, planted: int, tables: int) -> dict[str, Any]:
    """Collapse and pair."""
    hashes = make_hashes(count, planted)
    before = memory()
    began, cpu = time.perf_counter(), time.process_time()
    first = collapse(hashes)
    collapsed_s = time.perf_counter() - began
    distinct = np.flatnonzero(first == np.arange(count))
    found = near_pairs(hashes[distinct], DISTANCE, tables=tables)
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    left, right = distinct[found.left], distinct[found.right]
    is_planted = right - left == count - planted
    by_bits = np.bincount(found.distance[is_planted], minlength=DISTANCE + 1)
    by_bits[0] += int((first != np.arange(count)).sum())
    all_bits = np.bincount(np.arange(planted) % (DISTANCE + 1), minlength=DISTANCE + 1)
    recall = by_bits / np.maximum(all_bits, 1)
    return {
        "seconds": round(spent, 1),
        "cpu_seconds": round(cpu, 1),
        "of_that_collapse_s": round(collapsed_s, 1),
        "mib_before": before,
        "peak_mib": memory(),
        "pairs": len(left),
        "not_planted": int((~is_planted).sum()),
        "recall": round(float(by_bits.sum() / planted), 4),
        "recall_by_bits": {str(b): round(float(recall[b]), 4) for b in (0, 8, 16, 20, 24, 28, 31)},
    }


def groups(count: int, planted: int) -> dict[str, Any]:
    """The whole of `moderation duplicates` but for reading and writing files."""
    chance = np.random.default_rng(1)
    ids = pa.array([f"{i:032x}" for i in range(count)], pa.large_string())
    none = pa.array([None] * count, pa.string()).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.string()))
    verdict = pa.array(["pass"] * count).dictionary_encode()
    pictures = Pictures(
        items=pa.table({"item_id": ids, "run_out": none, "verdict": verdict}),
        pixels=chance.integers(10_000, 10_000_000, count),
        size_bytes=chance.integers(10_000, 1_000_000, count),
        content=chance.integers(1, 2**63, (count, 2)).astype(np.uint64),
        hashes=make_hashes(count, planted),
        inner=np.zeros((count, 32), np.uint8),
        quality=np.full(count, 100, np.int16),
    )
    before = memory()
    began = time.perf_counter()
    table = as_table(pictures, group_pictures(pictures, Nearness()))
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "mib_before": before,
        "peak_mib": memory(),
        "rows": table.num_rows,
        "groups": len(table["group_id"].unique()),
    }


def memory() -> int:
    """Peak resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Near pairs among made-up hashes.")
    parser.add_argument("--hashes", type=int, default=10_000_000)
    parser.add_argument("--planted", type=int, default=100_000)
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--step", choices=("pairs", "groups"))
    given = parser.parse_args()
    grouped = max(given.hashes // 10, 1000)
    if given.step == "pairs":
        print(json.dumps(pairs(given.hashes, given.planted, given.tables)))
        return
    if given.step == "groups":
        print(json.dumps(groups(grouped, grouped // 10)))
        return
    record: dict[str, Any] = {
        "hashes": given.hashes,
        "planted": given.planted,
        "tables": given.tables,
        "items": grouped,
    }
    for name in ("pairs", "groups"):
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.duplicates", "--step", name, "--hashes", str(given.hashes),
             "--planted", str(given.planted), "--tables", str(given.tables)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        record[name] = json.loads(ended.stdout)
        print(name, ended.stdout, flush=True)
    print(write_result("duplicates", record))


if __name__ == "__main__":
    main()

"""Tonight's listing against a ledger of millions: seconds and peak memory; JSON into benchmarks/results/.

`python -m benchmarks.ledger [--known 10000000] [--recent 200000] [--listed N] [--at FOLDER]` makes up a ledger (a
snapshot, and batches of recent nights beside it), then holds listings of N of its objects against it: one of which
nothing has changed, and one in which each thousandth object is new, each thousandth changed, each thousandth gone, and
each thousandth a copy of known content. Then it merges the batches into the snapshot. Each step is a process of its
own, so that its peak (VmHWM) is its own. A listing here costs what its objects cost to make; a store's pages come on
top.
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
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.machine import write_result
from moderation import storage
from moderation.ledger import store
from moderation.ledger.difference import Choice, Origin, difference
from moderation.ledger.index import Provenance, load_index
from moderation.ledger.rows import (
    KEY_BYTES,
    LEDGER_SCHEMA,
    U64,
    content_id,
    content_key,
    item_key,
    item_version,
    split_keys,
)
from moderation.types import Item, MediaObject

FACTS = Provenance(source="s3://bucket/photos", stack_fingerprint="stack", policy_hash="policy")
ONE_IN = 1000
BATCHES = 4
_BLOCK = 100_000
_PART = 10_000  # items a receipt: of these only the names are read


def made_up(index: int, version: int = 0, content: int | None = None) -> Item:
    """An object as an S3 listing shows it; equal `content` means an equal etag."""
    uri = f"s3://bucket/photos/{index:010d}.jpg"
    etag = f"{index if content is None else content:031d}{version}"
    media = MediaObject(uri=uri, name=uri[-14:], size_bytes=100_000, etag=etag)
    return Item(item_id=f"{index:032d}", uri=uri, objects=(media,))


@dataclass(frozen=True, slots=True)
class Hashes:
    """Columns of the ledger's objects by index: those that will be listed hashed as they are, the others random."""

    high: U64
    low: U64
    version: U64
    content: U64

    def rows(self, index: np.ndarray[Any, Any], ledger: str) -> pa.Table:
        """Rows of these objects, made without a Python object a row."""
        numbers = pa.array(index).cast(pa.string())
        padded = pc.utf8_lpad(numbers, 31, "0")
        etag = pc.binary_join_element_wise(padded, "0", "")
        pairs = np.stack([self.high[index], self.low[index]], axis=1).astype(">u8")
        own = {
            "key": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(KEY_BYTES), len(index), [None, pa.py_buffer(pairs.tobytes())]
            ),
            "version": pa.array(self.version[index]),
            "content_key": pa.array(self.content[index]),
            "uri": pc.binary_join_element_wise(f"{FACTS.source}/", pc.utf8_lpad(numbers, 10, "0"), ".jpg", ""),
            "item_id": pc.utf8_lpad(numbers, 32, "0"),
            "etag": etag,
            "content_hash": pc.binary_join_element_wise(etag, etag, ""),
            "part": pc.utf8_lpad(pa.array(index // _PART).cast(pa.string()), 32, "0"),
        }
        shared = {
            "size_bytes": 100_000,
            "verdict": "pass",
            "status": "ok",
            "source": FACTS.source,
            "run_out": storage.join(ledger, "night"),
            "format": "parquet",
            "stack_fingerprint": FACTS.stack_fingerprint,
            "policy_hash": FACTS.policy_hash,
            "judged_at": datetime.now(UTC),
        }
        columns = [
            own[f.name] if f.name in own else pa.repeat(pa.scalar(shared.get(f.name), f.type), len(index))
            for f in LEDGER_SCHEMA
        ]
        return pa.table(columns, schema=LEDGER_SCHEMA)


def make_hashes(known: int, listed: int) -> Hashes:
    """Of objects 0..listed as they will be listed, of listed..known random."""
    chance = np.random.default_rng(0)
    columns = [chance.integers(1, 2**64, known, np.uint64, endpoint=False) for _ in range(4)]
    for start in range(0, listed, _BLOCK):
        items = [made_up(i) for i in range(start, min(start + _BLOCK, listed))]
        here = slice(start, start + len(items))
        columns[0][here], columns[1][here] = split_keys([item_key(i) for i in items])
        columns[2][here] = [item_version(i) for i in items]
        columns[3][here] = [content_key(content_id(i)) for i in items]
    return Hashes(*columns)


def fill(ledger: str, known: int, recent: int, listed: int) -> dict[str, Any]:
    """A snapshot of `known` objects; `recent` of them come again in batches."""
    began = time.perf_counter()
    hashes = make_hashes(known, listed)
    order = np.lexsort((hashes.low, hashes.high))
    files = []
    for start in range(0, known, store.FILE_ROWS):
        table = hashes.rows(order[start : start + store.FILE_ROWS], ledger)
        name = f"snapshots/000001/{len(files):05d}.parquet"
        storage.publish(storage.join(ledger, name), store.encode(table))
        files.append(asdict(store.LogFile(name=name, rows=table.num_rows)))
    for part in range(known // _PART + 1):
        storage.publish(storage.join(ledger, "night", "receipts", f"{part:032d}.json"), b"{}")
    head = {"generation": 1, "snapshot": files, "compacted": []}
    storage.publish(storage.join(ledger, "head.json"), json.dumps(head).encode())
    for batch, again in enumerate(np.array_split(np.arange(known - recent, known), BATCHES)):
        store.append(ledger, f"{batch:04d}", iter([hashes.rows(again, ledger)]))
    return {"seconds": round(time.perf_counter() - began, 1)}


class ListingCounts:
    """What a listing found, as numbers."""

    def __init__(self) -> None:
        self.copied = 0
        self.counts: Counter[str] = Counter()

    def copies(self, copies: list[tuple[Item, Origin]]) -> None:
        """Count."""
        self.copied += len(copies)

    def close(self, counts: Counter[str], marks: pa.Table) -> None:
        """Keep."""
        self.counts = counts


def quiet(listed: int) -> Iterator[Item]:
    """Nothing has changed."""
    return (made_up(i) for i in range(listed))


def busy(listed: int, known: int) -> Iterator[Item]:
    """One in a thousand new, changed, gone, or a copy."""
    for i in range(listed):
        kind = i % ONE_IN
        if kind == 0:
            yield made_up(known + i)
        elif kind == 1:
            yield made_up(known + i, content=i + 1)
        if kind != 3:
            yield made_up(i, version=int(kind == 2))


def compare(ledger: str, listing: Iterator[Item], listed: int) -> dict[str, Any]:
    """Load, stream, tell."""
    began = time.perf_counter()
    log = store.open_log(ledger)
    index = load_index(log, FACTS)
    loaded_s, loaded = time.perf_counter() - began, memory()
    found = ListingCounts()
    began, cpu = time.perf_counter(), time.process_time()
    judged = sum(1 for _ in difference(listing, index, log, FACTS, Choice(), found))
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    began = time.process_time()
    made = sum(1 for _ in quiet(listed // 10))
    made_up_s = (time.process_time() - began) * listed / max(made, 1)
    return {
        "load_s": round(loaded_s, 2),
        "listing_s": round(spent, 2),
        "listing_cpu_s": round(cpu, 2),
        "of_that_making_up_objects_s": round(made_up_s, 2),
        "objects_per_cpu_s": round(found.counts["looked_at"] / cpu),
        "peak_after_load_mib": loaded,
        "peak_mib": memory(),
        "to_judge": judged,
        "copies": found.copied,
        "counts": dict(sorted(found.counts.items())),
    }


def merge(ledger: str) -> dict[str, Any]:
    """Compaction."""
    began = time.perf_counter()
    log = store.compact(store.open_log(ledger))
    return {"seconds": round(time.perf_counter() - began, 1), "peak_mib": memory(), "rows": log.rows}


def memory() -> int:
    """Peak resident memory of this process in MiB. (`ru_maxrss` would start at that of its parent.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024


def step(name: str, ledger: str, known: int, recent: int, listed: int) -> dict[str, Any]:
    """One step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ledger", "--step", name, "--at", ledger]
    command += ["--known", str(known), "--recent", str(recent), "--listed", str(listed)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
    found: dict[str, Any] = json.loads(ended.stdout)
    print(name, json.dumps(found), flush=True)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--known", type=int, default=10_000_000)
    parser.add_argument("--recent", type=int, default=200_000)
    parser.add_argument("--listed", type=int, help="how many of the known are listed; all of them if not said")
    parser.add_argument("--at", help="where the made-up ledger lies; kept when it is there already")
    parser.add_argument("--step", choices=("fill", "quiet", "busy", "merge"))
    given = parser.parse_args()
    listed = given.known if given.listed is None else given.listed
    if given.step is not None:
        steps = {
            "fill": lambda: fill(given.at, given.known, given.recent, listed),
            "quiet": lambda: compare(given.at, quiet(listed), listed),
            "busy": lambda: compare(given.at, busy(listed, given.known), listed),
            "merge": lambda: merge(given.at),
        }
        print(json.dumps(steps[given.step]()))
        return
    ledger = given.at or tempfile.mkdtemp(prefix="ledger-")
    record: dict[str, Any] = {"known": given.known, "recent": given.recent, "listed": listed}
    try:
        if not Path(ledger, "head.json").exists():
            record["fill"] = step("fill", ledger, given.known, given.recent, listed)
        files = list(Path(ledger).rglob("*.parquet"))
        record["ledger_bytes_a_row"] = round(sum(p.stat().st_size for p in files) / (given.known + given.recent), 1)
        for name in ("quiet", "busy", "merge"):
            record[name] = step(name, ledger, given.known, given.recent, listed)
    finally:
        if given.at is None:
            shutil.rmtree(ledger)
    print(write_result("ledger", record))


if __name__ == "__main__":
    main()

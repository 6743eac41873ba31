"""Stored items a minute of `moderation sweep`, on made-up votes, hashes and a made-up ledger; JSON into results/.

    python -m benchmarks.sweep [--items 10000000] [--distinct 100000] [--workers 2] [--keep FOLDER]

`--distinct` items are written by the real table writers, with the policy of `benchmarks.rejudge` (20 checks over 24
votes), a PDQ hash and a content hash each. Their files then stand in as many runs as `--items` takes, as hard links:
every run is opened, checked by its sha256 and decoded anew, so that the sweep reads all ten million rows; only the disk
holds them once. A ledger names all of them. Each step is a process of its own, with processes of its own: `peak_mib` is
the largest resident memory of the first, `peak_of_all_mib` that of all together, looked at five times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.machine import RESULTS, write_result
from benchmarks.rejudge import LABELS, PART_ITEMS, cpu_seconds, draw_scores, make_policy
from moderation import storage
from moderation.config.model import Config
from moderation.ledger.rows import KEY_BYTES, LEDGER_SCHEMA
from moderation.ledger.store import append, compact, open_log
from moderation.lists.policy_file import load_whole_policy
from moderation.planning.names import plan_uri
from moderation.planning.plan import encode_shards
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge_item
from moderation.results.decided import keep_inputs
from moderation.results.receipts import commit_shard
from moderation.results.tables import ItemRow, encode_table, verdicts_table, votes_table
from moderation.types import Item, ItemFacts, ItemVotes, Kind, MediaObject, Seen, Shard, Status

HASHED = (*LABELS, "pdq.quality")
STEPS = ("policy", "list", "decision", "ledger")
ENTRIES = 1000  # of a list, half contents, half hashes
DECIDED = 10


def write_run(folder: Path, items: int) -> str:
    """The OUT of a run over so many items, with hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "policy.yaml"
    path.write_text(json.dumps(make_policy(0.95)))
    (folder / "other.yaml").write_text(json.dumps(make_policy(0.9)))
    config, policy = Config.model_validate({"policy": str(path)}), load_whole_policy(path)
    bound = bind(policy, HASHED)
    out = str(folder / "out")
    metadata = {"run_id": "0" * 16, "stack_fingerprint": "stack", "policy_hash": "policy", "code_version": "benchmark"}
    rng = np.random.default_rng(7)
    shards = []
    for start in range(0, items, PART_ITEMS):
        count = min(PART_ITEMS, items - start)
        scores = draw_scores(rng, count, 1)
        hashes = rng.integers(0, 256, (count, 32), dtype=np.uint8)
        rows = [_row(start + i, scores[i], hashes[i], bound) for i in range(count)]
        shard = Shard(shard_id=f"{start:032x}", items=tuple(row.item for row in rows))
        tables = {
            "votes": votes_table(rows, HASHED, {"pdq.hash": 32}, {}, metadata),
            "verdicts": verdicts_table(rows, tuple(bound.policy.checks), metadata),
        }
        parts = {name: encode_table(table, config.output) for name, table in tables.items()}
        counts = {name: table.num_rows for name, table in tables.items()}
        commit_shard(out, shard, parts=parts, rows=counts, format_="parquet", facts={})
        shards.append(shard)
    storage.publish(plan_uri(out), encode_shards(shards))
    keep_inputs(out, policy, config)
    record = {"run_id": "0" * 16, "source": str(folder), "config": config.model_dump(mode="json"), "identity": {}}
    Path(out, "run.json").write_text(json.dumps(record))
    return out


def _row(number: int, scores: np.ndarray, hash_: np.ndarray, bound: BoundPolicy) -> ItemRow:
    item_id, content = f"{number:032x}", f"{number:064x}"
    uri = f"s3://bucket/pictures/{item_id}.jpg"
    item = Item(item_id=item_id, uri=uri, objects=(MediaObject(uri=uri, name=f"{item_id}.jpg"),))
    whole = np.concatenate([scores, np.ones((len(scores), 1), np.float32)], axis=1)
    votes = ItemVotes(labels=HASHED, frames=(0,), times_s=(None,), scores=whole, blobs={"pdq.hash": (hash_.tobytes(),)})
    judged = judge_item(votes, None, bound, Seen(kind=Kind.IMAGE), ItemFacts(item_id=item_id))
    return ItemRow(
        item=item, status=Status.OK, kind=Kind.IMAGE, judgement=judged, votes=votes, frames_total=1, width=800,
        height=600, content_hash=content, pdq=hash_.tobytes().hex(),
    )  # fmt: skip


def copy_runs(out: str, folder: Path, runs: int) -> list[str]:
    """Runs with the same parts, as hard links."""
    outs = []
    for number in range(runs):
        copy = folder / f"run{number:04d}"
        if not (copy / "run.json").exists():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(out, copy, copy_function=os.link)
            record = json.loads(Path(out, "run.json").read_text())
            (copy / "run.json").unlink()
            (copy / "run.json").write_text(json.dumps({**record, "run_id": f"{number:016x}"}))
        outs.append(str(copy))
    return outs


def write_ledger(ledger: str, outs: list[str], items: int) -> None:
    """A ledger that names every item of these runs, merged into one snapshot."""
    if Path(ledger, "head.json").exists():
        return
    rng = np.random.default_rng(3)
    ids = [f"{number:032x}" for number in range(items)]
    parts = [f"{number - number % PART_ITEMS:032x}" for number in range(items)]

    def rows() -> Iterator[pa.Table]:
        for out in outs:
            shared = {"uri": "s3://bucket/x.jpg", "verdict": "pass", "status": "ok", "source": "s3://bucket",
                      "run_out": out, "format": "parquet", "stack_fingerprint": "stack", "policy_hash": "policy",
                      "judged_at": datetime(2026, 1, 1, tzinfo=UTC)}  # fmt: skip
            keys = rng.bytes(KEY_BYTES * items)
            columns: dict[str, Any] = {
                "key": pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), items, [None, pa.py_buffer(keys)]),
                "item_id": pa.array(ids),
                "part": pa.array(parts),
                "version": pa.array(np.ones(items, np.uint64)),
                "content_key": pa.array(np.zeros(items, np.uint64)),
                "attributes_key": pa.array(np.zeros(items, np.uint64)),
            }
            for field in LEDGER_SCHEMA:
                if field.name not in columns:
                    columns[field.name] = pa.array([shared.get(field.name)], field.type).take(
                        pa.array(np.zeros(items, np.int64))
                    )
            yield pa.table([columns[name] for name in LEDGER_SCHEMA.names], schema=LEDGER_SCHEMA)

    append(ledger, "20260101-000000-0", rows())
    compact(open_log(ledger))


@contextmanager
def resident_memory() -> Iterator[list[int]]:
    """The resident memory of this process and its own, MiB, looked at five times a second until the block ends."""
    seen, is_over = [0], threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not is_over.wait(0.2):
            total = 0
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    total += one.memory_info().rss
            seen.append(total >> 20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        is_over.set()
        watcher.join()


def run_step(step: str, folder: Path, workers: int) -> dict[str, Any]:
    """One sweep, dry: counts, but no changed rows are written."""
    from moderation.analysis.sweep import SweepChange, sweep
    from moderation.analysis.sweep_by_decision import CopyLimits
    from moderation.analysis.sweep_sources import find_sources
    from moderation.analysis.sweep_targets import find_targets
    from moderation.policy.entries import ListEntry, ListRule

    began_s, used_s = time.perf_counter(), cpu_seconds()
    uris = [str(folder / "ledger")] if step == "ledger" else sorted(str(p) for p in (folder / "runs").iterdir())
    sources = find_sources(uris)
    found_s = time.perf_counter() - began_s
    rng = np.random.default_rng(1)
    if step == "policy":
        change = SweepChange(name=step, policy=load_whole_policy(folder / "made" / "other.yaml"))
    elif step == "list":
        half = ENTRIES // 2
        near = tuple(ListEntry(rng.bytes(32).hex()) for _ in range(half))
        contents = tuple(ListEntry(f"{number:064x}") for number in range(half))
        rules = {
            "near": ListRule(action="deny", by="pdq", distance=31, entries=near),
            "same": ListRule(action="deny", by="content_hash", entries=contents),
        }
        change = SweepChange(name=step, lists=rules)
    else:
        first = find_sources(uris[:1]) if step == "decision" else sources
        wanted = [f"{number:032x}" for number in range(DECIDED)]
        targets = find_targets(first, wanted, "block", embedding="auto") if step == "decision" else []
        if step == "ledger":
            runs = find_sources([str(folder / "runs" / "run0000")])
            targets = find_targets(runs, wanted, "block", embedding="auto")
        change = SweepChange(name=step, targets=tuple(targets), limits=CopyLimits())
    with resident_memory() as peak:
        swept = sweep(sources, change, None, workers=workers)
    wall_s, cpu_s = time.perf_counter() - began_s, cpu_seconds() - used_s
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {
        "step": step,
        "items": swept.items,
        "changed": swept.changed,
        "runs": len(sources.runs),
        "parts": len(sources.parts),
        "workers": workers,
        "wall_s": round(wall_s, 1),
        "of_that_listing_s": round(found_s, 1),
        "cpu_s": round(cpu_s, 1),
        "items_per_minute": round(swept.items / wall_s * 60),
        "items_per_minute_of_two_cores": round(2 * swept.items / cpu_s * 60),
        "minutes_for_ten_million_on_two_cores": round(cpu_s / 2 / 60 * 10_000_000 / swept.items, 2),
        "peak_mib": own,
        "peak_of_all_mib": max(own, *peak),
    }


def main() -> None:
    """Write the runs, sweep them, print and keep the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--distinct", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--keep", help="folder of the made-up runs, used again if there")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = Path(given.keep or tempfile.mkdtemp())
    if given.step:
        print(json.dumps(run_step(given.step, folder, given.workers)))
        return
    made = str(folder / "made" / "out")
    if not Path(made, "run.json").exists():
        made = write_run(folder / "made", given.distinct)
    outs = copy_runs(made, folder / "runs", max(1, given.items // given.distinct))
    if "ledger" in given.steps:
        write_ledger(str(folder / "ledger"), outs, given.distinct)
    results = {kept["step"]: kept for kept in _kept_results()}
    for step in given.steps:
        command = [sys.executable, "-m", "benchmarks.sweep", "--step", step, "--keep", str(folder)]
        ended = subprocess.run(
            [*command, "--workers", str(given.workers)], check=True, stdout=subprocess.PIPE, text=True
        )
        results[step] = json.loads(ended.stdout)
        print(json.dumps(results[step]), flush=True)
        write_result("sweep", {"distinct_items": given.distinct, "results": list(results.values())})


def _kept_results() -> list[dict[str, Any]]:
    """The results of steps that an earlier call measured."""
    path = RESULTS / "sweep.json"
    return list(json.loads(path.read_text())["results"]) if path.exists() else []


if __name__ == "__main__":
    main()

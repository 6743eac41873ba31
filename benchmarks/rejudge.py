"""Items a minute of `moderation rejudge`, on made-up votes that the real table writers wrote.

    python -m benchmarks.rejudge [--items 100000] [--frames 1 8] [--workers 2]

The policy has 20 checks over 24 votes: 13 negative, 3 positive, 4 attributes, and every fuse and pool method. Parts
have 256 items, as a run's do. Each rate is the median of `--repeat` rejudges, each into a new folder.
`items_per_minute` is by the clock, `items_per_minute_of_two_cores` by the CPU seconds that all processes took: where
other programs have the cores, the second says what two free ones do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import write_result
from moderation import storage
from moderation.config.model import Config
from moderation.lists.policy_file import load_whole_policy
from moderation.planning.names import plan_uri
from moderation.planning.plan import encode_shards
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge_item
from moderation.results.receipts import commit_shard
from moderation.results.tables import ItemRow, encode_table, verdicts_table, votes_table
from moderation.types import Item, ItemFacts, ItemVotes, Kind, MediaObject, Seen, Shard, Status

LABELS = tuple(f"d{n // 4}.l{n % 4}" for n in range(24))
PART_ITEMS = 256
FUSES = (
    {"method": "max"},
    {"method": "min"},
    {"method": "mean"},
    {"method": "weighted_mean"},
    {"method": "mean_logit"},
    {"method": "k_of_n", "k": 2},
    {"method": "majority"},
)
POOLS = (
    {"method": "any"},
    {"method": "top_k_mean", "k": 3},
    {"method": "mean"},
    {"method": "run", "length": 2, "gap": 1},
    {"method": "linear_softmax"},
    {"method": "all"},
)


def make_policy(block: float) -> dict[str, Any]:
    """20 checks. block: the threshold that differs between the run's policy and the one of the rejudge."""
    checks: dict[str, Any] = {}
    for n in range(13):
        votes = [LABELS[n]] if n % 3 == 0 else [LABELS[n], LABELS[n + 4], LABELS[n + 8]][: 2 + n % 2]
        fuse = FUSES[n % len(FUSES)] if len(votes) > 1 else {"method": "max"}
        checks[f"negative_{n:02d}"] = {
            "side": "negative", "votes": votes, "fuse": fuse, "pool": POOLS[n % len(POOLS)], "block": block,
            "review": 0.8,
        }  # fmt: skip
    for n in range(3):
        votes = [LABELS[21 + n]]
        checks[f"positive_{n}"] = {"side": "positive", "votes": votes, "pool": "all", "pass": 0.6}
    for n in range(4):
        checks[f"attribute_{n}"] = {"side": "attribute", "votes": [LABELS[17 + n]], "pool": "mean"}
    return {"checks": checks}


def draw_scores(rng: np.random.Generator, items: int, frames: int) -> np.ndarray:
    """float32 [items, frames, L]: most are low, some of every label are high, a few are null."""
    scores = rng.beta(1.0, 12.0, (items, frames, len(LABELS))).astype(np.float32)
    scores[rng.random(scores.shape) < 0.01] += 0.6
    scores[..., 21:] = rng.beta(5.0, 2.0, (items, frames, 3))
    scores[rng.random(scores.shape) < 0.001] = np.nan
    return np.minimum(scores, np.float32(1.0))


def write_run(folder: Path, items: int, frames: int) -> str:
    """The OUT of a run over so many items."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "policy.yaml"
    path.write_text(json.dumps(make_policy(0.95)))
    (folder / "other.yaml").write_text(json.dumps(make_policy(0.9)))
    config = Config.model_validate({"policy": str(path)})
    bound = bind(load_whole_policy(path), LABELS)
    out = str(folder / "out")
    metadata = {"run_id": "0" * 16, "stack_fingerprint": "stack", "policy_hash": "policy", "code_version": "benchmark"}
    rng = np.random.default_rng(7)
    shards = []
    for start in range(0, items, PART_ITEMS):
        scores = draw_scores(rng, min(PART_ITEMS, items - start), frames)
        rows = [_row(f"{start + i:032x}", own, bound) for i, own in enumerate(scores)]
        shard = Shard(shard_id=f"{start:032x}", items=tuple(row.item for row in rows))
        tables = {
            "votes": votes_table(rows, LABELS, {}, {}, metadata),
            "verdicts": verdicts_table(rows, tuple(bound.policy.checks), metadata),
        }
        parts = {name: encode_table(table, config.output) for name, table in tables.items()}
        counts = {name: table.num_rows for name, table in tables.items()}
        commit_shard(out, shard, parts=parts, rows=counts, format_="parquet", facts={})
        shards.append(shard)
    storage.publish(plan_uri(out), encode_shards(shards))
    record = {"run_id": "0" * 16, "source": str(folder), "config": config.model_dump(mode="json"), "identity": {}}
    Path(out, "run.json").write_text(json.dumps(record))
    return out


def _row(item_id: str, scores: np.ndarray, bound: BoundPolicy) -> ItemRow:
    uri = f"s3://bucket/pictures/{item_id}.jpg"
    item = Item(item_id=item_id, uri=uri, objects=(MediaObject(uri=uri, name=f"{item_id}.jpg"),))
    count = len(scores)
    kind = Kind.IMAGE if count == 1 else Kind.VIDEO
    times_s = (None,) if count == 1 else tuple(float(n) for n in range(count))
    votes = ItemVotes(labels=LABELS, frames=tuple(range(count)), times_s=times_s, scores=scores)
    judged = judge_item(votes, None, bound, Seen(kind=kind), ItemFacts(item_id=item_id))
    return ItemRow(
        item=item, status=Status.OK, kind=kind, judgement=judged, votes=votes, frames_total=count, width=800, height=600
    )


def measure(out: str, policy: str, workers: int, repeat: int) -> list[tuple[float, float]]:
    """(wall seconds, CPU seconds of all processes) of each rejudge."""
    from moderation.analysis.rejudge import rejudge

    spent = []
    for _ in range(repeat):
        to = tempfile.mkdtemp()
        began_s, used_s = time.perf_counter(), cpu_seconds()
        rejudge(out, policy, f"{to}/to", workers=workers)
        spent.append((time.perf_counter() - began_s, cpu_seconds() - used_s))
        shutil.rmtree(to)
    return spent


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Write the votes, judge them again, print and keep the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--keep", help="folder of the made-up runs, used again if there")
    arguments = parser.parse_args()
    results = []
    for frames in arguments.frames:
        items = arguments.items if frames == 1 else arguments.items // 4
        folder = Path(arguments.keep or tempfile.mkdtemp()) / f"frames{frames}-{items}"
        out = str(folder / "out") if (folder / "out" / "run.json").exists() else write_run(folder, items, frames)
        spent = measure(out, str(folder / "other.yaml"), arguments.workers, arguments.repeat)
        median_s, used_s = (statistics.median(column) for column in zip(*spent, strict=True))
        results.append(
            {
                "frames": frames,
                "items": items,
                "checks": 20,
                "workers": arguments.workers,
                "wall_s": [round(wall_s, 2) for wall_s, _ in spent],
                "cpu_s": [round(cpu_s, 2) for _, cpu_s in spent],
                "items_per_minute": round(items / median_s * 60),
                "items_per_minute_of_two_cores": round(2 * items / used_s * 60),
            }
        )
        print(json.dumps(results[-1]))
    print(write_result("rejudge", {"results": results}))


if __name__ == "__main__":
    main()

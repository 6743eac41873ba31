"""Items a minute of `moderation policy diff`, in columns and item by item, on the made-up votes of `rejudge`.

    python -m benchmarks.policy_diff [--items 20000] [--frames 1]

By CPU seconds of one process: other programs may have the cores. The two ways take turns; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.machine import write_result
from benchmarks.rejudge import write_run
from moderation.analysis.policy_diff import diff_policies
from moderation.lists.policy_file import load_whole_policy
from moderation.results.judged import judge_rows
from moderation.results.reader import open_run
from moderation.results.votes import item_votes, read_bound_votes


def diff_by_items(old: str, new: str, out: str) -> Counter[tuple[str, str]]:
    """Items by verdict before and after, judged one by one: what `policy diff` did before it judged in columns."""
    run, moved = open_run(out), Counter[tuple[str, str]]()
    policies = [load_whole_policy(Path(path)) for path in (old, new)]
    parts = zip(*(read_bound_votes(run, policy) for policy in policies), strict=True)
    for one, other in parts:
        rows = run.read_verdicts(one.shard_id)
        both = [judge_rows(rows, dict(item_votes(p.votes, p.policy.labels)), p.policy) for p in (one, other)]
        for before, after in zip(*both, strict=True):
            if before is not None and after is not None and before.verdict != after.verdict:
                moved[str(before.verdict), str(after.verdict)] += 1
    return moved


def main() -> None:
    """Write the votes, compare two policies both ways, print and keep the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--frames", type=int, nargs="+", default=[1])
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    results = []
    for frames in arguments.frames:
        folder = Path(tempfile.mkdtemp()) / "run"
        out = write_run(folder, arguments.items, frames)
        paths = (str(folder / "policy.yaml"), str(folder / "other.yaml"))
        spent_s: dict[str, list[float]] = {"columns": [], "items": []}
        for _ in range(arguments.repeat):
            began_s = time.process_time()
            in_columns = diff_policies(*paths, [out]).moved
            spent_s["columns"].append(time.process_time() - began_s)
            began_s = time.process_time()
            by_items = diff_by_items(*paths, out)
            spent_s["items"].append(time.process_time() - began_s)
            assert dict(by_items) == dict(in_columns)
        medians = {way: statistics.median(seconds) for way, seconds in spent_s.items()}
        results.append(
            {
                "frames": frames,
                "items": arguments.items,
                "checks": 20,
                "cpu_s": {way: [round(s, 2) for s in seconds] for way, seconds in spent_s.items()},
                "items_per_minute_of_one_core": {
                    way: round(arguments.items / seconds * 60) for way, seconds in medians.items()
                },
                "ratio": round(medians["items"] / medians["columns"], 2),
            }
        )
        print(json.dumps(results[-1]))
    print(write_result("policy_diff", {"results": results}))


if __name__ == "__main__":
    main()

"""`backfill` as a user runs it, and what its log and its summary say of it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.peers.process import REPOSITORY


def judging_seconds(stderr: str) -> float:
    """From the worker's first moment to the last receipt, by the log of a run."""
    log = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    ready = min(datetime.fromisoformat(line["time"]) for line in log if line["event"] == "worker")
    last = max(datetime.fromisoformat(line["time"]) for line in log if line["event"] == "shard")
    return (last - ready).total_seconds()


def run_backfill(folder: Path, out: Path, items: int, *arguments: str) -> dict[str, Any]:
    """The run's `summary`, and `warm`: items a second without the start. Raises RuntimeError where it failed."""
    command = [sys.executable, "-m", "jobs", "backfill", str(folder), "--out", str(out), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    summary = json.loads((out / "summary.json").read_text())
    if summary["items"] != items:
        raise RuntimeError(f"{summary['items']} of {items} items have a row")
    return {"summary": summary, "warm": items / judging_seconds(done.stderr)}

"""What the oracle of `benchmarks.loop` decides: the head of the review queue, and hard examples of the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.loop_files import LoopPlan, read_verdicts
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.sources.items import make_id

RESUMABLE: Final = 4  # the exit code of a fault that is not the call's
_TRIES: Final = 3

# A job with these arguments -> its exit code and what it printed.
Run = Callable[..., tuple[int, str]]


def run_well(run: Run, *arguments: object) -> None:
    """Run a job; where it ends with 4, the same command resumes. Raises SystemExit where it fails."""
    for _ in range(_TRIES):
        code, said = run(*arguments)
        if code != RESUMABLE:
            break
    if code:
        raise SystemExit(f"{' '.join(map(str, arguments))}: exit code {code}: {said}")


def decide_queue(
    plan: LoopPlan, number: int, out: Path, judged: Path, truth: dict[str, bool], decided: set[str]
) -> int:
    """The oracle decides the head of the queue, in its order; returns how many."""
    rows = read_verdicts(judged, "item_id", "uri", "content_hash", "verdict", "review_rank", "audit")
    queue = [r for r in rows if r["verdict"] == "review" and not r["audit"] and r["uri"] not in decided]
    queue.sort(key=lambda row: (-(row["review_rank"] or 0), row["item_id"]))
    return _decide(f"queue{number}", out, queue[: plan.each - plan.mined], truth, decided)


def decide_mined(
    plan: LoopPlan, number: int, out: Path, most: int, truth: dict[str, bool], decided: set[str], run: Run
) -> int:
    """The oracle decides hard examples of the run that nobody has decided; returns how many."""
    mined = plan.work / f"mined{number}.jsonl"
    count = most + len(decided)  # some of them have been decided
    run_well(run, "mine", out, "--to", mined, "--count", count, "--near", plan.near)
    hard = [json.loads(line)["item_id"] for line in mined.read_text(encoding="utf-8").splitlines()]
    known = {row["item_id"]: row for row in read_verdicts(out, "item_id", "uri", "content_hash", "audit")}
    rows = [known[item_id] for item_id in hard if known[item_id]["uri"] not in decided]
    if any(row["audit"] for row in rows):
        raise SystemExit("mine has taken a picture of the audit")
    return _decide(f"mined{number}", out, rows[:most], truth, decided)


def _decide(name: str, out: Path, rows: list[dict[str, Any]], truth: dict[str, bool], decided: set[str]) -> int:
    now = datetime.now(UTC)
    decisions = [
        Decision(
            decision_id=f"{name}-{make_id(row['item_id'])}",
            item_id=row["item_id"],
            uri=row["uri"],
            content_hash=row["content_hash"],
            decision=Answer.BLOCK if truth[row["uri"]] else Answer.PASS,
            labels=("forbidden" if truth[row["uri"]] else "fine",),
            reviewer="oracle",
            decided_at=now,
        )
        for row in rows
    ]
    append_decisions(str(out), decisions)
    decided |= {decision.uri for decision in decisions}
    return len(decisions)

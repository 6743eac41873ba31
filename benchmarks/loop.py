"""`python -m benchmarks.loop --pictures CLOTHES --work WORK`: the loop of review, learning and certification, closed.

One class of labelled pictures stands for what is forbidden. A head of twenty labels judges all pictures; an oracle (the
name of the folder) decides fifty of the review queue through the store of decisions; the head goes on with them; the
audit certifies what it may decide by itself; the gate compares it with what is live. Each step is the program's own
command. Pictures of the audit are never decided in the queue, nor learned from, and all figures are of them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.loop_files import (
    NAME,
    LoopPlan,
    audit_pictures,
    config_path,
    gate_limits,
    read_verdicts,
    source_settings,
    write_audit,
    write_config,
    write_pictures,
    write_policy,
)
from benchmarks.machine import machine_facts
from jobs.__main__ import main as run_job
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.sources.items import make_id

# A job with these arguments -> its exit code and what it printed.
Run = Callable[..., tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRound:
    """After a round, of the audit's pictures. labels: that the head has learned from.

    automation: share that is blocked or passed. bound_block, bound_pass: certified upper bounds of wrong blocks and of
    the leak; None: not certified. wrong_blocks, leak: rates that were seen. promoted: whether the gate let it go live.
    """

    number: int
    labels: int
    automation: float
    bound_block: float | None
    bound_pass: float | None
    wrong_blocks: float | None
    leak: float | None
    promoted: bool
    refused: bool


def run_loop(plan: LoopPlan, run: Run, told: Callable[[LoopRound], None] = lambda _round: None) -> list[LoopRound]:
    """Run all rounds; round 0 is the first head's."""
    plan.work.mkdir(parents=True, exist_ok=True)
    truth = write_pictures(plan)
    write_policy(plan)
    (plan.work / "limits.yaml").write_text(yaml.safe_dump(gate_limits(plan)), encoding="utf-8")
    decided = _make_first_head(plan, truth, run)
    done: list[LoopRound] = []
    live: Path | None = None
    refused = False
    labels = plan.first
    for number in range(plan.rounds + 1):
        out = plan.work / f"run{number}"
        _run_well(run, "backfill", plan.work / "pictures.csv", "--out", out, "--config", config_path(plan, number))
        audit = write_audit(plan, out, truth)
        judged = _judge_certified(plan, number, audit, run)
        promoted = _promote(plan, number, judged, live or out, audit, run)
        live = judged if promoted else live
        facts: dict[str, Any] = {"number": number, "labels": labels, "promoted": promoted, "refused": refused}
        done.append(LoopRound(**facts, **_measure(plan, judged, truth), **_bounds(plan, number)))
        told(done[-1])
        if number < plan.rounds:
            fresh = _decide(plan, out, judged, truth, decided)
            refused = not _continue(plan, number, out, run)
            labels += 0 if refused else fresh
    return done


def _make_first_head(plan: LoopPlan, truth: dict[str, bool], run: Run) -> set[str]:
    """A head of a few labels of pictures outside the audit: half of them forbidden, the others one of each class.

    Returns these pictures: they are not decided again.
    """
    config = plan.work / "start.yaml"
    settings = {
        "policy": "policy.yaml",
        "stack": {"detectors": [{"name": "imagenet"}]},
        "source": source_settings(plan),
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    drawn = audit_pictures(plan, truth)
    free = [uri for uri in truth if uri not in drawn]
    bad = [uri for uri in free if truth[uri]][: plan.first // 2]
    by_class: dict[str, list[str]] = {}
    for uri in free:
        if not truth[uri]:
            by_class.setdefault(Path(uri).parent.name, []).append(uri)
    ranks = max(map(len, by_class.values()))
    mixed = [uris[rank] for rank in range(ranks) for uris in by_class.values() if rank < len(uris)]
    rows = [(uri, "forbidden") for uri in bad] + [(uri, "fine") for uri in mixed[: plan.first - len(bad)]]
    with (plan.work / "first.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("uri", "label"), *rows])
    _run_well(
        run,
        *("train-head", "--images", plan.work / "first.csv", "--out", plan.work / "head0", "--name", NAME),
        *("--views", 2, "--cache", plan.work / "cache", "--config", config),
    )
    write_config(plan, 0)
    return {uri for uri, _ in rows}


def _judge_certified(plan: LoopPlan, number: int, audit: Path, run: Run) -> Path:
    """Certify what the head may decide, and judge the run by it."""
    out, policy = plan.work / f"run{number}", plan.work / f"certified{number}.yaml"
    _run_well(
        run,
        *("certify", out, "--labels", audit, "--to", policy),
        *("--block-errors", plan.block_errors, "--leak", plan.leak),
    )
    judged = plan.work / f"judged{number}"
    _run_well(run, "rejudge", out, "--to", judged, "--policy", policy)
    return judged


def _promote(plan: LoopPlan, number: int, judged: Path, against: Path, audit: Path, run: Run) -> bool:
    store, policy = plan.work / "store", plan.work / f"certified{number}.yaml"
    _run_well(run, "bundle", "make", "--bundles", store, "--config", config_path(plan, number), "--policy", policy)
    code, said = run(
        *("promote", judged, "--against", against, "--labels", audit, "--bundles", store),
        *("--limits", plan.work / "limits.yaml"),
    )
    if code not in (0, 1):
        raise SystemExit(f"promote: {code}: {said}")
    return code == 0


def _decide(plan: LoopPlan, out: Path, judged: Path, truth: dict[str, bool], decided: set[str]) -> int:
    """The oracle decides the head of the queue, in its order; returns how many."""
    rows = read_verdicts(judged, "item_id", "uri", "content_hash", "verdict", "review_rank", "audit")
    queue = [row for row in rows if not row["audit"] and row["uri"] not in decided]
    # What the machine decides by itself comes after the queue; where the queue is short, people look at that.
    queue.sort(key=lambda row: (row["verdict"] != "review", -(row["review_rank"] or 0), row["item_id"]))
    now = datetime.now(UTC)
    decisions = [
        Decision(
            decision_id=f"{out.name}-{make_id(row['item_id'])}",
            item_id=row["item_id"],
            uri=row["uri"],
            content_hash=row["content_hash"],
            decision=Answer.BLOCK if truth[row["uri"]] else Answer.PASS,
            labels=("forbidden" if truth[row["uri"]] else "fine",),
            reviewer="oracle",
            decided_at=now,
        )
        for row in queue[: plan.each]
    ]
    append_decisions(str(out), decisions)
    decided |= {decision.uri for decision in decisions}
    return len(decisions)


def _continue(plan: LoopPlan, number: int, out: Path, run: Run) -> bool:
    """The head learns the decisions; False where it was refused and the old one goes on."""
    old, new = plan.work / f"head{number}", plan.work / f"head{number + 1}"
    code, said = run(
        *("train-head", "--from", old, "--add", out, "--out", new, "--cache", plan.work / "cache"),
        *("--config", plan.work / "start.yaml", "--max-forgotten", plan.max_forgotten),
    )
    if code not in (0, 1):
        raise SystemExit(f"train-head --from: {code}: {said}")
    if code == 1:
        for path in old.iterdir():
            (new / path.name).write_bytes(path.read_bytes())
    write_config(plan, number + 1)
    return code == 0


def _measure(plan: LoopPlan, judged: Path, truth: dict[str, bool]) -> dict[str, Any]:
    """What is decided of the audit's pictures, and how much of it wrongly."""
    rows = [row for row in read_verdicts(judged, "uri", "verdict", "audit") if row["audit"]]
    passed = [truth[row["uri"]] for row in rows if row["verdict"] == "pass"]
    blocked = [truth[row["uri"]] for row in rows if row["verdict"] == "block"]
    return {
        "automation": (len(passed) + len(blocked)) / len(rows),
        "wrong_blocks": 1 - sum(blocked) / len(blocked) if blocked else None,
        "leak": sum(passed) / len(passed) if passed else None,
    }


def _bounds(plan: LoopPlan, number: int) -> dict[str, Any]:
    """The certified upper bounds of both sides."""
    file = plan.work / f"certified{number}.certificates.json"
    issued = json.loads(file.read_text(encoding="utf-8"))["certificates"] if file.exists() else []
    bounds = {each["side"]: each["bound"] for each in issued}
    return {"bound_block": bounds.get("block"), "bound_pass": bounds.get("pass")}


def _run_well(run: Run, *arguments: object) -> None:
    code, said = run(*arguments)
    if code:
        raise SystemExit(f"{' '.join(map(str, arguments))}: exit code {code}: {said}")


def run_here(*arguments: object) -> tuple[int, str]:
    """A job within this process, which starts torch and Ray once."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            run_job([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0), printed.getvalue()
    return 0, printed.getvalue()


def as_table(rounds: list[LoopRound]) -> str:
    """The table of docs/loop.md."""
    lines = [
        "| round | labels | automation | wrong blocks: seen, certified | leak: seen, certified | live |",
        "|---|---|---|---|---|---|",
    ]
    for each in rounds:
        live = "yes" if each.promoted else "no"
        pairs = [
            f"{_percent(seen)}, {'–' if bound is None else f'at most {_percent(bound)}'}"
            for seen, bound in ((each.wrong_blocks, each.bound_block), (each.leak, each.bound_pass))
        ]
        lines.append(
            f"| {each.number} | {each.labels} | {_percent(each.automation)} | {pairs[0]} | {pairs[1]} | {live} |"
        )
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def main() -> None:
    """Run, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder for each class")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for all that is made")
    parser.add_argument("--forbidden", default="pants", help="the class that must not pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    plan = LoopPlan(pictures=options.pictures, work=options.work, forbidden=options.forbidden, rounds=options.rounds)
    rounds = run_loop(plan, run_here, lambda each: print(each, flush=True))
    print(as_table(rounds))
    if options.json:
        settings = {name: value for name, value in asdict(plan).items() if name not in ("pictures", "work")}
        figures = {"rounds": [asdict(each) for each in rounds], "plan": settings, "machine": machine_facts()}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

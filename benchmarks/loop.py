"""`python -m benchmarks.loop --pictures CLOTHES --work WORK`: the loop of review, learning and certification, closed.

One class of labelled pictures stands for what is forbidden. A head of twenty labels judges all pictures; the audit
certifies what it may decide by itself; the gate compares it with what is live, and what it lets through judges the run
again, as a bundle. An oracle (the name of the folder) decides pictures of the review queue through the store of
decisions, then hard examples that are mined from the run, fifty together; the head goes on with them, and `--extend`
scores it in the same run. Each step is the program's own command. Pictures of the audit are never decided in the queue,
mined, nor learned from, and all figures are of them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.loop_decisions import Run, decide_mined, decide_queue, run_well
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
from moderation.config.model import RuntimeConfig
from moderation.runtime.cluster import connect, leave


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRound:
    """After a round, of the audit's pictures. labels: that the head has learned from; mined: those of hard examples.

    automation: share that is blocked or passed. bound_block, bound_pass: certified upper bounds of wrong blocks and of
    the leak; None: not certified. wrong_blocks, leak: rates that were seen. promoted: whether the gate let it go live.
    """

    number: int
    labels: int
    mined: int
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
    out = plan.work / "run"
    live: Path | None = None
    refused = False
    labels, mined = plan.first, 0
    for number in range(plan.rounds + 1):
        _score(plan, number, out, run)
        audit = write_audit(plan, out, truth)
        judged = _judge_certified(plan, number, out, audit, run)
        promoted = _promote(plan, number, judged, live or out, audit, run)
        if promoted:
            live = judged
            _judge_by_bundle(plan, out, judged, run)
        facts: dict[str, Any] = {"number": number, "promoted": promoted, "refused": refused}
        facts |= {"labels": labels, "mined": mined}
        done.append(LoopRound(**facts, **_measure(judged, truth), **_bounds(plan, number)))
        told(done[-1])
        if number < plan.rounds:
            queued = decide_queue(plan, number, out, judged, truth, decided)
            found = decide_mined(plan, number, out, plan.each - queued, truth, decided, run)
            refused = not _continue(plan, number, out, run)
            labels += 0 if refused else queued + found
            mined += 0 if refused else found
    return done


def _score(plan: LoopPlan, number: int, out: Path, run: Run) -> None:
    """Judge all pictures by the round's head: at first in a new run, then the new head's votes in the same run."""
    extend = ("--extend",) if number else ()
    config = config_path(plan, number)
    run_well(run, "backfill", plan.work / "pictures.csv", "--out", out, "--config", config, *extend)


def _judge_by_bundle(plan: LoopPlan, out: Path, judged: Path, run: Run) -> None:
    """Judge the run in place by what is live now. Its votes are there already."""
    bundle = ("--bundle", "current", "--bundles", plan.work / "store")
    run_well(run, "backfill", plan.work / "pictures.csv", "--out", out, *bundle, "--extend")
    verdicts = [
        {row["item_id"]: row["verdict"] for row in read_verdicts(o, "item_id", "verdict")} for o in (out, judged)
    ]
    if verdicts[0] != verdicts[1]:
        raise SystemExit("the promoted bundle judges other than what the gate has compared")


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
    run_well(
        run,
        *("train-head", "--images", plan.work / "first.csv", "--out", plan.work / "head0", "--name", NAME),
        *("--views", 2, "--cache", plan.work / "cache", "--config", config),
    )
    write_config(plan, 0)
    return {uri for uri, _ in rows}


def _judge_certified(plan: LoopPlan, number: int, out: Path, audit: Path, run: Run) -> Path:
    """Certify what the head may decide, and judge the run by it, in a folder of its own."""
    policy = plan.work / f"certified{number}.yaml"
    run_well(
        run,
        *("certify", out, "--labels", audit, "--to", policy),
        *("--block-errors", plan.block_errors, "--leak", plan.leak),
    )
    judged = plan.work / f"judged{number}"
    run_well(run, "rejudge", out, "--to", judged, "--policy", policy)
    return judged


def _promote(plan: LoopPlan, number: int, judged: Path, against: Path, audit: Path, run: Run) -> bool:
    store, policy = plan.work / "store", plan.work / f"certified{number}.yaml"
    run_well(run, "bundle", "make", "--bundles", store, "--config", config_path(plan, number), "--policy", policy)
    code, said = run(
        *("promote", judged, "--against", against, "--labels", audit, "--bundles", store),
        *("--limits", plan.work / "limits.yaml"),
    )
    if code not in (0, 1):
        raise SystemExit(f"promote: {code}: {said}")
    return code == 0


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


def _measure(judged: Path, truth: dict[str, bool]) -> dict[str, Any]:
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


def run_here(*arguments: object) -> tuple[int, str]:
    """A job within this process, which loads torch once."""
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
        "| round | labels | mined | automation | wrong blocks: seen, certified | leak: seen, certified | live |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in rounds:
        live = "yes" if each.promoted else "no"
        pairs = [
            f"{_percent(seen)}, {'–' if bound is None else f'at most {_percent(bound)}'}"
            for seen, bound in ((each.wrong_blocks, each.bound_block), (each.leak, each.bound_pass))
        ]
        cells = (each.number, each.labels, each.mined, _percent(each.automation), *pairs, live)
        lines.append(f"| {' | '.join(map(str, cells))} |")
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
    ours = connect(RuntimeConfig())  # once for all rounds; a job joins the cluster that is there
    try:
        rounds = run_loop(plan, run_here, lambda each: print(each, flush=True))
    finally:
        if ours:
            leave()
    print(as_table(rounds))
    if options.json:
        settings = {name: value for name, value in asdict(plan).items() if name not in ("pictures", "work")}
        figures = {"rounds": [asdict(each) for each in rounds], "plan": settings, "machine": machine_facts()}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

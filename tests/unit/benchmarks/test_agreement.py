"""When two pipelines' scores count as the same."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.agreement import ScoreTable, compare

LABELS = ("net.a", "net.b", "quality.sharpness")


def table(shift: float = 0.0, count: int = 200, apart: int = 0, far: float = 0.0) -> ScoreTable:
    """Scores 0.5 + shift; the first `apart` of them far off."""
    rows = {f"{i}.jpg": np.array([0.5 + (far if i < apart else shift), 0.5, 100.0], np.float32) for i in range(count)}
    return ScoreTable(labels=LABELS, rows=rows)


def test_scores_within_the_parity_tolerance_agree() -> None:
    assert compare(table(), table(0.01, apart=2, far=0.04)) == {
        "agrees": True, "pictures": 200, "largest": 0.04, "within_0.02": 0.99,
    }  # fmt: skip


def test_one_picture_far_off_is_too_much() -> None:
    assert not compare(table(), table(apart=1, far=0.06))["agrees"]


def test_too_many_that_are_not_close_are_too_much() -> None:
    assert not compare(table(), table(apart=3, far=0.04))["agrees"]


def test_only_pictures_of_the_reference_are_compared() -> None:
    assert compare(table(count=50), table(count=200))["pictures"] == 50


def test_pictures_under_other_names_are_no_agreement() -> None:
    other = ScoreTable(labels=LABELS, rows={f"other_{name}": row for name, row in table().rows.items()})
    assert compare(table(), other) == {"agrees": False, "pictures": 0}


def test_measurements_of_pixels_are_not_held_to_the_tolerance() -> None:
    other = {name: row + np.array([0, 0, 50], np.float32) for name, row in table().rows.items()}
    assert compare(table(), ScoreTable(labels=LABELS, rows=other))["agrees"]
    assert not compare(table(), ScoreTable(labels=LABELS, rows={**other, "0.jpg": np.full(3, np.nan, np.float32)}))[
        "agrees"
    ]


def test_a_lead_has_a_tolerance_of_its_own() -> None:
    marked = {
        shift: ScoreTable(
            labels=(*LABELS, "watermark.mark"),
            rows={name: np.append(row, np.float32(0.5 + shift)) for name, row in table().rows.items()},
        )
        for shift in (0.0, 0.09, 0.11)
    }
    near, far = (compare(marked[0.0], marked[shift]) for shift in (0.09, 0.11))
    assert (near["agrees"], near["largest"], near["largest_of_leads"]) == (True, 0.0, 0.09)
    assert not far["agrees"]

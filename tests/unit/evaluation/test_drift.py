"""Drift of scores between two windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moderation.errors import UsageError
from moderation.evaluation.drift import compare_runs, compare_windows, describe_drift, read_window, stability_index
from moderation.results.reader import open_run
from tests.finished_run import Made, write_run

POLICY = "checks:\n  hat: {side: negative, votes: [a.hat], review: 0.5}\n"


def run_of(folder: Path, scores: list[float | None], labels: tuple[str, ...] = ("a.hat", "a.other")) -> str:
    items = [Made(name=f"i{n}", votes=[(s, 0.5)]) for n, s in enumerate(scores)]
    return write_run(folder, labels, items, POLICY, shard_items=100)


def test_the_same_distribution_is_stable_and_a_shift_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = run_of(tmp_path / "1", rng.beta(2, 5, 300).tolist())
    second = run_of(tmp_path / "2", rng.beta(2, 5, 300).tolist())
    third = run_of(tmp_path / "3", rng.beta(5, 2, 300).tolist())
    assert {d.state for d in compare_runs(first, second)} == {"stable"}
    shifted = compare_runs(first, third)
    assert {d.name: d.state for d in shifted} == {"hat": "drifted", "a.hat": "drifted", "a.other": "stable"}
    said = describe_drift(shifted)
    assert len(said) == 2
    assert "mean 0.2" in said[0]
    assert "now 0.7" in said[0]


def test_a_detector_that_is_no_longer_asked_has_drifted() -> None:
    scores = np.random.default_rng(0).random(500)
    silent = scores.copy()
    silent[:400] = np.nan
    drift = compare_windows({"x": scores}, {"x": silent})[0]
    assert drift.state == "drifted"
    assert "not asked 0.0%, now 80.0%" in drift.reason


def test_many_scores_give_no_false_alarm() -> None:
    rng = np.random.default_rng(1)
    windows = [{f"s{i}": rng.random(400) for i in range(200)} for _ in range(2)]
    assert {d.state for d in compare_windows(*windows)} == {"stable"}


def test_a_change_that_is_sure_but_small_is_no_drift() -> None:
    rng = np.random.default_rng(2)
    drift = compare_windows({"x": rng.random(100_000)}, {"x": rng.random(100_000) ** 1.05})[0]
    assert drift.p is not None
    assert drift.p < 0.001
    assert drift.state == "stable"


def test_few_items_say_nothing() -> None:
    drift = compare_windows({"x": np.zeros(10)}, {"x": np.ones(10)})[0]
    assert (drift.state, drift.stability, drift.p) == ("too few", None, None)


def test_the_index_is_zero_of_the_same_and_known_of_two_bins() -> None:
    assert stability_index(np.arange(100.0), np.arange(100.0)) == 0.0
    half = stability_index(np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [80, 20]))
    assert half == pytest.approx(0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5))


def test_a_window_has_a_score_an_item_whatever_its_frames(tmp_path: Path) -> None:
    film = Made(name="film", votes=[(0.0, 0.2), (1.0, None)])
    out = write_run(tmp_path, ("a.hat", "a.other"), [film, Made(name="broken", votes=None)], POLICY)
    window = read_window(open_run(out))
    assert window["a.hat"].tolist() == [0.5]
    assert window["a.other"].tolist() == [pytest.approx(0.2)]


def test_runs_without_a_common_score_are_refused(tmp_path: Path) -> None:
    first = run_of(tmp_path / "1", [0.1])
    items = [Made(name="x", votes=[(0.1,)])]
    policy = "checks:\n  cap: {side: negative, votes: [b.cap], review: 0.5}\n"
    second = write_run(tmp_path / "2", ("b.cap",), items, policy)
    with pytest.raises(UsageError, match="no score in common"):
        compare_runs(first, second)

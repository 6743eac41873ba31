"""Figures of a head, and the temperature at which it is as sure as it is right."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.training.heads.quality import (
    calibrated_loss,
    calibration_error,
    fit_temperature,
    measure_head,
    roc_points,
)
from moderation.training.prompts.measure import area_under_curve

NAMES = ("a", "b", "c")


def answers(scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `scale` times as sure as they should be, and what was drawn by them."""
    rng = np.random.default_rng(seed)
    right = rng.normal(0, 2, (2000, 3))
    odds = np.exp(right) / np.exp(right).sum(axis=1, keepdims=True)
    drawn = (odds.cumsum(axis=1) < rng.random((2000, 1))).sum(axis=1)
    return torch.from_numpy(right * scale), torch.from_numpy(np.eye(3, dtype=np.float32)[drawn])


@settings(max_examples=10)
@given(st.floats(0.3, 6))
def test_temperature_undoes_how_loud_answers_are(scale: float) -> None:
    logits, targets = answers(scale)
    assert fit_temperature(logits, targets, several=False) == pytest.approx(scale, rel=0.12)
    assert calibrated_loss(logits, targets, several=False) == pytest.approx(
        calibrated_loss(logits * 3, targets, several=False), rel=1e-3
    )


def test_calibrated_answers_have_little_error_and_loud_ones_much() -> None:
    logits, targets = answers(4)
    loud = measure_head(logits, targets, NAMES, temperature=1, several=False)
    calm = measure_head(logits, targets, NAMES, temperature=4, several=False)
    assert calm.calibration_error < 0.03 < 0.1 < loud.calibration_error
    assert calm.accuracy == loud.accuracy


def test_figures_of_a_small_table() -> None:
    logits = torch.tensor([[3.0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 3, 0]])
    targets = torch.from_numpy(np.eye(3, dtype=np.float32)[[0, 1, 1, 1]])
    quality = measure_head(logits, targets, NAMES, temperature=1, several=False)
    assert quality.accuracy == 0.75
    assert quality.confusion == ((1, 0, 0), (1, 2, 0), (0, 0, 0))
    a, b, c = quality.classes
    assert (a["precision"], a["recall"], a["pictures"]) == (0.5, 1.0, 1)
    assert (b["precision"], b["recall"]) == (1.0, pytest.approx(2 / 3))
    assert (c["precision"], c["recall"], c["auc"]) == (None, None, None)


def test_pictures_of_several_classes_are_measured_class_by_class() -> None:
    logits = torch.tensor([[3.0, 3, -3], [-3, -3, -3]])
    targets = torch.tensor([[1.0, 1, 0], [0, 0, 1]])
    quality = measure_head(logits, targets, NAMES, temperature=1, several=True)
    assert quality.accuracy == pytest.approx(5 / 6)
    assert quality.confusion == ()


def test_calibration_error_of_what_is_always_sure_and_half_right() -> None:
    assert calibration_error(np.ones(4), np.array([True, False, True, False])) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.6, 0.9]), st.booleans()), min_size=2, max_size=200))
def test_curve_rises_from_corner_to_corner_with_the_area_of_the_table(rows: list[tuple[float, bool]]) -> None:
    scores, yes = np.array([score for score, _ in rows]), np.array([own for _, own in rows])
    points = roc_points(scores, yes)
    if yes.all() or not yes.any():
        assert points is None
        return
    assert points is not None
    assert points[0] == (0, 0) and points[-1] == (1, 1)
    assert points == sorted(points)
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    assert area == pytest.approx(area_under_curve(scores, yes), abs=0.01)

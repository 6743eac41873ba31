"""Accuracy, area under the curve, precision and recall; the linear probe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.training.prompts.measure import apply_probe, area_under_curve, fit_probe, measure


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_the_chance_that_a_positive_scores_higher(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([s for s, _ in pairs], np.float64)
    positive = np.array([p for _, p in pairs])
    found = area_under_curve(scores, positive)
    if positive.all() or not positive.any():
        assert found is None
        return
    wins = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert found == pytest.approx(np.mean(wins))


def test_precision_and_recall_are_by_class() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    found = measure(probabilities, np.array([0, 0, 1, 1]), [np.array([0, 1]), np.array([2, 3])])
    assert found.accuracy == 0.75
    assert found.precision == (pytest.approx(2 / 3), 1.0)
    assert found.recall == (1.0, 0.5)
    assert found.spread == 0.25
    assert found.auc == 1.0


def test_what_was_never_called_has_no_precision() -> None:
    found = measure(np.array([[0.9, 0.1, 0.0]] * 3), np.array([0, 1, 1]))
    assert found.precision == (pytest.approx(1 / 3), None, None)
    assert found.recall == (1.0, 0.0, None)
    assert found.auc is None  # one class has no picture


def test_the_probe_finds_a_line_between_classes() -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(200) % 3
    images = np.eye(3, 8)[targets] + rng.normal(size=(200, 8)) * 0.1
    unit = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
    probe = fit_probe(unit[:90], targets[:90], 3)
    assert (apply_probe(probe, unit[90:]).argmax(dim=1).numpy() == targets[90:]).all()

"""Figures of the watermark detector on pictures with real marks."""

from __future__ import annotations

import pytest

from benchmarks.real_marks import average_precision, summarise


def test_average_precision_is_the_mean_of_the_precision_at_each_mark() -> None:
    answers = [(0.9, True), (0.8, False), (0.7, True), (0.1, False)]
    assert average_precision(answers) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([(0.5, True), (0.5, False)]) == pytest.approx(0.5)
    assert average_precision([(0.5, False)]) == 0


def test_pictures_over_a_threshold_are_counted_by_the_kind_of_their_mark() -> None:
    figures = summarise({"a": 0.99, "b": 0.7, "c": 0.85}, {"a": "plain", "b": "faint"})
    assert figures["at_threshold"]["0.5"] == {"plain": 1, "faint": 1, "none": 1}
    assert figures["at_threshold"]["0.8"] == {"plain": 1, "faint": 0, "none": 1}
    assert figures["surest_without_a_mark"] == [["c", 0.85]]

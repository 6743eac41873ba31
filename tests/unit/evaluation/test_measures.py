"""Measures of scores and verdicts, held against scikit-learn's and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moderation.evaluation.calibrate import CalibrationKind, calibrate_scores
from moderation.evaluation.curves import areas, calibration_error, coverage_at, rank, resample
from moderation.evaluation.measures import effective_items, measure_score, measure_verdicts, rate
from moderation.evaluation.weighted import measure_weighted


@settings(deadline=None, max_examples=60)
@given(st.integers(4, 60), st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_areas_are_those_of_scikit_learn_with_ties_and_weights(count: int, seed: int, levels: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, levels, count) / levels, rng.random(count) < 0.4
    truth[:2] = True, False
    weights = rng.integers(0, 3, count).astype(np.float64)
    weights[:2] = 1
    ranked = rank(scores, truth)
    for w in (None, weights):
        average, area = areas(ranked, w)
        assert float(average) == pytest.approx(metrics.average_precision_score(truth, scores, sample_weight=w))
        assert float(area) == pytest.approx(metrics.roc_auc_score(truth, scores, sample_weight=w))


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(0, 1, width=32)))
def test_areas_do_not_change_under_a_monotone_map(scores: np.ndarray) -> None:
    truth = np.arange(len(scores)) % 2 == 0
    assert areas(rank(scores, truth)) == areas(rank(scores * 0.5, truth))


def test_many_samples_at_once_are_the_samples_one_by_one() -> None:
    rng = np.random.default_rng(0)
    ranked = rank(rng.random(30), rng.random(30) < 0.5)
    weights = rng.integers(0, 3, (5, 30)).astype(np.float64)
    together = areas(ranked, weights)
    for row in range(5):
        alone = areas(ranked, weights[row])
        assert [float(together[i][row]) for i in (0, 1)] == pytest.approx([float(alone[i]) for i in (0, 1)])


def test_groups_are_drawn_whole() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    drawn = resample(groups, 3)
    assert drawn is not None
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 3] == drawn[:, 5]).all()
    assert (drawn[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert resample(np.zeros(4, np.int64), 1) is None


def test_an_interval_is_wider_where_items_come_in_groups() -> None:
    rng = np.random.default_rng(2)
    truth = np.repeat(rng.random(60) < 0.5, 10)
    scores = np.repeat(rng.random(60), 10) * 0.6 + truth * 0.3

    def width(groups: np.ndarray) -> float:
        found = measure_score("x", "negative", scores, truth, groups, thresholds={}).roc_auc_interval
        assert found is not None
        return found[1] - found[0]

    assert width(np.repeat(np.arange(60), 10)) > 2 * width(np.arange(600))


def test_a_rate_has_its_exact_interval() -> None:
    zero, half = rate(0, 300), rate(5, 10)
    assert (zero.low, zero.share) == (0.0, 0.0)
    assert zero.high == pytest.approx(1 - 0.025 ** (1 / 300))
    assert (half.low, half.high) == (pytest.approx(0.1871, abs=1e-4), pytest.approx(0.8129, abs=1e-4))
    assert rate(0, 0).share is None


def test_a_null_is_no_score_and_a_threshold_counts_as_the_policy_does() -> None:
    scores = np.array([0.9, np.float64(np.float32(0.7)), 0.2, np.nan])
    found = measure_score(
        "x", "negative", scores, np.array([True, False, True, True]), np.arange(4), thresholds={"block": 0.7}
    )
    assert (found.items, found.true, found.nulls) == (3, 2, 1)
    operating = found.operating[0]
    counts = (operating.hits, operating.false_alarms, operating.missed, operating.rejected)
    assert counts == (1, 1, 1, 0)


def test_one_class_alone_has_no_areas() -> None:
    found = measure_score("x", "negative", np.array([0.1, 0.2]), np.zeros(2, np.bool_), np.arange(2), thresholds={})
    assert (found.average_precision, found.roc_auc, found.curves) == (None, None, None)


def test_coverage_is_the_largest_share_at_the_precision() -> None:
    truth = np.array([True, True, False, True, True, False])
    assert coverage_at(rank(np.arange(6)[::-1] / 6, truth), 0.8) == pytest.approx(5 / 6)
    assert coverage_at(rank(np.arange(6)[::-1] / 6, ~truth), 0.99) == 0.0


def test_a_calibrated_score_has_no_error_and_a_shifted_one_has_its_shift() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(20_000)
    truth = rng.random(20_000) < p
    assert calibration_error(rank(p, truth)) < 0.02
    assert calibration_error(rank(np.clip(p * 0.5, 0, 1), truth)) == pytest.approx(0.25, abs=0.02)


def test_verdicts_are_counted_by_what_items_are() -> None:
    verdicts = ["block", "block", "pass", "pass", "pass", "review"]
    found = measure_verdicts("all", verdicts, np.array([True, False, True, False, False, True]))
    assert found.confusion == {"block": (1, 1), "review": (1, 0), "pass": (1, 2)}
    assert (found.block_precision.share, found.block_recall.share) == (0.5, pytest.approx(1 / 3))
    assert (found.leak.k, found.leak.n) == (1, 3)
    assert (found.automation.k, found.review.k, found.wrong.k) == (5, 1, 2)


def test_items_of_a_group_are_no_independent_ones() -> None:
    """Albums of ten pictures with one fate: the interval holds the true share as often as it says."""
    rng, held, naive = np.random.default_rng(2), 0, 0
    for _ in range(100):
        bad = np.repeat(rng.random(60) < 0.2, 10)
        verdicts, groups = ["pass"] * 600, np.repeat(np.arange(60), 10)
        leak, plain = measure_verdicts("all", verdicts, bad, groups).leak, measure_verdicts("all", verdicts, bad).leak
        assert (leak.k, leak.n, leak.share) == (plain.k, plain.n, plain.share)
        held += leak.low <= 0.2 <= leak.high
        naive += plain.low <= 0.2 <= plain.high
    assert held >= 93
    assert naive < 60


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_items_that_are_groups_by_themselves_all_count(bad: list[bool]) -> None:
    part, whole = np.array(bad), np.ones(len(bad), np.bool_)
    assert effective_items(part, whole, np.arange(len(bad))) == pytest.approx(len(bad))
    assert effective_items(part, whole, np.zeros(len(bad), np.int64)) == 1.0


@pytest.mark.parametrize("groups", [2, 5, 10])
def test_few_groups_are_told_as_the_little_that_they_say(groups: int) -> None:
    rng, held = np.random.default_rng(3), 0
    for _ in range(200):
        bad = np.concatenate([rng.random(20) < share for share in rng.beta(2, 3, groups)])
        leak = measure_verdicts("all", ["pass"] * len(bad), bad, np.repeat(np.arange(groups), 20)).leak
        held += leak.low <= 0.4 <= leak.high
    assert held >= 180


def test_the_order_of_labels_with_one_score_does_not_matter() -> None:
    scores = np.repeat([0.5, 0.9], [100, 60])
    first = np.repeat([False, True], [50, 110])
    second = np.concatenate([first[:100][::-1], first[100:]])
    found = [
        (calibration_error(rank(scores, truth)), calibrate_scores("x", "isotonic", scores, truth, np.arange(160)))
        for truth in (first, second)
    ]
    assert found[0] == found[1]
    assert found[0][1] is not None
    assert found[0][1].knots == ((0.5, 0.5), (0.9, 1.0))
    assert found[0][0] == pytest.approx(0.1 * 60 / 160)


@pytest.mark.parametrize("kind", ["isotonic", "temperature"])
def test_labels_of_few_groups_calibrate_nothing(kind: CalibrationKind) -> None:
    scores, truth = np.linspace(0, 1, 100), np.arange(100) > 50
    assert calibrate_scores("x", kind, scores, truth, np.zeros(100, np.int64)) is None
    assert calibrate_scores("x", kind, scores, truth, 5 * (np.arange(100) % 5)) is not None


def test_a_weighted_share_without_an_error_is_not_known_to_be_none() -> None:
    """The interval holds the true leak as often as it says, where nearly no sample has an error."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        weights = np.where(rng.random(60) < 0.5, 1.0, 3.0)
        bad = rng.random(60) < 0.01
        leak = measure_weighted(["pass"] * 60, bad, weights, np.arange(60)).leak
        assert leak.low is not None and leak.high is not None
        inside += bool(bad.any()) or leak.low <= 0.01 <= leak.high
    assert inside == 200
    whole = measure_weighted(["block"] * 60, np.ones(60, np.bool_), np.ones(60), np.arange(60) // 6).block_precision
    assert (whole.low, whole.high) == (pytest.approx(0.025 ** (1 / 10)), 1.0)

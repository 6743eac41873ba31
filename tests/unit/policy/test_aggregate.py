"""Fusing votes and pooling frames: worked examples, brute-force twins, and monotony."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moderation.policy.aggregate import fuse, pool, pool_linear_softmax, pool_run

NULL = math.nan
FUSES = ("max", "min", "mean", "weighted_mean", "k_of_n")
POOLS = ("any", "all", "mean", "top_k_mean", "bottom_k_mean", "run", "linear_softmax")

unhurried = settings(max_examples=60, deadline=None)  # the machine may be busy

score = st.floats(0, 1, width=32)
score_or_null = st.one_of(score, st.just(NULL))


@pytest.mark.parametrize(
    ("method", "expected"),
    [("max", 0.9), ("min", 0.1), ("mean", 0.5), ("weighted_mean", 0.7), ("k_of_n", 0.5)],
)
def test_each_fusion_gives_its_worked_example(method, expected):
    assert fuse([0.1, 0.5, 0.9], method=method, weights=[1.0, 0.0 + 1.0, 4.0], k=2) == pytest.approx(expected)


@pytest.mark.parametrize("method", FUSES)
def test_one_null_vote_makes_a_frame_null_unless_told_to_skip(method):
    votes = [0.2, NULL, 0.8]
    assert math.isnan(fuse(votes, method=method, weights=[1, 1, 1], k=1))
    assert not math.isnan(fuse(votes, method=method, weights=[1, 1, 1], k=1, missing="skip"))


def test_weights_of_null_votes_drop_out_of_the_mean():
    assert fuse([0.2, NULL, 0.8], method="weighted_mean", weights=[3, 100, 1], missing="skip") == pytest.approx(0.35)


def test_k_of_n_is_null_where_fewer_than_k_votes_are_present():
    assert math.isnan(fuse([0.9, NULL, NULL], method="k_of_n", k=2, missing="skip"))


@pytest.mark.parametrize("method", FUSES)
def test_nothing_present_fuses_to_null(method):
    assert math.isnan(fuse([NULL, NULL], method=method, weights=[1, 1], missing="skip"))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("any", 0.9),
        ("all", 0.1),
        ("mean", 0.425),
        ("top_k_mean", 0.7),
        ("bottom_k_mean", 0.15),
        ("run", 0.2),
        ("linear_softmax", 0.6),
    ],
)
def test_each_pooling_gives_its_worked_example(method, expected):
    # run of 2: 0.9 beside 0.2 gives 0.2, 0.5 beside 0.1 gives 0.1.
    # linear softmax: 0.1 and 0.2 lie below half of the result y, and count as y / 2:
    # (0.81 + 0.25) - 1.4 y - 2 y^2 / 4 = 0.
    if method == "linear_softmax":
        expected = -1.4 + math.sqrt(1.4**2 + 2 * 1.06)
    assert pool([0.9, 0.2, 0.1, 0.5], method=method, k=2, length=2) == pytest.approx(expected)


@pytest.mark.parametrize("method", POOLS)
@unhurried
@given(value=st.floats(-10, 10))
def test_one_frame_is_its_own_score(method, value):
    assert pool([value], method=method, k=3, length=5, gap=1) == value
    assert pool([NULL, value, NULL], method=method, k=3, length=5, gap=1) == value


@pytest.mark.parametrize("method", POOLS)
def test_no_frame_with_a_score_pools_to_null(method):
    assert math.isnan(pool([], method=method))
    assert math.isnan(pool([NULL, NULL], method=method))


@pytest.mark.parametrize("method", POOLS)
@unhurried
@given(scores=st.lists(score_or_null, max_size=8))
def test_null_frames_are_left_out(method, scores):
    present = [s for s in scores if s == s]
    assert pool(scores, method=method, k=2, length=2, gap=1) == pytest.approx(
        pool(present, method=method, k=2, length=2, gap=1), nan_ok=True, abs=0
    )


def test_a_lone_flash_does_not_make_a_run_but_a_scene_with_a_miss_does():
    flash = [0.1, 0.1, 0.95, 0.1, 0.1, 0.1]
    scene = [0.1, 0.9, 0.1, 0.8, 0.85, 0.1]
    assert pool_run(flash, length=3, gap=1) == 0.1
    assert pool_run(scene, length=3, gap=1) == 0.8
    assert pool_run(scene, length=3, gap=0) == 0.1


def test_an_item_shorter_than_the_run_needs_all_its_frames():
    assert pool_run([0.9, 0.7], length=3, gap=0) == 0.7


@unhurried
@given(scores=st.lists(score, min_size=1, max_size=7), length=st.integers(1, 4), gap=st.integers(0, 3))
def test_run_equals_the_best_chain_of_frames_found_by_trying_all(scores, length, gap):
    needed = min(length, len(scores))
    chains = (
        chain
        for chain in itertools.combinations(range(len(scores)), needed)
        if all(b - a <= gap + 1 for a, b in itertools.pairwise(chain))
    )
    best = max(min(scores[i] for i in chain) for chain in chains)
    # A chain that skips a frame which itself scores enough is still a run, so trying all chains is the definition.
    assert pool_run(scores, length=length, gap=gap) == best


def test_plain_linear_softmax_falls_when_a_low_score_rises_and_ours_does_not():
    before, after = [0.9, 0.0], [0.9, 0.4]
    plain = [sum(s * s for s in scores) / sum(scores) for scores in (before, after)]
    assert plain[1] < plain[0]
    assert pool_linear_softmax(before) <= pool_linear_softmax(after)


@unhurried
@given(scores=st.lists(score, min_size=1, max_size=3))
def test_linear_softmax_is_the_infimum_of_the_plain_one_over_all_higher_scores(scores):
    # A grid over t >= s: the envelope lies at or below every point of it, and close to the lowest.
    axes = [np.linspace(s, 1.0, 41) for s in scores]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes)])
    total = grid.sum(0)
    plain = np.divide((grid**2).sum(0), total, out=np.zeros_like(total), where=total > 0)
    pooled = pool_linear_softmax(scores)
    assert pooled <= plain.min() + 1e-9
    # In steps of 1/40 the lowest point of the grid can miss the infimum by up to a step on each axis.
    assert plain.min() - pooled < 0.03


@unhurried
@given(scores=st.lists(st.floats(0.5, 1.0, width=32), min_size=1, max_size=20))
def test_linear_softmax_is_the_plain_one_where_no_score_is_below_half_of_the_result(scores):
    assert pool_linear_softmax(scores) == pytest.approx(sum(s * s for s in scores) / sum(scores))


def test_linear_softmax_of_silence_is_zero_and_negative_scores_count_as_zero():
    assert pool_linear_softmax([0.0, 0.0]) == 0.0
    assert pool_linear_softmax([0.8, -5.0]) == pool_linear_softmax([0.8, 0.0])


@pytest.mark.parametrize("method", FUSES)
@unhurried
@given(
    pairs=st.lists(st.tuples(score_or_null, score, st.floats(0.01, 100)), min_size=1, max_size=5),
    k=st.integers(1, 5),
    missing=st.sampled_from(["null", "skip"]),
)
def test_fusing_is_monotone_in_every_vote(method, pairs, k, missing):
    lower = [a if a != a else min(a, b) for a, b, _ in pairs]
    upper = [a if a != a else max(a, b) for a, b, _ in pairs]
    weights = [w for *_, w in pairs]
    low, high = (fuse(v, method=method, weights=weights, k=k, missing=missing) for v in (lower, upper))
    assert (math.isnan(low) and math.isnan(high)) or low <= high


@pytest.mark.parametrize("method", POOLS)
@unhurried
@given(
    pairs=st.lists(st.tuples(score_or_null, score), min_size=1, max_size=12),
    k=st.integers(1, 4),
    length=st.integers(1, 4),
    gap=st.integers(0, 2),
)
@example(pairs=[(0.9, 0.9), (0.0, 0.4)], k=1, length=1, gap=0)
def test_pooling_is_monotone_in_every_frame(method, pairs, k, length, gap):
    lower = [a if a != a else min(a, b) for a, b in pairs]
    upper = [a if a != a else max(a, b) for a, b in pairs]
    low, high = (pool(s, method=method, k=k, length=length, gap=gap) for s in (lower, upper))
    # Linear softmax takes square roots, so it is monotone to the rounding of float64; the policy rounds to float32.
    assert (math.isnan(low) and math.isnan(high)) or low <= high + (1e-15 if method == "linear_softmax" else 0.0)


@pytest.mark.parametrize("method", [m for m in POOLS if m != "run"])
@unhurried
@given(data=st.data(), scores=st.lists(score_or_null, min_size=1, max_size=12))
def test_order_free_poolings_ignore_the_order_to_the_last_bit(method, data, scores):
    shuffled = data.draw(st.permutations(scores))
    assert pool(scores, method=method, k=3) == pytest.approx(
        pool(shuffled, method=method, k=3), abs=0, rel=0, nan_ok=True
    )


@pytest.mark.parametrize("method", POOLS)
@unhurried
@given(scores=st.lists(score, min_size=1, max_size=12))
def test_pooled_scores_stay_between_the_lowest_and_the_highest(method, scores):
    pooled = pool(scores, method=method, k=3, length=2, gap=1)
    assert min(scores) - 1e-12 <= pooled <= max(scores) + 1e-12

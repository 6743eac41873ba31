"""Backgrounds that are held back, and the threshold that is fitted on them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.media.lettering import recompress
from moderation.media.pixels import scale_array
from moderation.training.watermark.held_back import careful_threshold, hold_back

_SCORES = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])


def _threshold(clean: list[float], places: list[int]) -> float | None:
    """Of these clean pictures, and of nine marked ones with scores 0.1 to 0.9."""
    scores = np.array([*np.arange(1, 10) / 10, *clean])
    marked = np.arange(len(scores)) < 9
    whole = np.array([*range(9), *places])
    return careful_threshold(scores, marked, whole, precision=0.93, clean_per_marked=1)[0]


@given(st.integers(2, 80))
def test_every_background_is_learned_from_or_held_back(count: int) -> None:
    grounds = [np.full((1, 1, 3), number, np.uint8) for number in range(count)]
    learned, held = hold_back(grounds)
    assert sorted(int(g[0, 0, 0]) for g in [*learned, *held]) == list(range(count))
    assert learned and held
    assert len(held) <= max(1, -(-count // 10))


def test_a_background_that_stands_there_twice_is_not_learned_and_held_back() -> None:
    grounds = [np.full((1, 1, 3), number % 15, np.uint8) for number in range(30)]
    learned, held = ({int(g[0, 0, 0]) for g in side} for side in hold_back(grounds))
    assert held == {0, 10}
    assert learned == set(range(15)) - held


def test_a_background_saved_anew_in_another_size_is_on_the_side_of_the_first() -> None:
    cells = np.random.default_rng(0).integers(0, 256, (12, 9, 9, 3), dtype=np.uint8)
    originals = [np.kron(own, np.ones((50, 50, 1), np.uint8)) for own in cells]
    copies = [recompress(scale_array(ground, (300, 300)), 60, subsampled=True) for ground in originals]
    learned, held = hold_back([*originals, *copies])
    expected = [originals[0], originals[10], copies[0], copies[10]]
    assert len(learned) == 20
    assert all(own is ground for own, ground in zip(held, expected, strict=True))


@given(st.lists(st.tuples(_SCORES, st.booleans(), st.integers(0, 4)), min_size=1, max_size=40), st.floats(0.5, 8))
def test_threshold_has_its_precision_among_the_pictures_it_was_fitted_on(
    rows: list[tuple[float, bool, int]], clean_per_marked: float
) -> None:
    scores, marked, places = (np.array(own) for own in zip(*rows, strict=True))
    threshold, recall = careful_threshold(scores, marked, places, precision=0.8, clean_per_marked=clean_per_marked)
    if threshold is None:
        assert recall == 0
    else:
        assert recall == pytest.approx((scores[marked] >= threshold).mean())
        alarms = clean_per_marked * (scores[~marked] >= threshold).mean()
        assert recall / (recall + alarms) >= 0.8


def test_false_alarms_of_one_background_ask_for_a_higher_threshold_than_those_of_many() -> None:
    clean = [0.45] * 4 + [0.0] * 96
    apart = _threshold(clean, list(range(100)))
    together = _threshold(clean, [0] * 4 + list(range(1, 97)))
    assert (apart, together) == (pytest.approx(0.1), pytest.approx(0.5))


def test_no_false_alarm_among_few_clean_pictures_is_no_proof() -> None:
    assert _threshold([0.0] * 5, list(range(5))) is None
    assert _threshold([0.0] * 100, list(range(100))) == pytest.approx(0.1)

"""Maps over a frame, and the box of the part that matters most."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.detectors.base import View
from moderation.explain.maps import average_windows, from_view, map_shape, overlap, responsible_box
from moderation.explain.windows import view_geometry

BOXES = st.tuples(st.floats(0, 0.8), st.floats(0, 0.8), st.floats(0.05, 0.2), st.floats(0.05, 0.2)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def test_the_box_holds_the_highest_part_and_leaves_a_lower_one_out() -> None:
    values = np.zeros((128, 128), np.float32)
    values[20:50, 60:100] = 1.0
    values[90:110, 10:30] = 0.2
    box = responsible_box(values)
    assert box is not None
    assert overlap(box, (60 / 128, 20 / 128, 100 / 128, 50 / 128)) > 0.75


@pytest.mark.parametrize("fill", [0.0, -1.0, np.nan])
def test_where_nothing_matters_there_is_no_box(fill: float) -> None:
    assert responsible_box(np.full((40, 60), fill, np.float32)) is None


def test_what_no_window_holds_is_not_known_and_a_window_without_a_score_is_left_out() -> None:
    places = [(0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.5, 1.0), (0.25, 0.0, 0.5, 1.0)]
    values = average_windows(places, np.array([0.2, 0.6, np.nan], np.float32), (100, 100, 3))
    assert values.shape == (128, 128)
    assert np.isnan(values[:, 70:]).all()
    assert values[0, 10] == pytest.approx(0.2) and values[0, 50] == pytest.approx(0.4)


def test_a_map_of_a_cropped_view_says_nothing_of_what_is_cut_off() -> None:
    geometry = view_geometry(View(mode="crop", resize=256, crop=224), (448, 896, 3), (896, 448))
    mapped = from_view(np.ones((7, 7), np.float32), geometry, (448, 896, 3))
    assert mapped.shape == map_shape((448, 896))
    assert np.isnan(mapped[:, :30]).all() and np.isnan(mapped[:, -30:]).all()
    assert mapped[32, 64] == pytest.approx(1.0)


@given(one=BOXES, other=BOXES)
@settings(max_examples=50)
def test_overlap_is_symmetric_between_0_and_1_and_1_only_with_itself(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> None:
    assert 0 <= overlap(one, other) <= 1
    assert overlap(one, other) == pytest.approx(overlap(other, one))
    assert overlap(one, one) == pytest.approx(1)

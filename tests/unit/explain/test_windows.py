"""Where windows lie in a frame and in the view that a detector reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.detectors.base import View
from moderation.detectors.views import TensorFrames
from moderation.explain.windows import MAX_WINDOWS, place_windows, view_geometry

VIEWS = {
    "squash": View(mode="squash", resize=256, crop=224),
    "crop": View(mode="crop", resize=256, crop=224, interpolation="bicubic"),
    "fit": View(mode="fit", crop=224, interpolation="lanczos"),
}
SIZES = [(448, 448), (640, 448), (448, 800), (448, 2400), (1800, 448)]


@pytest.mark.parametrize("mode", VIEWS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_place_of_the_frame_is_where_the_view_shows_it(mode: str, size: tuple[int, int]) -> None:
    width, height = size
    view = VIEWS[mode]
    # In the middle, where every view looks.
    place = (0.5 - 60 / width, 0.5 - 40 / height, 0.5 + 80 / width, 0.5 + 50 / height)
    x0, y0, x1, y1 = (round(p * side) for p, side in zip(place, (width, height, width, height), strict=True))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1, 1] = 255
    pixels[..., 0] = 30  # `fit` fills its margins with a blurred copy: the block is told by its colour
    seen = TensorFrames([pixels], [size], torch.device("cpu")).view(view)[0, 1] > 127
    rows, columns = np.flatnonzero(seen.any(dim=1).numpy()), np.flatnonzero(seen.any(dim=0).numpy())
    left, top, right, bottom = view_geometry(view, pixels.shape, size).to_view(place)
    assert abs(columns[0] - left) <= 1 and abs(columns[-1] + 1 - right) <= 1
    assert abs(rows[0] - top) <= 1 and abs(rows[-1] + 1 - bottom) <= 1


@given(
    mode=st.sampled_from([*VIEWS, "canvas"]),
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    window=st.integers(8, 300),
    share=st.floats(0.05, 1),
)
@settings(max_examples=60)
def test_windows_together_hold_all_that_the_view_shows(
    mode: str, width: int, height: int, window: int, share: float
) -> None:
    geometry = view_geometry(VIEWS.get(mode, View(mode="canvas")), (height, width, 3), (width, height))
    places = place_windows(geometry, window, max(2, int(window * share)))
    assert 1 <= len(places) <= max(MAX_WINDOWS, 1)
    held = np.zeros((geometry.height_px, geometry.width_px), bool)
    for place in places:
        left, top, right, bottom = geometry.to_view(place)
        held[top:bottom, left:right] = True
        assert all(0 <= side <= 1 for side in place)
    x0, y0, x1, y1 = geometry.to_view(geometry.seen())
    assert held[y0:y1, x0:x1].all()

"""Views of a picture: drawn by name, number and seed alone, nearly square, and never empty."""

from __future__ import annotations

import numpy as np
import pytest

from moderation.training.heads.views import draw_view
from moderation.types import U8


def picture(height: int, width: int) -> U8:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_first_view_is_the_picture_itself() -> None:
    pixels = picture(40, 30)
    assert draw_view(pixels, "a", 0, 0) is pixels


def test_name_number_and_seed_alone_decide_the_pixels() -> None:
    pixels = picture(40, 30)
    view = draw_view(pixels, "a", 1, 0)
    assert np.array_equal(draw_view(pixels, "a", 1, 0), view)
    for other in (("b", 1, 0), ("a", 2, 0), ("a", 1, 1)):
        assert not np.array_equal(draw_view(pixels, *other), view)


@pytest.mark.parametrize(("height", "width"), [(400, 300), (300, 400), (320, 320)])
def test_view_is_nearly_square_and_keeps_much_of_the_picture(height: int, width: int) -> None:
    for number in range(1, 40):
        h, w = draw_view(picture(height, width), "a", number, 0).shape[:2]
        assert 0.8 <= w / h <= 1.25
        assert 0.38 * height * width <= h * w <= height * width


def test_view_of_a_narrow_picture_is_its_centre_square() -> None:
    pixels = np.zeros((10, 200, 3), dtype=np.uint8)
    pixels[:, 95:105] = 255
    for number in range(1, 10):
        assert draw_view(pixels, "a", number, 0).shape == (10, 10, 3)
    assert np.mean([draw_view(pixels, "a", number, 0).mean() for number in range(1, 10)]) > 150


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2)])
def test_tiny_pictures_have_views(size: tuple[int, int]) -> None:
    for number in range(1, 30):
        view = draw_view(picture(*size), "a", number, 0)
        assert view.dtype == np.uint8 and view.size > 0


def test_some_views_are_partly_covered() -> None:
    grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    covered = [len(np.unique(draw_view(grey, "a", number, 0).reshape(-1, 3), axis=0)) > 1 for number in range(1, 201)]
    assert 0.2 < np.mean(covered) < 0.4

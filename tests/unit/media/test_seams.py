"""Whether a picture is a grid of pictures, and whether an album was one picture; on pictures drawn here."""

from __future__ import annotations

import numpy as np
import pytest

from moderation.media.seams import find_grid, stitch_album
from moderation.types import U8


def scene(seed: int, width: int = 240, height: int = 240) -> U8:
    """Smooth blobs of colour: detail everywhere, like a photograph."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    pixels = np.zeros((height, width, 3))
    for _ in range(24):
        cx, cy, size = *noise.uniform(0, 1, 2).tolist(), noise.uniform(0.03, 0.2)
        pixels += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / size**2)[..., None] * noise.uniform(-130, 130, 3)
    drawn: U8 = (127 + pixels + noise.normal(0, 3, (height, width, 1))).clip(0, 255).astype(np.uint8)
    return drawn


def collage(rows: int, columns: int, gutter: int = 0, level: int = 255, side: int = 120) -> U8:
    step = side + gutter
    whole = np.full((rows * step - gutter, columns * step - gutter, 3), level, np.uint8)
    for r in range(rows):
        for c in range(columns):
            whole[r * step : r * step + side, c * step : c * step + side] = scene(r * columns + c, side, side)
    return whole


def cut(picture: U8, rows: int, columns: int) -> list[U8]:
    high, wide = picture.shape[0] // rows, picture.shape[1] // columns
    return [picture[r * high : (r + 1) * high, c * wide : (c + 1) * wide] for r in range(rows) for c in range(columns)]


@pytest.mark.parametrize("gutter", [0, 6])
@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 2), (2, 3)])
def test_collage_is_found_with_all_its_tiles(rows: int, columns: int, gutter: int) -> None:
    boxes = find_grid(collage(rows, columns, gutter), 9)
    assert len(boxes) == rows * columns
    x0, y0, x1, y1 = boxes[0]
    assert (x0, y0) == (0, 0)
    assert x1 == pytest.approx(1 / columns, abs=0.03) and y1 == pytest.approx(1 / rows, abs=0.03)


def test_gutter_belongs_to_no_tile() -> None:
    picture = collage(3, 3, 12, level=0)
    height, width = picture.shape[:2]
    for x0, y0, x1, y1 in find_grid(picture, 9):
        tile = picture[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
        assert tile.shape[0] <= 122 and tile.shape[1] <= 122


def test_larger_grid_than_allowed_is_none_of_nine() -> None:
    assert len(find_grid(collage(4, 4, 6, side=80), 9)) <= 9


@pytest.mark.parametrize("seed", range(5))
def test_one_picture_is_no_grid(seed: int) -> None:
    assert find_grid(scene(seed), 9) == ()


def test_blank_and_striped_pictures_are_no_grids() -> None:
    assert find_grid(np.full((200, 200, 3), 255, np.uint8), 9) == ()
    stripes = np.zeros((240, 240, 3), np.uint8)
    stripes[::8] = 255
    assert find_grid(stripes, 9) == ()


def test_horizon_in_the_middle_is_no_grid() -> None:
    picture = scene(1)
    picture[120:] = 255 - picture[120:]
    assert find_grid(picture, 9) == ()


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 2), (2, 3), (3, 2)])
def test_cut_picture_is_recognised_and_laid_out_as_it_was(rows: int, columns: int) -> None:
    found = stitch_album(cut(scene(7, 300, 300), rows, columns))
    assert found is not None
    assert (found.rows, found.columns) == (rows, columns)
    assert sum(found.bound) >= rows * columns - 1


@pytest.mark.parametrize("count", [4, 6, 9])
def test_different_pictures_are_not_taken_for_one(count: int) -> None:
    for seed in range(10):
        assert stitch_album([scene(100 * seed + k) for k in range(count)]) is None


def test_strange_picture_among_the_pieces_is_not_bound() -> None:
    pieces = cut(scene(7, 300, 300), 3, 3)
    pieces[8] = scene(55, 100, 100)
    found = stitch_album(pieces)
    assert found is not None
    assert not found.bound[8]
    assert sum(found.bound) >= 6


def test_white_margins_prove_nothing() -> None:
    pictures = [scene(k) for k in range(9)]
    for picture in pictures:
        picture[:6] = picture[-6:] = 255
        picture[:, :6] = picture[:, -6:] = 255
    assert stitch_album(pictures) is None


def test_album_of_another_number_has_no_layout() -> None:
    assert stitch_album([scene(k) for k in range(5)]) is None

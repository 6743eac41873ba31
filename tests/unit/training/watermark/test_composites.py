"""Composites: the same from the same seed, boxes where the marks are, and no family on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from moderation.detectors.general.watermark_network import GRID
from moderation.training.watermark.backgrounds import draw_ground, draw_texture
from moderation.training.watermark.composites import FAINT, SIDE_PX, make_composite
from moderation.training.watermark.confusing import KINDS, add_confusing
from moderation.training.watermark.targets import IGNORED, cell_targets

pytest.importorskip("font_lato")
pytest.importorskip("manimgx_fonts_cjk")
marks = pytest.importorskip("moderation.training.watermark.marks")


def ground(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return draw_ground(np.random.default_rng(seed))


def test_same_seed_makes_the_same_picture_and_another_another() -> None:
    families = marks.known_families()
    made = [make_composite(ground(), families, (1, n), marked=True, confusing=True) for n in (5, 5, 6)]
    assert np.array_equal(made[0].pixels, made[1].pixels)
    assert made[0].pixels.shape != made[2].pixels.shape or not np.array_equal(made[0].pixels, made[2].pixels)


def test_marks_have_boxes_within_the_picture_and_clean_pictures_none() -> None:
    families = marks.known_families()
    for number in range(12):
        composite = make_composite(ground(number), families, (2, number), marked=number % 2 == 0, confusing=False)
        boxes = composite.boxes
        if number % 2:
            assert not len(boxes) and not composite.family
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert SIDE_PX / 2 <= min(composite.pixels.shape[:2]) <= SIDE_PX


def test_families_that_are_never_trained_on_share_no_name_no_words_and_no_latin_font() -> None:
    known, unseen = marks.known_families(), marks.unseen_families()
    assert (len(known), len(unseen)) == (25, 5)
    assert not {f.name for f in known} & {f.name for f in unseen}
    assert not {w for f in known for w in f.words} & {w for f in unseen for w in f.words}
    assert not {f.font for f in known[:20]} & {f.font for f in unseen[:4]}


def test_every_kind_of_what_is_mistaken_for_marks_is_drawn() -> None:
    plain = np.full((200, 260, 3), 120, np.float32)
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(40):
        drawn, kind = add_confusing(plain, rng)
        kinds.add(kind)
        assert drawn.shape == plain.shape
        assert not np.array_equal(drawn, plain)
    assert kinds == set(KINDS)


def test_cells_of_a_mark_say_yes_its_rim_may_say_either_and_the_rest_no() -> None:
    kinds, owners = cell_targets(np.array([[0.25, 0.25, 0.75, 0.5]], np.float32))
    assert kinds[15, 20] == 1
    assert kinds[10, 10] == IGNORED
    assert kinds[0, 0] == 0
    assert owners[:, 15, 20].tolist() == [0.25, 0.25, 0.75, 0.5]


def test_mark_smaller_than_a_cell_has_one() -> None:
    kinds, _ = cell_targets(np.array([[0.501, 0.501, 0.503, 0.503]], np.float32))
    assert (kinds == 1).sum() == 1
    assert kinds[GRID // 2, GRID // 2] == 1


def test_mark_has_less_contrast_on_a_busy_ground_than_on_an_even_one() -> None:
    families = marks.known_families()
    blocks = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (75, 75, 1))
    noise = np.kron(blocks, np.ones((6, 6, 3), np.uint8))
    even, busy = (
        make_composite(back, families, (4, 0), marked=True, confusing=False).contrasts.max()
        for back in (np.full_like(noise, 127), noise)
    )
    assert busy < FAINT < even


def test_cells_of_a_mark_that_is_hardly_seen_may_answer_either() -> None:
    box = np.array([[0.25, 0.25, 0.75, 0.5]], np.float32)
    kinds, _ = cell_targets(box[:0], box)
    assert kinds[15, 20] == IGNORED
    assert kinds[0, 0] == 0
    assert not (kinds == 1).any()


def test_texture_is_the_same_from_the_same_seed_and_not_even() -> None:
    first, again, other = (draw_texture(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (448, 448, 3) and first.std() > 1

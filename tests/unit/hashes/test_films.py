"""vPDQ's rule with distinct frames counted once, on made-up hashes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.hashes.film_pairs import film_pairs
from moderation.hashes.films import FilmFrames, compare_films, film_of, is_copy, longest_stretch, make_films

CHANCE = np.random.default_rng(11)
SCENES = CHANCE.integers(0, 256, (60, 32), dtype=np.uint8)


def film(*scenes: int, bits: int = 0) -> FilmFrames:
    """A video that shows these scenes, one a second; every hash with so many bits turned at random."""
    hashes = np.unpackbits(SCENES[list(scenes)], axis=1)
    for row in hashes:
        row[CHANCE.choice(256, bits, replace=False)] ^= 1
    return film_of(np.packbits(hashes, axis=1), np.arange(len(scenes), dtype=float))


def joined(*films: FilmFrames) -> FilmFrames:
    hashes = np.concatenate([one.hashes for one in films])
    return film_of(hashes, np.arange(len(hashes), dtype=float))


@pytest.mark.parametrize(
    ("left", "right", "copies"),
    [
        (film(*range(10)), film(*range(10), bits=12), True),
        (film(*range(10)), film(*range(3, 8), bits=12), True),  # trimmed
        (film(*range(10)), film(*range(20, 30)), False),
        (film(0, *range(10, 20)), film(0, *range(20, 30)), False),  # a title in common
        (film(*[0] * 30, *range(10, 20)), film(*[0] * 30, *range(20, 30)), False),  # a long still shot in common
        (film(*[0] * 10), film(0, *range(20, 30)), False),  # nothing but that title
        (film(*[0] * 10), film(*[0] * 7, bits=6), True),  # two copies of a still
        (film(0, 1), film(0, 2, bits=3), False),
        (film(*range(10)), joined(film(*range(3), bits=25), film(*range(3, 10), bits=40)), True),  # a logo
        (film(*range(10)), film(*range(10), bits=40), False),  # nothing is near
        (film(*range(6), *range(40, 50)), film(*range(6), *range(50, 60)), False),  # a third in common
    ],
)
def test_copies_are_told_from_strangers(left: FilmFrames, right: FilmFrames, copies: bool) -> None:
    assert compare_films(left, right, 31).is_copy is copies
    assert compare_films(right, left, 31).is_copy is copies


def test_the_matching_stretch_is_told_for_both() -> None:
    match = compare_films(film(*range(30, 36), *range(10)), film(*range(2, 8), *range(40, 50)), 31)
    assert match.segment_left_s == (8.0, 13.0) and match.segment_right_s == (0.0, 5.0)
    assert match.share_left == pytest.approx(6 / 16) and match.share_right == pytest.approx(6 / 16)


def test_a_stretch_may_miss_a_frame_or_two_but_not_more() -> None:
    seconds = np.arange(12.0)
    found = np.isin(np.arange(12), [0, 3, 4, 6, 10, 11])
    assert longest_stretch(seconds, found) == (0.0, 6.0)
    assert all(np.isnan(longest_stretch(seconds, np.zeros(12, np.bool_))))


def test_frames_that_show_the_same_are_one_scene() -> None:
    hashes = np.concatenate([film(0, 0, 1, 0, bits=8).hashes, film(1, 1, 2).hashes])
    frames = make_films(np.array([0] * 4 + [1] * 3), hashes, np.arange(7.0))
    assert frames.scene.tolist() == [0, 0, 1, 0, 0, 0, 1]


def test_of_many_videos_the_copies_are_found_and_no_others() -> None:
    stills, titled = [film(*[9] * 6), film(*[9] * 4, bits=5)], film(9, *range(30, 37))
    films = [film(*range(8)), film(*range(2, 7), bits=10), film(0, *range(20, 28)), stills[0], titled]
    films += [film(*range(8), bits=14), stills[1]]
    owner = np.repeat(np.arange(len(films)), [len(f) for f in films])
    frames = make_films(owner, np.concatenate([f.hashes for f in films]), np.concatenate([f.time_s for f in films]))
    pairs = film_pairs(frames, 31)
    assert list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [(0, 1), (0, 5), (1, 5), (3, 6)]
    assert (pairs.apart <= 0.2).all()


def test_no_videos_are_no_pairs() -> None:
    none = make_films(np.empty(0, np.int64), np.empty((0, 32), np.uint8), np.empty(0))
    assert not len(film_pairs(none, 31).left)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 10), st.floats(0, 1), st.integers(0, 10))
def test_more_in_common_never_makes_copies_strangers(
    left: float, right: float, distinct: int, more: float, further: int
) -> None:
    if is_copy(left, right, distinct):
        assert is_copy(left + (1 - left) * more, right, distinct + further)
    assert is_copy(left, right, distinct) == is_copy(right, left, distinct)

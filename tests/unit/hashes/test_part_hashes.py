"""Frames that were framed or marked: by the picture within bars, and by the parts that a logo leaves."""

from __future__ import annotations

import numpy as np
import pytest

from moderation.hashes.film_pairs import film_pairs
from moderation.hashes.films import FilmFrames, compare_films, film_of, make_films
from moderation.hashes.framed_pairs import framed_pairs
from moderation.hashes.part_hashes import PartHashes, concatenate_parts, no_parts, part_distances, search_sets
from moderation.types import U8

CHANCE = np.random.default_rng(5)
COUNT = 12


def drawn(count: int = COUNT) -> U8:
    return CHANCE.integers(1, 256, (count, 32), dtype=np.uint8)


def turned(hashes: U8, bits: int) -> U8:
    flat = np.unpackbits(hashes, axis=1)
    for row in flat:
        row[CHANCE.choice(256, bits, replace=False)] ^= 1
    return np.packbits(flat, axis=1)


def film(hashes: U8, parts: PartHashes) -> FilmFrames:
    return film_of(hashes, np.arange(len(hashes), dtype=float), parts)


def parts_of(*, inner: U8 | None = None, quarters: U8 | None = None, edges: U8 | None = None) -> PartHashes:
    none = np.zeros((COUNT, 32), np.uint8)
    return PartHashes(
        inner=none if inner is None else inner,
        quarters=none if quarters is None else quarters,
        edges=none if edges is None else edges,
    )


def covered(quarters: U8, part: int) -> U8:
    """As behind a logo that covers one part."""
    marked = turned(quarters, 8)
    marked[:, 8 * part : 8 * part + 8] = drawn(1)[:, :8]
    return marked


ORIGINAL, QUARTERS, EDGES = drawn(), drawn(), drawn()
PLAIN = film(ORIGINAL, parts_of(quarters=QUARTERS, edges=EDGES))


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("middle", [False, True])
def test_a_large_logo_hides_no_copy(part: int, middle: bool) -> None:
    left, seen = covered(QUARTERS, part), turned(EDGES, 10)
    marked = film(drawn(), parts_of(edges=seen, quarters=drawn()) if middle else parts_of(quarters=left, edges=drawn()))
    assert compare_films(PLAIN, marked, 31).is_copy and compare_films(marked, PLAIN, 31).is_copy
    both = make_films(
        np.repeat([0, 1], COUNT),
        np.concatenate([PLAIN.hashes, marked.hashes]),
        np.tile(np.arange(float(COUNT)), 2),
        concatenate_parts([PLAIN.parts, marked.parts]),
    )
    assert film_pairs(both, 31).left.tolist() == [0]


def test_bars_hide_no_copy_whichever_has_them() -> None:
    barred = film(drawn(), parts_of(inner=turned(ORIGINAL, 10)))
    otherwise = film(drawn(), parts_of(inner=turned(ORIGINAL, 12)))
    for left, right in ((PLAIN, barred), (barred, PLAIN), (barred, otherwise)):
        assert compare_films(left, right, 31).is_copy


def test_strangers_that_carry_the_same_logo_stay_apart() -> None:
    logo = drawn(1)[:, :16]
    ours, theirs = drawn(), drawn()
    ours[:, :16], theirs[:, :16] = logo, logo  # half of either is covered by it
    left, right = (film(drawn(), parts_of(quarters=quarters, edges=drawn())) for quarters in (ours, theirs))
    assert not compare_films(left, right, 31).is_copy


def test_strangers_within_the_same_border_stay_apart() -> None:
    border = np.repeat(drawn(1), COUNT, 0)
    left, right = (film(drawn(), parts_of(quarters=drawn(), edges=turned(border, 3))) for _ in range(2))
    assert not compare_films(left, right, 31).is_copy


def test_a_few_frames_that_agree_by_parts_prove_nothing() -> None:
    still = film(np.repeat(drawn(1), COUNT, 0), parts_of(quarters=np.repeat(QUARTERS[:1], COUNT, 0)))
    other = film(np.repeat(drawn(1), COUNT, 0), parts_of(quarters=np.repeat(QUARTERS[:1], COUNT, 0)))
    assert not compare_films(still, other, 31).is_copy


def test_parts_without_content_are_near_nothing() -> None:
    assert (part_distances(no_parts(3).quarters, no_parts(3).quarters) == 192).all()


def test_frames_of_older_runs_are_compared_as_wholes() -> None:
    older = film(turned(ORIGINAL, 12), no_parts(COUNT))
    assert compare_films(PLAIN, older, 31).is_copy
    assert set(search_sets(older.hashes, older.parts)) == {"whole"}


def test_a_logo_that_very_many_share_is_not_searched_by() -> None:
    count = 5000
    quarters = drawn(count)
    quarters[:, :8] = drawn(1)[:, :8]
    none = np.zeros_like(quarters)
    sets = search_sets(drawn(count), PartHashes(inner=none, quarters=quarters, edges=none))
    assert {kind: len(searched.row) for kind, searched in sets.items()} == {"whole": count, "without quarter 0": count}


def test_pictures_are_near_by_what_lies_within_their_bars() -> None:
    hashes = drawn(4)
    inner = np.zeros_like(hashes)
    inner[1], inner[2] = turned(hashes[:1], 9)[0], turned(hashes[:1], 4)[0]
    pairs = framed_pairs(hashes, inner, 31)
    found = dict(zip(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True), pairs.distance.tolist(), strict=True))
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    assert found[0, 1] == 9 and found[0, 2] == 4

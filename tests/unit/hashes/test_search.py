"""Searching hashes finds exactly what brute force finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.hashes.pairs import collapse, near_pairs
from moderation.hashes.search import HashIndex, neighbour_masks
from moderation.types import U8


def draw(count: int, seed: int = 0) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def flip(hashes: U8, bits: int, seed: int = 1) -> U8:
    """Each hash with this many of its bits flipped."""
    chance = np.random.default_rng(seed)
    turned = np.unpackbits(hashes, axis=1)
    for row in turned:
        row[chance.permutation(256)[:bits]] ^= 1
    return np.packbits(turned, axis=1)


def brute(left: U8, right: U8) -> np.ndarray:
    return np.bitwise_count(left[:, None] ^ right[None]).sum(axis=2, dtype=np.int64)


@pytest.mark.parametrize("distance", [0, 15, 16, 31, 32, 47])
def test_finds_all_pairs_that_brute_force_finds(distance: int) -> None:
    listed = draw(3000)
    queries = np.concatenate([flip(listed[:60], bits, seed=bits) for bits in (0, 1, 15, 16, 17, 31, 32, 33, 47, 48)])
    expected = np.argwhere(brute(queries, listed) <= distance)
    found = HashIndex(listed).pairs(queries, distance)
    assert np.array_equal(np.stack([found.query, found.entry], axis=1), expected)
    assert np.array_equal(found.distance, brute(queries, listed)[found.query, found.entry])


def test_finds_what_differs_in_two_bits_of_every_word_but_one() -> None:
    # The worst case of the pigeonhole: fifteen words differ in two bits, one in a single bit.
    hashes = draw(1)
    words = np.unpackbits(hashes, axis=1).reshape(16, 16)
    words[:, :2] ^= 1
    words[7, 1] ^= 1
    entry, bits = HashIndex(hashes).nearest(np.packbits(words.reshape(1, 256), axis=1), 31)
    assert (entry.tolist(), bits.tolist()) == ([0], [31])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(0, 31))
def test_the_nearest_is_that_of_brute_force(seed: int, count: int, bits: int) -> None:
    listed = draw(count, seed)
    listed[-1] = listed[0]  # of equally near entries the first wins
    queries = np.concatenate([flip(listed[:1], bits, seed), draw(2, seed + 1)])
    distances = brute(queries, listed)
    entry, found = HashIndex(listed).nearest(queries, 31)
    near = distances.min(axis=1) <= 31
    assert entry.tolist() == np.where(near, distances.argmin(axis=1), -1).tolist()
    assert found.tolist() == np.where(near, distances.min(axis=1), -1).tolist()


def test_a_list_of_equal_words_is_searched_piece_by_piece() -> None:
    # All in one bucket: three times as many candidates as are compared at once.
    listed = np.zeros((50_000, 32), np.uint8)
    listed[:, 31] = 1
    entry, bits = HashIndex(listed).nearest(np.zeros((2, 32), np.uint8), 31)
    assert (entry.tolist(), bits.tolist()) == ([0, 0], [1, 1])


def test_nothing_is_near_among_nothing() -> None:
    none = np.empty((0, 32), np.uint8)
    assert HashIndex(none).nearest(draw(3), 31)[0].tolist() == [-1, -1, -1]
    assert len(HashIndex(draw(3)).pairs(none, 31).query) == 0


@pytest.mark.parametrize("distance", [-1, 48])
def test_a_distance_out_of_reach_is_refused(distance: int) -> None:
    with pytest.raises(ValueError, match="0 to 47"):
        neighbour_masks(distance)


def test_hashes_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N,32\]"):
        HashIndex(np.zeros((3, 16), np.uint8))


def test_equal_hashes_collapse_onto_the_first() -> None:
    hashes = draw(5)
    assert collapse(hashes[[0, 1, 0, 2, 1, 1]]).tolist() == [0, 1, 0, 3, 1, 1]
    assert collapse(hashes[:0]).tolist() == []


@pytest.mark.parametrize("exact_up_to", [10_000, 0])
def test_near_pairs_are_those_of_brute_force(exact_up_to: int) -> None:
    originals = draw(1500)
    hashes = np.concatenate([originals, flip(originals[:200], 3), flip(originals[200:400], 12)])
    distances = brute(hashes, hashes)
    expected = np.argwhere(np.triu(distances <= 20, k=1))
    found = near_pairs(hashes, 20, exact_up_to=exact_up_to)
    assert np.array_equal(np.stack([found.left, found.right], axis=1), expected)
    assert found.distance.tolist() == distances[found.left, found.right].tolist()


def test_buckets_miss_few_pairs_at_the_largest_distance_and_find_no_others() -> None:
    originals = draw(4000)
    hashes = np.concatenate([originals, flip(originals, 31)])
    found = near_pairs(hashes, 31, exact_up_to=0)
    assert np.array_equal(found.right, found.left + 4000)
    assert len(found.left) >= 0.95 * 4000


def test_pairs_do_not_depend_on_the_number_of_threads() -> None:
    originals = draw(1000)
    hashes = np.concatenate([originals, flip(originals, 28)])
    one, three = (near_pairs(hashes, 31, exact_up_to=0, threads=n) for n in (1, 3))
    assert np.array_equal(one.left, three.left)
    assert np.array_equal(one.right, three.right)

"""The nearest known hash to many stored ones: a block at a time, or by an index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.hashes.nearest import KnownHashes


@settings(max_examples=20)
@given(known=st.sampled_from([1, 3, 300]), distance=st.sampled_from([0, 15, 31]), seed=st.integers(0, 99))
def test_it_finds_what_a_comparison_of_every_pair_finds(known: int, distance: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    entries = chance.integers(0, 256, (known, 32), dtype=np.uint8)
    stored = np.concatenate([chance.integers(0, 256, (20, 32), dtype=np.uint8), entries[:10]])
    stored[-5:, 0] ^= 0b0001_0110
    entry, bits = KnownHashes(entries).nearest(stored, distance)
    apart = np.bitwise_count(stored[:, None] ^ entries[None]).sum(axis=2, dtype=np.int16)
    nearest = apart.argmin(axis=1)
    within = apart.min(axis=1) <= distance
    assert entry.tolist() == np.where(within, nearest, -1).tolist()
    assert bits.tolist() == np.where(within, apart.min(axis=1), -1).tolist()


@pytest.mark.parametrize("known", [0, 5])
def test_nothing_near_is_minus_one(known: int) -> None:
    entries = np.full((known, 32), 255, np.uint8)
    entry, bits = KnownHashes(entries).nearest(np.zeros((4, 32), np.uint8), 31)
    assert entry.tolist() == bits.tolist() == [-1] * 4

"""All near pairs within a set of 256-bit hashes; for tens of millions, in numpy.

Up to `EXACT_UP_TO` hashes every pair within the distance is found (`search`). Beyond that an exact search has too many
candidates (0.4% of all pairs, so they grow with the square of N). Hashes are then sorted into buckets by 24 of their
bits and compared within a bucket; this is repeated `tables` times, each with another choice of six groups of four bits
(locality-sensitive hashing by bit sampling: Indyk and Motwani, STOC 1998). Of planted pairs with bits flipped at
random, 96 tables missed 3% at 31 bits, 1% at 28 and none at 24 or fewer (benchmarks/duplicates.py). Some 20 more tables
halve what is missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.hashes.search import I16, I64, U64, HashIndex, halves, within
from moderation.types import U8

EXACT_UP_TO: Final = 100_000  # 17 million candidates
TABLES: Final = 96
# Only buckets of similar hashes hold more than this; each hash is then compared with this many after it.
_WINDOW: Final = 64
_NIBBLES: Final = 6  # of 4 bits: 24 bits, about one hash per bucket at 16 million hashes
_QUERIES: Final = 1 << 16
_CHUNK_PAIRS: Final = 1 << 22  # pairs gathered before duplicates are dropped
_SEED: Final = 0x9D9


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Near pairs, each once, sorted. left < right: int64 [M]; distance: int16 [M], bits."""

    left: I64
    right: I64
    distance: I16


def collapse(hashes: U8) -> I64:
    """The first row with the same hash for each row, int64 [N]; its own number where none comes before it."""
    words = np.ascontiguousarray(hashes).view(np.uint64)
    mixed = np.zeros(len(words), np.uint64)
    for column in range(words.shape[1]):
        # Odd constants: equal rows get equal keys; other rows almost never do, and are told apart below.
        mixed = (mixed ^ words[:, column]) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(column)
    order = np.argsort(mixed, kind="stable")
    new = np.ones(len(order), dtype=bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(new)
    first = np.empty(len(order), np.int64)
    first[order] = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    return first


def near_pairs(
    hashes: U8, distance: int, *, exact_up_to: int = EXACT_UP_TO, tables: int = TABLES, threads: int = 2
) -> Pairs:
    """All pairs within `distance` bits (0 to 47); beyond `exact_up_to` rows nearly all (see the module's docstring).

    hashes: uint8 [N,32], better without duplicates (see `collapse`), N below 2^31. Memory: 32 bytes per hash beside the
    hashes, and some 40 per hash and thread. The same hashes give the same pairs. Raises ValueError for other distances.
    """
    keys = _exact(hashes, distance) if len(hashes) <= exact_up_to else _bucketed(hashes, distance, tables, threads)
    left, right = keys >> 32, keys & 0xFFFFFFFF
    bits = np.zeros(len(keys), np.int16)
    for half in halves(hashes):
        for start in range(0, len(keys), _CHUNK_PAIRS):
            here = slice(start, start + _CHUNK_PAIRS)
            bits[here] += np.bitwise_count(half[left[here]] ^ half[right[here]]).sum(axis=1, dtype=np.int16)
    return Pairs(left=left, right=right, distance=bits)


def _exact(hashes: U8, distance: int) -> I64:
    index = HashIndex(hashes)
    keys = [np.empty(0, np.int64)]
    for start in range(0, len(hashes), _QUERIES):
        matches = index.pairs(hashes[start : start + _QUERIES], distance)
        query = matches.query + start
        later = matches.entry > query
        keys.append(query[later] << 32 | matches.entry[later])
    return np.concatenate(keys)


def _bucketed(hashes: U8, distance: int, tables: int, threads: int) -> I64:
    planes = halves(hashes)
    choices = _choose_nibbles(tables)

    def search_table(chosen: npt.NDArray[np.int64]) -> I64:
        return np.unique(np.concatenate([np.empty(0, np.int64), *_in_buckets(planes, chosen, distance)]))

    unique, waiting = np.empty(0, np.int64), [np.empty(0, np.int64)]
    with ThreadPoolExecutor(threads) as pool:
        for keys in pool.map(search_table, choices):
            waiting.append(keys)
            if sum(map(len, waiting)) >= _CHUNK_PAIRS:
                unique, waiting = np.unique(np.concatenate([unique, *waiting])), []
    return np.unique(np.concatenate([unique, *waiting]))


def _choose_nibbles(tables: int) -> npt.NDArray[np.int64]:
    """int64 [tables,6]: which of the 64 groups of 4 bits; every group about as often as any other."""
    chance = np.random.default_rng(_SEED)
    rows: list[npt.NDArray[np.int64]] = []
    while len(rows) < tables:
        shuffled = chance.permutation(64)
        rows += [shuffled[i : i + _NIBBLES] for i in range(0, 64 - _NIBBLES + 1, _NIBBLES)]
    return np.stack(rows[:tables])


def _in_buckets(planes: tuple[U64, U64], chosen: npt.NDArray[np.int64], distance: int) -> Iterator[I64]:
    """left << 32 | right of the pairs of one table."""
    size = len(planes[0])
    key = np.zeros(size, np.uint64)
    for nibble in chosen.tolist():
        word = planes[nibble // 32][:, nibble // 16 % 2]
        key <<= np.uint64(4)
        key |= (word >> np.uint64(4 * (nibble % 16))) & np.uint64(15)
    # Key and row share one number: sorting numbers takes a tenth of the time of argsort.
    key <<= np.uint64(32)
    key |= np.arange(size, dtype=np.uint64)
    key.sort()
    row = (key & np.uint64(0xFFFFFFFF)).astype(np.int64)
    bucket = (key >> np.uint64(32)).astype(np.uint32)
    del key
    at = np.flatnonzero(bucket[1:] == bucket[:-1])
    for step in range(1, _WINDOW + 1):
        if step > 1:
            at = at[at + step < size]
            at = at[bucket[at + step] == bucket[at]]
        if not len(at):
            return
        for start in range(0, len(at), _CHUNK_PAIRS):
            here = at[start : start + _CHUNK_PAIRS]
            # Rows of a bucket are in ascending order.
            left, right = within(planes, row[here], planes, row[here + step], distance)
            yield left << 32 | right

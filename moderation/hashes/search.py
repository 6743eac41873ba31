"""Exact search among 256-bit hashes by Hamming distance: multi-index hashing, in numpy.

Written from the paper: Norouzi, Punjani, Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012.
Two hashes that differ in at most 31 of 256 bits differ in at most 1 bit in at least one of their 16 words of 16 bits
(2 or more bits in each of 16 words would make 32). So a query looks up each of its words and the word's 16 neighbours,
and only the entries found there are compared: 0.4% of a million random hashes. Nothing within the distance is missed.

benchmarks/known.py compares it on two cores (256 queries, one million hashes) with a matrix product of +1 and -1, which
reads every pair; benchmarks/results/known.json has the ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.types import U8

I64 = npt.NDArray[np.int64]
I16 = npt.NDArray[np.int16]
U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]

HASH_BYTES: Final = 32
BITS: Final = 8 * HASH_BYTES
_WORDS: Final = 16
_WORD_BITS: Final = 16
_KEYS: Final = 1 << _WORD_BITS
# Two bits per word: 137 neighbours instead of 17. Pictures further apart than this are not copies by anyone's standard.
MAX_DISTANCE: Final = 3 * _WORDS - 1
# Candidates compared at once: arrays of 8 bytes each, which fit a second-level cache of about 2 MB.
_PIECE: Final = 1 << 18
_QUERIES: Final = 1 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HashMatches:
    """Pairs within a distance, sorted by query, then entry. query, entry: int64 [M]; distance: int16 [M], bits."""

    query: I64
    entry: I64
    distance: I16


class HashIndex:
    """Hashes ready to be searched: 96 bytes per hash (the hash itself and its place in each of 16 orders)."""

    def __init__(self, hashes: U8) -> None:
        """hashes: uint8 [N,32], N below 2^31."""
        self._halves = halves(hashes)
        self._size = len(hashes)
        words = as_words(hashes)
        self._order = np.empty((_WORDS, self._size), np.int32)
        self._starts = np.zeros((_WORDS, _KEYS + 1), np.int32)
        for word in range(_WORDS):
            column = np.ascontiguousarray(words[:, word])
            self._order[word] = np.argsort(column, kind="stable")
            np.cumsum(np.bincount(column, minlength=_KEYS), out=self._starts[word, 1:])

    def __len__(self) -> int:
        return self._size

    def pairs(self, queries: U8, distance: int) -> HashMatches:
        """All entries within `distance` bits (0 to 47) of each query, uint8 [Q,32]. Raises ValueError."""
        pairs = [np.empty((2, 0), np.int64)]
        for start in range(0, len(queries), _QUERIES):
            chunk = np.ascontiguousarray(queries[start : start + _QUERIES])
            # A pair is found once through each word that is near; keep it once.
            keys = [row << 32 | entry for row, entry in self._candidates(chunk, distance)]
            unique = np.unique(np.concatenate(keys)) if keys else np.empty(0, np.int64)
            pairs.append(np.stack([(unique >> 32) + start, unique & 0xFFFFFFFF]))
        query, entry = np.concatenate(pairs, axis=1)
        return HashMatches(query=query, entry=entry, distance=self._distances(queries, query, entry))

    def nearest(self, queries: U8, distance: int) -> tuple[I64, I16]:
        """The nearest entry to each query, uint8 [Q,32], and its distance in bits; -1, -1 where none is in reach.

        Of equally near entries the first wins. Raises ValueError for a distance outside 0 to 47.
        """
        matches = self.pairs(queries, distance)
        order = np.lexsort((matches.entry, matches.distance, matches.query))
        query = matches.query[order]
        first = np.ones(len(query), dtype=bool)
        first[1:] = query[1:] != query[:-1]
        best = order[first]
        entry = np.full(len(queries), -1, np.int64)
        bits = np.full(len(queries), -1, np.int16)
        entry[query[first]] = matches.entry[best]
        bits[query[first]] = matches.distance[best]
        return entry, bits

    def _candidates(self, queries: U8, distance: int) -> Iterator[tuple[I64, I64]]:
        """(row, entry) of pairs within the distance; a pair may come several times."""
        masks = neighbour_masks(distance)
        ours = halves(queries)
        # [Q,16,M] probes of one bucket each; those of empty buckets are dropped at once.
        keys = (as_words(queries)[:, :, None] ^ masks).astype(np.int64)
        keys += (np.arange(_WORDS) * (_KEYS + 1))[:, None]
        flat = self._starts.reshape(-1)
        low = flat[keys]
        count = (flat[keys + 1] - low).reshape(-1)
        probes = np.flatnonzero(count)
        count = count[probes].astype(np.int64)
        rows = probes // (_WORDS * len(masks))
        word = probes // len(masks) % _WORDS
        begin = word * self._size + low.reshape(-1)[probes]
        order = self._order.reshape(-1)
        for piece in _pieces(count):
            sizes = count[piece]
            ends = np.cumsum(sizes)
            places = np.arange(ends[-1]) + np.repeat(begin[piece] - (ends - sizes), sizes)
            entry = order[places].astype(np.int64)
            row = np.repeat(rows[piece], sizes)
            row, entry = within(ours, row, self._halves, entry, distance)
            yield row, entry

    def _distances(self, queries: U8, query: I64, entry: I64) -> I16:
        ours = halves(queries)
        bits = np.zeros(len(query), np.int16)
        for mine, theirs in zip(ours, self._halves, strict=True):
            bits += np.bitwise_count(mine[query] ^ theirs[entry]).sum(axis=1, dtype=np.int16)
        return bits


def as_words(hashes: U8) -> U16:
    """uint8 [N,32] -> uint16 [N,16]."""
    words: U16 = np.ascontiguousarray(hashes).view(">u2").astype(np.uint16)
    return words


def halves(hashes: U8) -> tuple[U64, U64]:
    """uint8 [N,32] -> two uint64 [N,2]: for most distant pairs the first 128 bits are enough to tell."""
    if hashes.ndim != 2 or hashes.shape[1] != HASH_BYTES or hashes.dtype != np.uint8:
        raise ValueError(f"hashes must be uint8 [N,{HASH_BYTES}], not {hashes.dtype} {list(hashes.shape)}")
    words = np.ascontiguousarray(hashes).view(np.uint64)
    return np.ascontiguousarray(words[:, :2]), np.ascontiguousarray(words[:, 2:])


def within(left: tuple[U64, U64], row: I64, right: tuple[U64, U64], entry: I64, distance: int) -> tuple[I64, I64]:
    """Keep the pairs (row of left, entry of right) that differ in at most `distance` bits."""
    first = np.bitwise_count(left[0].take(row, axis=0) ^ right[0].take(entry, axis=0))
    # uint8 is enough: a half has 128 bits.
    near = first[:, 0] + first[:, 1] <= distance
    row, entry, first = row[near], entry[near], first[near]
    second = np.bitwise_count(left[1].take(row, axis=0) ^ right[1].take(entry, axis=0))
    total = first.sum(axis=1, dtype=np.int16) + second.sum(axis=1, dtype=np.int16)
    near = total <= distance
    return row[near], entry[near]


def neighbour_masks(distance: int) -> U16:
    """Masks of the bits of a word that may differ, uint16 [M]: up to distance // 16 bits. Raises ValueError."""
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"a distance of {distance} bits is not within 0 to {MAX_DISTANCE}")
    chosen = [c for bits in range(distance // _WORDS + 1) for c in combinations(range(_WORD_BITS), bits)]
    return np.array([sum(1 << bit for bit in c) for c in chosen], np.uint16)


def _pieces(count: I64) -> Iterator[slice]:
    """Cut the probes into slices of about `_PIECE` candidates, each of at least one probe."""
    ends = np.cumsum(count)
    start = 0
    while start < len(count):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PIECE, side="right")))
        yield slice(start, stop)
        start = stop

"""Pairs of similar embeddings, confirmed by their hashes: two measurements that err in different ways.

An embedding tells what is in a picture, not which picture it is: two photographs of one thing are similar. A hash tells
where light and dark lie; a crop changes it. Unrelated pictures rarely match in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.hashes.pairs import near_pairs
from moderation.hashes.search import BITS, I64, MAX_DISTANCE
from moderation.types import F32, U8

EXACT_UP_TO: Final = 20_000  # rows up to which every pair is computed: half a minute with 1,280 numbers per row
_BLOCK: Final = 1024
_CHUNK_PAIRS: Final = 1 << 16  # pairs whose cosines are computed at once
_SEED: Final = 0xA11CE


@dataclass(frozen=True, slots=True, kw_only=True)
class HashConfirmation:
    """How a pair is confirmed. hashes: uint8 [N,32]; distance: the most bits in which a pair may differ."""

    hashes: U8
    distance: int


def alike_pairs(
    embeddings: npt.NDArray[np.floating],
    similarity: float,
    confirm: HashConfirmation,
    *,
    exact_up_to: int = EXACT_UP_TO,
) -> tuple[I64, I64, F32]:
    """Pairs (left < right) with a cosine of `similarity` or more that their hashes confirm, and 1 - cosine.

    embeddings: [N,D]; rows of NaN are left out. Beyond `exact_up_to` rows only pairs whose signs along 256 random
    directions (Charikar, STOC 2002) are near are compared. This misses one pair in a thousand at a cosine of 0.95, one
    in ten at 0.90.
    """
    rows = np.flatnonzero(np.isfinite(embeddings[:, 0])) if embeddings.size else np.empty(0, np.int64)
    unit = _Unit(embeddings, rows)
    pairs = _every_pair(unit) if len(rows) <= exact_up_to else _by_signs(unit)
    words = confirm.hashes.view(np.uint64).reshape(-1, 4)
    chunks: list[tuple[I64, I64, F32]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    for left, right, cosine in pairs:
        bits = np.bitwise_count(words[rows[left]] ^ words[rows[right]]).sum(axis=1, dtype=np.int16)
        kept = (cosine >= similarity) & (bits <= confirm.distance)
        chunks.append((rows[left[kept]], rows[right[kept]], np.maximum(1 - cosine[kept], 0).astype(np.float32)))
    left, right, apart = (np.concatenate(columns) for columns in zip(*chunks, strict=True))
    return left, right, apart


class _Unit:
    """A selection of rows of the embeddings, scaled to length 1 as they are read: kept embeddings are float16."""

    def __init__(self, embeddings: npt.NDArray[np.floating], rows: I64) -> None:
        self._embeddings = embeddings
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: slice | I64) -> F32:
        vectors = self._embeddings[self._rows[at]].astype(np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: F32 = vectors / np.maximum(length, 1e-12)
        return unit


_ScoredPairs = Iterator[tuple[I64, I64, F32]]


def _every_pair(unit: _Unit) -> _ScoredPairs:
    for top in range(0, len(unit), _BLOCK):
        ours = unit[slice(top, top + _BLOCK)]
        for start in range(top, len(unit), _BLOCK):
            cosines = ours @ unit[slice(start, start + _BLOCK)].T
            # 0.5 is far below any useful threshold; it keeps the list short.
            left, right = np.nonzero(cosines >= 0.5)
            ahead = left + top < right + start
            left, right = left[ahead], right[ahead]
            yield left + top, right + start, cosines[left, right]


def _by_signs(unit: _Unit) -> _ScoredPairs:
    width = unit[slice(0, 1)].shape[1]
    directions = np.random.default_rng(_SEED).standard_normal((width, BITS)).astype(np.float32)
    signs = [np.packbits(unit[slice(s, s + _BLOCK)] @ directions > 0, axis=1) for s in range(0, len(unit), _BLOCK)]
    near = near_pairs(np.concatenate(signs), MAX_DISTANCE)
    for start in range(0, len(near.left), _CHUNK_PAIRS):
        left, right = near.left[start : start + _CHUNK_PAIRS], near.right[start : start + _CHUNK_PAIRS]
        yield left, right, np.einsum("md,md->m", unit[left], unit[right]).astype(np.float32)

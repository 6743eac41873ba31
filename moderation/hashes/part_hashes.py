"""Hashes of frames that were framed or marked: the picture within bars, and parts of it that a logo leaves.

A frame is found by its parts if three of its four quarters, or of its four edges, agree as closely as whole hashes do:
23 of 192 bits where 31 of 256 are allowed, and none of the three by more than half of that, so that what two videos
show in half of their frames joins nothing. Measured on five videos and 14 ways to frame and mark them: those of copies
lie within 22 bits in the median (25 behind a logo of 28% at half the frame rate), those of 800 different photographs
36 or more apart. Videos that carry the same large logo, or the same border, agree by it in dark frames: so these hashes
count only where what agrees changes from frame to frame (`films`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.hashes.search import HASH_BYTES, I16, I64, as_words
from moderation.types import U8

Flags = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.int16]

_PARTS: Final = 4  # of 64 bits each
_NONE: Final = 64  # bits: what a part without content is apart from any
# Of a search, rows that share a word with more than so many are left out: they would be compared with all of these.
_COMMON: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHashes:
    """Of F frames; uint8 [F,32] each, zeros where there is none.

    inner: the hash of the picture within bars. quarters, edges: four parts of eight bytes.
    """

    inner: U8
    quarters: U8
    edges: U8

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def nbytes(self) -> int:
        """Their size."""
        return int(self.inner.nbytes + self.quarters.nbytes + self.edges.nbytes)

    @property
    def framed(self) -> I64:
        """int64: the frames with bars."""
        return np.flatnonzero(self.inner.any(axis=1))

    def take(self, rows: I64 | slice) -> PartHashes:
        """Those of some frames."""
        return PartHashes(inner=self.inner[rows], quarters=self.quarters[rows], edges=self.edges[rows])


def no_parts(count: int) -> PartHashes:
    """Of frames that older runs hashed, or lists name."""
    none = np.zeros((count, HASH_BYTES), np.uint8)
    return PartHashes(inner=none, quarters=none, edges=none)


def concatenate_parts(parts: Sequence[PartHashes]) -> PartHashes:
    """Those of several sets of frames."""
    return PartHashes(
        inner=np.concatenate([p.inner for p in parts]),
        quarters=np.concatenate([p.quarters for p in parts]),
        edges=np.concatenate([p.edges for p in parts]),
    )


def hash_distances(left: U8, right: U8) -> Distances:
    """int16 [F,G]: bits in which hashes differ, uint8 [F,32] and [G,32]."""
    ours, theirs = (np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, 4) for hashes in (left, right))
    if not len(ours):
        return np.empty((0, len(theirs)), np.int16)
    return np.stack([np.bitwise_count(theirs ^ word).sum(axis=1, dtype=np.int16) for word in ours])


def content_distances(left: U8, of_left: PartHashes, right: U8, of_right: PartHashes) -> Distances:
    """int16 [F,G]: bits between frames, with or without their bars, whichever is nearer."""
    apart = hash_distances(left, right)
    ours, theirs = of_left.framed, of_right.framed
    if len(ours):
        apart[ours] = np.minimum(apart[ours], hash_distances(of_left.inner[ours], right))
    if len(theirs):
        apart[:, theirs] = np.minimum(apart[:, theirs], hash_distances(left, of_right.inner[theirs]))
    if len(ours) and len(theirs):
        both = np.ix_(ours, theirs)
        apart[both] = np.minimum(apart[both], hash_distances(of_left.inner[ours], of_right.inner[theirs]))
    return apart


def part_distances(left: U8, right: U8) -> Distances:
    """int16 [F,G]: bits of 192 in which the best three of four parts differ; at least twice those of the third best.

    left, right: quarters or edges, uint8 [F,32] and [G,32].
    """
    ours, theirs = _part_words(left), _part_words(right)
    apart = np.empty((_PARTS, len(ours), len(theirs)), np.int16)
    for part in range(_PARTS):
        mine, other = ours[:, None, part], theirs[None, :, part]
        apart[part] = np.bitwise_count(mine ^ other)
        apart[part, (mine == 0) | (other == 0)] = _NONE
    apart.sort(axis=0)
    best: Distances = np.maximum(apart[:3].sum(axis=0, dtype=np.int16), 2 * apart[2])
    return best


def part_distance(distance: int) -> int:
    """The bits of 192 that stand for so many of 256."""
    return distance * (_PARTS - 1) // _PARTS


def _part_words(hashes: U8) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, _PARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSet:
    """Hashes among which near pairs may be copies. row: int64 [N], their frames; hashes: uint8 [N,32]."""

    row: I64
    hashes: U8


def search_sets(hashes: U8, parts: PartHashes) -> dict[str, SearchSet]:
    """What is searched for near pairs, kind by kind: frames with and without bars, three of four quarters, all edges.

    hashes: uint8 [F,32] of the frames that the parts are of. A kind that no frame has is left out.
    """
    every, framed = np.arange(len(hashes)), parts.framed
    whole = SearchSet(row=np.append(every, framed), hashes=np.concatenate([hashes, parts.inner[framed]]))
    sets = {"whole": whole}
    quarters, edges = _part_words(parts.quarters), _part_words(parts.edges)
    for left_out in range(_PARTS):
        # The opposite quarter twice: an index needs words that differ from frame to frame.
        places = [_PARTS - 1 - left_out if part == left_out else part for part in range(_PARTS)]
        sets[f"without quarter {left_out}"] = _usable(quarters[:, places])
    sets["edges"] = _usable(edges)
    return {kind: searched for kind, searched in sets.items() if len(searched.row)}


def _usable(words: npt.NDArray[np.uint64]) -> SearchSet:
    """Rows without an empty part, and without a word that very many share: a channel's logo."""
    row = np.flatnonzero((words != 0).all(axis=1))
    hashes = np.ascontiguousarray(words[row]).view(np.uint8).reshape(-1, HASH_BYTES)
    shared: I16 = np.zeros(len(row), np.int64)
    for column in as_words(hashes).T:
        np.maximum(shared, np.bincount(column, minlength=1 << 16)[column], out=shared)
    rare = shared <= _COMMON
    return SearchSet(row=row[rare], hashes=hashes[rare])

"""All pairs of copies among many videos, by the hashes of their frames.

Of every video only frames that differ from one another are searched for near ones of other videos, so that a still shot
costs no more than one frame. Videos that share enough of them are then held against each other frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from moderation.hashes.films import FilmFrames, compare_films, film_slices, take_film
from moderation.hashes.pairs import near_pairs
from moderation.hashes.part_hashes import search_sets
from moderation.hashes.search import I64
from moderation.types import F32

_ALIKE: Final = 8  # bits: of frames of one video this near only the first is searched
_FEW: Final = 3  # a video with no more different frames than this may be a copy by a single one


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmPairs:
    """Pairs of copies, each once. left < right: int64 [M], numbers of videos; apart: float32 [M], 1 - share in common.

    The share is of the frames of the one that is contained more.
    """

    left: I64
    right: I64
    apart: F32


def film_pairs(films: FilmFrames, distance: int) -> FilmPairs:
    """The pairs of copies among videos. distance: bits in which frames may differ, 0 to 47."""
    slices = {int(films.film[own.start]): own for own in film_slices(films.film)}
    chosen = np.concatenate([np.empty(0, np.int64), *(_different(films, own) for own in slices.values())])
    left, right = _candidates(take_film(films, chosen), distance)
    kept: list[tuple[int, int, float]] = []
    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        match = compare_films(take_film(films, slices[one]), take_film(films, slices[other]), distance)
        if match.is_copy:
            kept.append((one, other, 1 - max(match.share_left, match.share_right)))
    return FilmPairs(
        left=np.array([pair[0] for pair in kept], np.int64),
        right=np.array([pair[1] for pair in kept], np.int64),
        apart=np.array([pair[2] for pair in kept], np.float32),
    )


def _different(films: FilmFrames, own: slice) -> I64:
    """Rows of one video's frames, each far from all chosen before it."""
    words = np.ascontiguousarray(films.hashes[own]).view(np.uint64).reshape(-1, 4)
    heads = np.empty_like(words)
    rows: list[int] = []
    for row, word in enumerate(words):
        count = len(rows)
        if not (np.bitwise_count(heads[:count] ^ word).sum(axis=1, dtype=np.int16) <= _ALIKE).any():
            heads[count] = word
            rows.append(own.start + row)
    return np.array(rows, np.int64)


def _candidates(frames: FilmFrames, distance: int) -> tuple[I64, I64]:
    """Pairs of videos that share enough of their different frames to be copies. frames: those that are searched."""
    film = frames.film
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for searched in search_sets(frames.hashes, frames.parts).values():
        near = near_pairs(searched.hashes, distance)
        lefts.append(searched.row[near.left])
        rights.append(searched.row[near.right])
    first, second = np.concatenate(lefts), np.concatenate(rights)
    left, right = film[first], film[second]
    apart = left != right
    # Of a pair's frames those of the video that has fewer of them in common count.
    keys = np.minimum(left, right)[apart] << 32 | np.maximum(left, right)[apart]
    low = np.where(left < right, first, second)[apart]
    high = np.where(left < right, second, first)[apart]
    pairs, shared = np.unique(keys, return_inverse=True)
    common = np.minimum(_distinct(shared, low, len(pairs)), _distinct(shared, high, len(pairs)))
    sizes = np.bincount(film) if len(film) else np.zeros(0, np.int64)
    one, other = pairs >> 32, pairs & 0xFFFFFFFF
    few = np.minimum(sizes[one], sizes[other]) <= _FEW if len(pairs) else np.zeros(0, np.bool_)
    enough = (common > 1) | few
    return one[enough], other[enough]


def _distinct(pair: I64, frame: I64, pairs: int) -> I64:
    """int64 [pairs]: how many different frames belong to each pair."""
    unique = np.unique(pair << 32 | frame) >> 32
    return np.bincount(unique, minlength=pairs).astype(np.int64)

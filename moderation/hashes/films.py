"""Videos held against each other by the hashes of their frames: vPDQ's rule, with distinct frames counted once.

A frame of one is found in the other if their hashes differ in at most 31 bits and both have a quality of 50 or more.
Two videos are copies if most of what one shows is found in the other. What counts are the different scenes that a
video shows: a still shot of a minute is one, so that a title or a pause that two videos share does not join them.
A logo moves a hash by some 30 bits. So a fifth is enough where nearly all of the rest is not much further away, which
frames of strangers never are: those of two photographs differ in 86 bits or more. Bars around the picture are cut off,
and what a large logo covers is left out (`part_hashes`).

Source of the rule: vPDQ (https://github.com/facebook/ThreatExchange, vpdq); the count of distinct frames is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.hashes.part_hashes import (
    PartHashes,
    content_distances,
    no_parts,
    part_distance,
    part_distances,
)
from moderation.hashes.search import I64, MAX_DISTANCE
from moderation.types import U8

F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# One way is enough from this share on (a trimmed copy), if so many different frames agree;
SHARE: Final = 0.5
LEAST_DISTINCT: Final = 3
# or from this one, if so much is found at all within `further`;
_ANCHOR: Final = 0.2
_SUPPORT: Final = 0.7
_FURTHER: Final = 16  # bits beyond the distance
# with fewer of them, nearly all of both must agree: a title in one of two videos is no copy of it.
SHARE_OF_BOTH: Final = 0.8
_SAME_SCENE: Final = 31  # bits: frames of one video this near show the same
_MAX_GAP: Final = 2  # frames within a matching segment that need not match


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmFrames:
    """The usable frames of V videos, video after video, in the order of time.

    film: int64 [F], ascending; hashes: uint8 [F,32]; time_s: float64 [F], NaN where unknown.
    scene: int64 [F], number of what a frame shows among the different frames of its video, from 0. parts: of F frames.
    """

    film: I64
    hashes: U8
    time_s: F64
    scene: I64
    parts: PartHashes

    def __len__(self) -> int:
        return len(self.film)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmMatch:
    """How much two videos have in common. share_left, share_right: of their frames, 0..1, found in the other.

    distinct: different frames that agree, of the video with fewer. segments: (start, end) in seconds of the longest
    matching stretch, NaN where times are unknown.
    """

    left: int
    right: int
    share_left: float
    share_right: float
    distinct: int
    segment_left_s: tuple[float, float]
    segment_right_s: tuple[float, float]
    is_copy: bool


def make_films(film: I64, hashes: U8, time_s: F64, parts: PartHashes | None = None) -> FilmFrames:
    """The frames of videos with their scenes; frames of one video are adjacent, in the order of time."""
    scene = np.zeros(len(film), np.int64)
    words = np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, 4)
    for own in film_slices(film):
        scene[own] = _scenes(words[own])
    return FilmFrames(film=film, hashes=hashes, time_s=time_s, scene=scene, parts=parts or no_parts(len(film)))


def film_of(hashes: U8, time_s: F64, parts: PartHashes | None = None) -> FilmFrames:
    """The frames of one video, in the order of time. hashes: uint8 [F,32], F 1 or more."""
    return make_films(np.zeros(len(hashes), np.int64), hashes, time_s, parts)


def film_slices(film: I64) -> Iterator[slice]:
    """The rows of each video."""
    if not len(film):
        return
    starts = np.flatnonzero(np.append(True, film[1:] != film[:-1]))
    for start, stop in zip(starts.tolist(), np.append(starts[1:], len(film)).tolist(), strict=True):
        yield slice(start, stop)


def _scenes(words: npt.NDArray[np.uint64]) -> I64:
    """Number the frames of one video by what they show: each joins the first earlier one that it is near to."""
    numbers = np.zeros(len(words), np.int64)
    heads = np.empty_like(words)
    count = 0
    for row, word in enumerate(words):
        apart = np.bitwise_count(heads[:count] ^ word).sum(axis=1, dtype=np.int16)
        near = np.flatnonzero(apart <= _SAME_SCENE)
        if len(near):
            numbers[row] = near[0]
            continue
        heads[count], numbers[row] = word, count
        count += 1
    return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFrames:
    """Which frames of a video another one has: bool [F] each. near: within the distance; far: within `further`."""

    near: Flags
    far: Flags


def further(distance: int) -> int:
    """Bits in which frames may differ to support others that are nearer."""
    return min(distance + _FURTHER, MAX_DISTANCE)


def match_frames(
    left: FilmFrames, in_right: FoundFrames, right: FilmFrames, in_left: FoundFrames, *, by_parts: bool = False
) -> FilmMatch:
    """Hold two videos against each other. in_right: frames of the left one that the right one has; in_left: back.

    by_parts: parts of frames count, of which a few prove nothing: videos of strangers may carry one logo.
    """
    left_found, right_found = in_right.near, in_left.near
    distinct_left, share_left = _distinct(left, left_found)
    distinct_right, share_right = _distinct(right, right_found)
    distinct = min(distinct_left, distinct_right)
    support = max(
        _distinct(frames, found.far)[1] if share >= _ANCHOR else 0.0
        for frames, found, share in ((left, in_right, share_left), (right, in_left, share_right))
    )
    return FilmMatch(
        left=int(left.film[0]),
        right=int(right.film[0]),
        share_left=float(left_found.mean()),
        share_right=float(right_found.mean()),
        distinct=distinct,
        segment_left_s=longest_stretch(left.time_s, left_found),
        segment_right_s=longest_stretch(right.time_s, right_found),
        is_copy=(distinct >= LEAST_DISTINCT or not by_parts) and is_copy(share_left, share_right, distinct, support),
    )


def is_copy(share_left: float, share_right: float, distinct: int, support: float = 0.0) -> bool:
    """Whether two videos are copies, by the shares of their different frames and how many agree.

    support: share of the one that is found more, counting frames that are a little further away.
    """
    enough = max(share_left, share_right) >= SHARE or support >= _SUPPORT
    return (enough and distinct >= LEAST_DISTINCT) or min(share_left, share_right) >= SHARE_OF_BOTH


def _distinct(frames: FilmFrames, found: Flags) -> tuple[int, float]:
    """(different frames that are found, their share of all different ones)."""
    count = len(np.unique(frames.scene[found]))
    return count, count / (int(frames.scene.max()) + 1)


def longest_stretch(time_s: F64, found: Flags) -> tuple[float, float]:
    """First and last time of the longest run of found frames; a few in between may be missing."""
    places = np.flatnonzero(found)
    if not len(places):
        return float("nan"), float("nan")
    cuts = np.flatnonzero(np.diff(places) > _MAX_GAP + 1)
    starts, ends = np.append(0, cuts + 1), np.append(cuts, len(places) - 1)
    best = int(np.argmax(places[ends] - places[starts]))
    return float(time_s[places[starts[best]]]), float(time_s[places[ends[best]]])


def take_film(frames: FilmFrames, own: slice | I64) -> FilmFrames:
    """One video of several, or some frames of them."""
    return FilmFrames(
        film=frames.film[own],
        hashes=frames.hashes[own],
        time_s=frames.time_s[own],
        scene=frames.scene[own],
        parts=frames.parts.take(own),
    )


def compare_films(left: FilmFrames, right: FilmFrames, distance: int) -> FilmMatch:
    """Hold two videos against each other, every frame with every frame. distance: bits in which frames may differ.

    Parts of frames are looked at where the whole ones do not make them copies.
    """
    apart = content_distances(left.hashes, left.parts, right.hashes, right.parts)
    near, far = apart <= distance, apart <= further(distance)
    match = match_frames(left, _found(near, far, 1), right, _found(near, far, 0))
    if match.is_copy:
        return match
    is_varied = False
    for ours, theirs in ((left.parts.quarters, right.parts.quarters), (left.parts.edges, right.parts.edges)):
        if not (ours.any() and theirs.any()):
            continue
        of_parts = part_distances(ours, theirs)
        close = of_parts <= part_distance(distance)
        near |= close
        far |= of_parts <= part_distance(further(distance))
        seen = min(_variety(ours[close.any(axis=1)]), _variety(theirs[close.any(axis=0)]))
        is_varied |= seen >= LEAST_DISTINCT
    if not is_varied:
        return match
    by_parts = match_frames(left, _found(near, far, 1), right, _found(near, far, 0), by_parts=True)
    return by_parts if by_parts.is_copy else match


def _variety(hashes: U8) -> int:
    """How many different ones there are: a logo or a border stays as it is."""
    words = np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, 4)
    return len(np.unique(_scenes(words)))


def _found(near: Flags, far: Flags, axis: int) -> FoundFrames:
    return FoundFrames(near=np.asarray(near.any(axis=axis)), far=np.asarray(far.any(axis=axis)))

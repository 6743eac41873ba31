"""Cuts in a video, by how much colours change from one small frame to the next; pure arithmetic on frames.

Twin comparison, after Zhang, Kankanhalli and Smoliar, "Automatic partitioning of full-motion video", 1993: one large
change is a cut; consecutive small changes that add up to a large one are a fade or dissolve, counted as one cut in its
middle. A change that is reversed within a moment is a flash, not a cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest

import numpy as np
import numpy.typing as npt

from moderation.types import U8

F32 = npt.NDArray[np.float32]

MAX_PROBES = 400  # frames of a video checked for cuts: all of a short video; of a long one evenly spread
_SAMPLES = 48  # per side: pixels sampled of a frame
_BLOCKS = 2  # per side: the same colours in another place are another picture
_BINS = 32

CUT = 0.05  # distance of two frames, 0..1: measured, neighbours within a shot stay under 0.02, cuts start at 0.06
_DRIFT = 0.004  # from here on a change may belong to a fade; noise and slow pans lie below
FLASH_S = 0.5  # a shorter change that leads back to the same picture is a flash


def describe_frame(pixels: U8) -> F32:
    """float32 [blocks*3*bins]: cumulative histograms of the colours of each block; uint8 [H,W,3] of any size.

    Cumulative, so that a slightly darker picture differs slightly, whichever bins its pixels fall into.
    """
    height, width = pixels.shape[:2]
    rows = np.linspace(0, height - 1, _SAMPLES).astype(int)
    columns = np.linspace(0, width - 1, _SAMPLES).astype(int)
    small = pixels[np.ix_(rows, columns)].astype(np.int32) * _BINS // 256
    side = _SAMPLES // _BLOCKS
    blocks = small.reshape(_BLOCKS, side, _BLOCKS, side, 3).transpose(0, 2, 4, 1, 3).reshape(-1, side * side)
    offsets = np.arange(len(blocks))[:, None] * _BINS
    counts = np.bincount((blocks + offsets).ravel(), minlength=len(blocks) * _BINS).reshape(-1, _BINS)
    cumulative: F32 = (np.cumsum(counts, axis=1) / (side * side)).astype(np.float32)
    return cumulative.ravel()


def find_cuts(described: Sequence[F32], times_s: Sequence[float]) -> list[int]:
    """Positions in `described` at which a shot begins (never 0), ascending."""
    steps = [distance(a, b) for a, b in pairwise(described)]
    cuts: list[int] = []
    start: int | None = None  # of a run of small changes
    for place, step in enumerate([*steps, 0.0]):
        if step >= CUT:
            if start is not None and _is_fade(described, start, place):
                cuts.append((start + place + 1) // 2)
            cuts.append(place + 1)
            start = None
        elif step >= _DRIFT:
            start = place if start is None else start
        elif start is not None:
            if _is_fade(described, start, place):
                cuts.append((start + place + 1) // 2)
            start = None
    return list(_without_flashes(sorted(set(cuts)), described, times_s))


def distance(a: F32, b: F32) -> float:
    """The distance of the colours of two frames, 0..1: the mean shift of a pixel, over the range of a channel."""
    return float(np.abs(a - b).mean())


def shots_of(cuts: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """(first, last) position of each shot of `count` frames."""
    for begin, end in pairwise([0, *cuts, count]):
        yield begin, end - 1


def _is_fade(described: Sequence[F32], start: int, end: int) -> bool:
    return distance(described[start], described[end]) >= CUT


def _without_flashes(cuts: Sequence[int], described: Sequence[F32], times_s: Sequence[float]) -> Iterator[int]:
    skipped = -1
    for at, (cut, after) in enumerate(zip_longest(cuts, cuts[1:])):
        if at == skipped:
            continue
        brief = after is not None and times_s[after] - times_s[cut] <= FLASH_S
        if brief and distance(described[cut - 1], described[after or cut]) < CUT:
            skipped = at + 1
            continue
        yield cut

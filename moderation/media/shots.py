"""Cuts in a video by how much the colours change from one small frame to the next; pure arithmetic on frames.

Twin comparison, after Zhang, Kankanhalli and Smoliar, "Automatic partitioning of full-motion video", 1993: one large
change is a cut; small ones in a row that add up to a large one are a fade or a dissolve, counted as one cut in its
middle. A change that is taken back within a moment is a flash, and none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest

import numpy as np
import numpy.typing as npt

from moderation.types import U8

F32 = npt.NDArray[np.float32]

MAX_PROBES = 400  # frames of a video that are looked at for cuts: of a short one all, of a long one evenly spread
_SAMPLES = 48  # a side: pixels of a frame that are looked at
_BLOCKS = 2  # a side: the same colours elsewhere are another picture
_BINS = 32

CUT = 0.05  # distance of two frames, 0..1: measured, neighbours within a shot stay under 0.02, cuts start at 0.06
_DRIFT = 0.004  # from here on a change may be part of a fade; noise and slow pans lie below
FLASH_S = 0.5  # what lasts shorter and leads back to the same picture is a flash


def describe_frame(pixels: U8) -> F32:
    """float32 [blocks*3*bins]: cumulative histograms of the colours of each block; uint8 [H,W,3] of any size.

    Cumulative, so that a picture that grows a little darker moves a little, whichever bins its pixels fall into.
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
    start: int | None = None  # of a row of small changes
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
    """How far the colours of two frames are apart, 0..1: the mean shift of a pixel, over the range of a channel."""
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

"""Near pairs among pictures of which some have bars around them: by the whole, or by what lies within the bars."""

from __future__ import annotations

import numpy as np

from moderation.hashes.pairs import Pairs, near_pairs
from moderation.types import U8


def framed_pairs(hashes: U8, inner: U8, distance: int) -> Pairs:
    """All pairs within `distance` bits, with or without bars, whichever is nearer; see `near_pairs`.

    hashes, inner: uint8 [N,32]; inner: zeros where there are no bars.
    """
    framed = np.flatnonzero(inner.any(axis=1))
    if not len(framed):
        return near_pairs(hashes, distance)
    row = np.append(np.arange(len(hashes)), framed)
    pairs = near_pairs(np.concatenate([hashes, inner[framed]]), distance)
    ends = np.sort(np.stack([row[pairs.left], row[pairs.right]]), axis=0)
    # The nearest of several pairs of the same two pictures; none of a picture with itself.
    order = np.lexsort((pairs.distance, ends[1], ends[0]))
    left, right = ends[:, order]
    first = np.append(True, (left[1:] != left[:-1]) | (right[1:] != right[:-1]))[: len(order)] & (left != right)
    return Pairs(left=left[first], right=right[first], distance=pairs.distance[order][first])

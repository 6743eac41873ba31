"""Folds of labelled pictures: no group is in two folds, and classes are spread as evenly as that allows. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def group_folds(
    targets: npt.NDArray[np.float32], groups: Sequence[str], folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """The fold of each picture, int64 [N] in 0..folds-1.

    targets: float32 [N,A], 1 where a picture is of a class. Groups, in the order of a hash keyed with the seed, go to
    the fold with the fewest pictures of their commonest class; so the order of the pictures makes no difference.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    counts = [Counter[int]() for _ in range(folds)]
    sizes = [0] * folds
    fold_of = np.zeros(len(groups), dtype=np.int64)
    for group in sorted(members, key=lambda group: _key(group, seed)):
        rows = members[group]
        sums = targets[rows].sum(axis=0)
        leading = int(sums.argmax()) if sums.any() else -1
        fold = min(range(folds), key=lambda f: (counts[f][leading], sizes[f], f))
        counts[fold][leading] += len(rows)
        sizes[fold] += len(rows)
        fold_of[rows] = fold
    return fold_of


def _key(group: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {group}".encode("utf-8", "surrogatepass")).digest()

"""The score of every check on the items of a part, in columns; pure.

This computes for many items at once what `scores.py` computes for one. `aggregate.py` has the readable definition of
each method: the fast forms below give its numbers to the last bit (tests/unit/results/test_judged.py), and a method
without a fast form is called there, row by row. Sums need care: `fsum` is exact, numpy's sum is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moderation.policy.bind import BoundCheck
from moderation.policy.check import Check, Pool
from moderation.types import F32, Kind

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartVotes:
    """Votes of I items in F frames, an item's frames adjacent.

    scores: float32 [F,L], NaN = null. offsets: int64 [I+1], where the frames of each item begin; every item has one.
    """

    labels: tuple[str, ...]
    scores: F32
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows_of(self, item: int) -> slice:
        """The frames of an item."""
        return slice(int(self.offsets[item]), int(self.offsets[item + 1]))

    def take(self, items: I64) -> tuple[PartVotes, I64]:
        """The given items, in this order, and int64 [f]: the rows of their frames."""
        counts = np.diff(self.offsets)[items]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.offsets[items] - offsets[:-1], counts) + np.arange(offsets[-1])
        return PartVotes(labels=self.labels, scores=self.scores[rows], offsets=offsets), rows


@dataclass(frozen=True, slots=True, kw_only=True)
class PartScores:
    """What `CheckScore` holds for one item, for I items and K checks.

    votes: float64 [F,L+1], the last column null. fused: float64 [K,F], NaN = null. scores, highest: float64 [I,K] of
    float32 values, NaN = null: pooled, and of the highest frame. complete: bool [I,K].
    """

    checks: tuple[BoundCheck, ...]
    offsets: I64
    votes: F64
    fused: F64
    scores: F64
    highest: F64
    complete: Flags

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def frames_of(self, item: int, check: int) -> list[float]:
        """The fused scores of an item's frames."""
        own: list[float] = self.fused[check, self.offsets[item] : self.offsets[item + 1]].tolist()
        return own


def score_part(votes: PartVotes, checks: tuple[BoundCheck, ...], policy: Mapping[str, Check], kind: Kind) -> PartScores:
    """All checks on all items. checks: bound for these items' kind and attributes; policy: the same, as written."""
    numbers = np.full((len(votes.scores), len(votes.labels) + 1), np.nan)
    numbers[:, :-1] = votes.scores
    numbers[np.isinf(numbers)] = np.nan  # an overflow is no score
    starts = votes.offsets[:-1]
    fused = np.stack([fuse_rows(check, policy[check.name], numbers[:, list(check.columns)]) for check in checks])
    pooled = np.stack(
        [pool_items(c, policy[c.name].pooling(kind), f, votes.offsets) for c, f in zip(checks, fused, strict=True)],
        axis=1,
    )
    scores = pooled.astype(np.float32).astype(np.float64)
    highest = np.fmax.reduceat(fused, starts, axis=1).T.astype(np.float32).astype(np.float64)
    nulls = np.logical_or.reduceat(np.isnan(fused), starts, axis=1).T
    complete = ~np.isnan(scores) & ~nulls
    return PartScores(
        checks=checks,
        offsets=votes.offsets,
        votes=numbers,
        fused=fused,
        scores=scores,
        highest=highest,
        complete=complete,
    )


def fuse_rows(check: BoundCheck, written: Check, votes: F64) -> F64:
    """float64 [F] of float64 [F,n]: the votes of a check on each frame, fused."""
    if check.invert:
        votes = 1.0 - votes
    if check.fuse is None:
        return votes[:, 0].copy()
    quick = _QUICK_FUSES.get(written.fuse.method)
    if quick is None:
        return np.array([check.fuse(row) for row in votes.tolist()], np.float64)
    nulls = np.isnan(votes).any(axis=1)
    fused = np.full(len(votes), np.nan)
    fused[~nulls] = quick(votes[~nulls], written)
    if written.fuse.missing == "skip":
        fused[nulls] = [check.fuse(row) for row in votes[nulls].tolist()]
    return fused


def pool_items(check: BoundCheck, pool: Pool, fused: F64, offsets: I64) -> F64:
    """float64 [I]: the fused scores of each item's frames, pooled; not yet rounded."""
    starts = offsets[:-1]
    if pool.method == "any":
        return np.fmax.reduceat(fused, starts)
    if pool.method == "all":
        return np.fmin.reduceat(fused, starts)
    pooled = fused[starts]  # one frame is its own score
    for item in np.flatnonzero(np.diff(offsets) > 1).tolist():
        pooled[item] = check.pool(fused[offsets[item] : offsets[item + 1]].tolist())
    return pooled


def _sum_rows(numbers: F64) -> F64:
    """float64 [N]: the exact sum of each row, rounded once, as `math.fsum`."""
    if numbers.shape[1] == 2:
        return numbers[:, 0] + numbers[:, 1]  # one addition is rounded once
    return np.array([math.fsum(row) for row in numbers.tolist()], np.float64)


def _mean_rows(votes: F64, written: Check) -> F64:
    means: F64 = _sum_rows(votes) / votes.shape[1]
    return means


def _weigh_rows(votes: F64, written: Check) -> F64:
    weights = list(written.votes.values())
    means: F64 = _sum_rows(votes * np.array(weights)) / math.fsum(weights)
    return means


def _nth_of_rows(votes: F64, written: Check) -> F64:
    count = votes.shape[1]
    needed = written.fuse.k or 1 if written.fuse.method == "k_of_n" else count // 2 + 1
    return np.sort(votes, axis=1)[:, count - needed]


_QUICK_FUSES: Mapping[str, Callable[[F64, Check], F64]] = {
    "max": lambda votes, _: votes.max(axis=1),
    "min": lambda votes, _: votes.min(axis=1),
    "mean": _mean_rows,
    "weighted_mean": _weigh_rows,
    "k_of_n": _nth_of_rows,
    "majority": _nth_of_rows,
}


def column_of(checks: Sequence[BoundCheck], name: str) -> int:
    """The place of a check."""
    return next(index for index, check in enumerate(checks) if check.name == name)

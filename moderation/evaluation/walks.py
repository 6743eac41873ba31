"""Tests of nested zones, from strict to lax: p-values, the starts, and the walk that certifies. Pure.

The procedure is fixed-sequence testing from four starts (Angelopoulos et al., "Learn then Test", arXiv 2110.01052):
the order of the zones is fixed before any label is seen, so each start may use its share of the risk in full. A zone
holds all items that are at least as strict as a threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moderation.evaluation.packages import scipy_stats

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

QUANTILES = 60
STARTS = 4
_ROOM = 10.0  # p of the first zone without errors is at most a tenth of the level
_MAX_LABELS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """Nested zones, strict to lax. thresholds: float64 [T], falling; counts: int64 [T], labels in each, rising."""

    thresholds: F64
    counts: I64


def draw_zones(strictness: F64) -> Zones:
    """The zones at 60 quantiles of the audit's scores; no label is looked at. strictness: float64 [N], no NaN."""
    shares = np.arange(QUANTILES)[::-1] / QUANTILES
    # Each threshold is one of the scores, so that it splits the items as a policy does.
    thresholds = np.unique(np.quantile(strictness, shares, method="inverted_cdf"))[::-1]
    ordered = np.sort(strictness)
    counts = len(ordered) - np.searchsorted(ordered, thresholds, side="left")
    return Zones(thresholds=thresholds.astype(np.float64), counts=counts.astype(np.int64))


def count_errors(zones: Zones, strictness: F64, errors: Bools) -> I64:
    """Errors in each zone: int64 [T]. strictness: float64 [N]; errors: bool [N]."""
    wrong = np.sort(strictness[errors])
    return (len(wrong) - np.searchsorted(wrong, zones.thresholds, side="left")).astype(np.int64)


def binomial_p(counts: I64, errors: I64, allowed: float) -> F64:
    """P(Binomial(counts, allowed) <= errors), as `scipy.stats.binomtest(..., alternative="less")`; any shape."""
    return np.asarray(scipy_stats().binom.cdf(errors, counts, allowed), np.float64)


def find_starts(counts: I64, allowed: float, level: float) -> tuple[int, ...]:
    """Where the walks begin: indices into the zones, rising, at most four.

    The first is the strictest zone that would pass with tenfold room if it had no error; the others lie at equal counts
    between it and the end. Where no zone is that large, there is one start: the laxest zone.
    """
    room = math.log(level / _ROOM) / math.log1p(-allowed)
    first = int(np.searchsorted(counts, room, side="left"))
    if first >= len(counts):
        return (len(counts) - 1,)
    steps = counts[first] + (counts[-1] - counts[first]) * np.arange(1, STARTS) / STARTS
    others = np.minimum(np.searchsorted(counts, steps, side="left"), len(counts) - 1)
    return tuple(sorted({first, *others.tolist()}))


def walk(p_values: F64, starts: tuple[int, ...], level: float) -> I64:
    """The laxest certified zone of each sample, -1 where none is. Arguments as for `certified_zones`."""
    zones = certified_zones(p_values, starts, level)
    laxest = zones.shape[-1] - 1 - zones[..., ::-1].argmax(axis=-1)
    return np.where(zones.any(axis=-1), laxest, -1).astype(np.int64)


def certified_zones(p_values: F64, starts: tuple[int, ...], level: float) -> Bools:
    """The certified zones of each sample, all of which hold together: bool [..., T].

    p_values: float64 [..., T]. From each start the walk goes on while p <= level; certified is the union.
    """
    passed = p_values <= level
    certified = np.zeros(p_values.shape, np.bool_)
    for start in starts:
        certified[..., start:] |= np.logical_and.accumulate(passed[..., start:], axis=-1)
    return certified


def upper_bound(count: int, errors: int, level: float) -> float:
    """The exact (Clopper-Pearson) upper bound of an error rate, wrong with a probability of at most `level`."""
    return 1.0 if errors >= count else float(scipy_stats().beta.ppf(1.0 - level, errors + 1, count - errors))


def labels_without_error(allowed: float, level: float) -> int:
    """The least labels that certify where none of them is an error: 505 for 1% at a risk of 0.025 in four starts."""
    return math.ceil(math.log(level) / math.log1p(-allowed))


def labels_needed(count: int, errors: int, allowed: float, level: float) -> int | None:
    """The least labels that would certify at the rate of errors that was seen; None where that rate is not allowed."""
    if errors == 0:
        return labels_without_error(allowed, level)
    rate = errors / count
    if rate >= allowed:
        return None

    def passes(labels: int) -> bool:
        seen = math.ceil(rate * labels - 1e-9)
        return float(scipy_stats().binom.cdf(seen, labels, allowed)) <= level

    high = max(count, labels_without_error(allowed, level))
    while not passes(high):
        high *= 2
        if high > _MAX_LABELS:
            return None
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high

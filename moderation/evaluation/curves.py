"""Curves and areas of a score against the truth, for one sample or for many resampled ones at once. Pure.

Definitions are scikit-learn's (`average_precision_score`, `roc_auc_score`); a test compares ours with them. Ours take
the weights of many samples at once over scores that are sorted once, as a bootstrap needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moderation.evaluation.walks import F64, I64, Bools

BINS = 10
DRAWS = 300
_CHUNK_CELLS = 4_000_000  # of weights held at once
_SEED = 20261126
_MAX_BOOTSTRAP = 200_000  # items; the interval of more is too narrow to matter


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A score in falling order. truth: bool [N]. ends: int64 [D], the last index of each distinct score.

    places: int64 [N], the index of each item before sorting.
    """

    scores: F64
    truth: Bools
    ends: I64
    places: I64


def rank(scores: F64, truth: Bools) -> Ranked:
    """scores: float64 [N], no NaN."""
    places = np.argsort(-scores, kind="stable")
    ordered = scores[places]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) if len(ordered) else np.empty(0, np.int64)
    return Ranked(scores=ordered, truth=truth[places], ends=ends.astype(np.int64), places=places.astype(np.int64))


def counts_at(ranked: Ranked, weights: F64 | None = None) -> tuple[F64, F64]:
    """(true, false) at or over each distinct score: float64 [..., D]. weights: float64 [..., N] in the items' order."""
    own = np.ones(len(ranked.truth)) if weights is None else weights[..., ranked.places]
    hits = np.cumsum(own * ranked.truth, axis=-1)[..., ranked.ends]
    return hits, np.cumsum(own * ~ranked.truth, axis=-1)[..., ranked.ends]


def areas(ranked: Ranked, weights: F64 | None = None) -> tuple[F64, F64]:
    """(average precision, area under the ROC curve): float64 [...], NaN where one class is missing."""
    hits, misses = counts_at(ranked, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, alarm = hits / hits[..., -1:], misses / misses[..., -1:]
        precision = hits / (hits + misses)
        # A sample without the top items has a precision of 0/0 there, which adds nothing.
        steps = np.diff(recall, axis=-1, prepend=0.0)
        average = np.where(steps > 0, steps * np.nan_to_num(precision), 0.0).sum(axis=-1)
        average = np.where(hits[..., -1] > 0, average, np.nan)
        before = np.concatenate([np.zeros_like(recall[..., :1]), recall[..., :-1]], axis=-1)
        area = (np.diff(alarm, axis=-1, prepend=0.0) * (recall + before) / 2).sum(axis=-1)
    return np.asarray(average), np.asarray(area)


def coverage_at(ranked: Ranked, precision: float) -> float:
    """The largest share of all items at or over a threshold with at least this observed precision."""
    hits, misses = counts_at(ranked)
    enough = np.flatnonzero(hits >= precision * (hits + misses))
    return float((ranked.ends[enough[-1]] + 1) / len(ranked.truth)) if len(enough) else 0.0


def calibration_error(ranked: Ranked) -> float:
    """Expected calibration error over ten bins of equally many items: mean distance of score and share of true."""
    return sum(abs(mean - share) * size for mean, share, size in reliability(ranked)) / len(ranked.truth)


def reliability(ranked: Ranked) -> list[tuple[float, float, int]]:
    """(mean score, share of true, items) of at most ten bins of equally many items."""
    parts = np.array_split(np.arange(len(ranked.truth)), BINS)
    shares = _tied_shares(ranked)
    return [(float(ranked.scores[p].mean()), float(shares[p].mean()), len(p)) for p in parts if len(p)]


def _tied_shares(ranked: Ranked) -> F64:
    """The share of true among all items of the same score, so that the order of labels does not matter: float64 [N]."""
    sizes = np.diff(ranked.ends, prepend=-1)
    starts = ranked.ends - sizes + 1
    if not len(sizes):
        return np.empty(0)
    return np.repeat(np.add.reduceat(ranked.truth.astype(np.float64), starts) / sizes, sizes)


def resample(groups: I64, count: int, seed: int = _SEED) -> npt.NDArray[np.float64] | None:
    """How often each item is drawn where groups are drawn whole, with replacement: float64 [draws, N].

    groups: int64 [N], numbers below `count`. None where there are too many items, or a single group.
    """
    if count < 2 or len(groups) > _MAX_BOOTSTRAP:
        return None
    draws = max(50, min(DRAWS, _CHUNK_CELLS * 5 // max(1, len(groups))))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, count, (draws, count))
    offsets = np.arange(draws)[:, None] * count
    times = np.bincount((drawn + offsets).ravel(), minlength=draws * count).reshape(draws, count)
    return times[:, groups].astype(np.float64)


def area_intervals(
    ranked: Ranked, weights: F64 | None
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """95% intervals of average precision and of ROC AUC, by resampled groups; None where there is no resampling."""
    if weights is None:
        return None, None
    step = max(1, _CHUNK_CELLS // max(1, weights.shape[1]))
    pairs = [areas(ranked, weights[start : start + step]) for start in range(0, len(weights), step)]
    average, area = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return interval(average), interval(area)


def interval(values: F64) -> tuple[float, float] | None:
    """The middle 95% of resampled values."""
    known = values[~np.isnan(values)]
    return None if len(known) < 2 else (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975)))

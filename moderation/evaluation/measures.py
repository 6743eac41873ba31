"""How good a run's checks and verdicts are, by labels: numbers with intervals, ready for a page or JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moderation.evaluation.curves import (
    Ranked,
    area_intervals,
    areas,
    calibration_error,
    counts_at,
    coverage_at,
    rank,
    reliability,
    resample,
)
from moderation.evaluation.packages import scipy_stats
from moderation.evaluation.walks import F64, I64, Bools

POINTS = 200  # of a curve, in the JSON and in figures
HISTOGRAM_BINS = 40

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """k of n, with its exact (Clopper-Pearson) interval of 95%. share: None where n is 0."""

    k: int
    n: int
    share: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """What a threshold does to the labelled items: the confusion counts, and the rates from them."""

    name: str
    threshold: float
    hits: int
    false_alarms: int
    missed: int
    rejected: int
    precision: Rate
    recall: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSet:
    """Points of curves, at most POINTS: (x, y). score_range: of the histograms; 0..1, or wider for a measurement."""

    roc: tuple[tuple[float, float], ...]
    precision_recall: tuple[tuple[float, float], ...]
    risk_coverage: tuple[tuple[float, float], ...]
    reliability: tuple[tuple[float, float, int], ...]
    histogram_true: tuple[int, ...]
    histogram_false: tuple[int, ...]
    score_range: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreMeasures:
    """One score against the truth. items: labelled, with a score; true: those that it should find; nulls: no score.

    Areas are None where a class is missing. coverage: share of the items at the wanted precision, observed, not proven.
    """

    name: str
    side: str
    items: int
    true: int
    nulls: int
    average_precision: float | None
    average_precision_interval: Interval | None
    roc_auc: float | None
    roc_auc_interval: Interval | None
    coverage: float
    wanted_precision: float
    calibration_error: float | None
    operating: tuple[Operating, ...]
    curves: CurveSet | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictMeasures:
    """Verdicts against labels. leak: share of bad items among the passed. block_precision: among the blocked.
    confusion: verdict -> (bad, fine). wrong: share of all labelled items that the machine decided wrongly."""

    name: str
    items: int
    bad: int
    confusion: Mapping[str, tuple[int, int]]
    block_precision: Rate
    block_recall: Rate
    leak: Rate
    review: Rate
    automation: Rate
    wrong: Rate


def rate(k: int, n: int, risk: float = 0.05) -> Rate:
    """A share with its exact interval, two-sided."""
    beta = scipy_stats().beta
    low = 0.0 if k == 0 else float(beta.ppf(risk / 2, k, n - k + 1))
    high = 1.0 if k >= n else float(beta.ppf(1 - risk / 2, k + 1, n - k))
    return Rate(k=k, n=n, share=k / n if n else None, low=low, high=high)


def measure_score(
    name: str,
    side: str,
    scores: F64,
    truth: Bools,
    groups: I64,
    *,
    thresholds: Mapping[str, float],
    precision: float = 0.99,
    weights: F64 | None = None,
) -> ScoreMeasures:
    """scores: float64 [N], NaN = null. truth: bool [N]. groups: int64 [N], resampled whole.

    weights: float64 [N], of the items in both areas; None: all alike. Counts and curves are of the labels as they are.
    """
    known = ~np.isnan(scores)
    ranked = rank(scores[known], truth[known])
    both = bool(ranked.truth.any()) and not bool(ranked.truth.all())
    own = None if weights is None else weights[known]
    average, area = areas(ranked, own) if both else (np.array(np.nan), np.array(np.nan))
    average_interval, area_interval = area_intervals(ranked, draw_weights(groups[known], own) if both else None)
    return ScoreMeasures(
        name=name,
        side=side,
        items=len(ranked.truth),
        true=int(ranked.truth.sum()),
        nulls=int((~known).sum()),
        average_precision=float(average) if both else None,
        average_precision_interval=average_interval,
        roc_auc=float(area) if both else None,
        roc_auc_interval=area_interval,
        coverage=coverage_at(ranked, precision) if len(ranked.truth) else 0.0,
        wanted_precision=precision,
        calibration_error=_calibration_error(ranked),
        operating=tuple(_operate(ranked, key, threshold) for key, threshold in thresholds.items()),
        curves=_curves(ranked) if both else None,
    )


def draw_weights(groups: I64, weights: F64 | None) -> F64 | None:
    """The weights of items in many samples of whole groups: float64 [draws, N]; None where there is no resampling."""
    numbers, dense = np.unique(groups, return_inverse=True)
    draws = resample(dense.astype(np.int64), len(numbers))
    return draws if draws is None or weights is None else draws * weights


def _calibration_error(ranked: Ranked) -> float | None:
    """None for a measurement with values beyond 0..1, which is no probability."""
    inside = (ranked.scores >= 0) & (ranked.scores <= 1)
    return calibration_error(ranked) if len(inside) and bool(inside.all()) else None


def _operate(ranked: Ranked, name: str, threshold: float) -> Operating:
    # As float32, as the policy compares.
    over = ranked.scores.astype(np.float32) >= np.float32(threshold)
    hits, missed = int((over & ranked.truth).sum()), int((~over & ranked.truth).sum())
    alarms, rejected = int((over & ~ranked.truth).sum()), int((~over & ~ranked.truth).sum())
    return Operating(
        name=name,
        threshold=threshold,
        hits=hits,
        false_alarms=alarms,
        missed=missed,
        rejected=rejected,
        precision=rate(hits, hits + alarms),
        recall=rate(hits, hits + missed),
    )


def _curves(ranked: Ranked) -> CurveSet:
    hits, misses = counts_at(ranked)
    chosen = np.unique(np.linspace(0, len(hits) - 1, POINTS).astype(np.int64))
    hits, misses, taken = hits[chosen], misses[chosen], ranked.ends[chosen] + 1
    low, high = min(0.0, float(ranked.scores[-1])), max(1.0, float(ranked.scores[0]))

    def histogram(members: Bools) -> tuple[int, ...]:
        counts = np.histogram(ranked.scores[members], bins=HISTOGRAM_BINS, range=(low, high))[0]
        return tuple(counts.tolist())

    all_true, all_false = float(ranked.truth.sum()), float((~ranked.truth).sum())
    return CurveSet(
        roc=((0.0, 0.0), *_points(misses / all_false, hits / all_true)),
        precision_recall=_points(hits / all_true, hits / taken),
        risk_coverage=_points(taken / len(ranked.truth), misses / taken),
        reliability=tuple(reliability(ranked)),
        histogram_true=histogram(ranked.truth),
        histogram_false=histogram(~ranked.truth),
        score_range=(low, high),
    )


def _points(x: F64, y: F64) -> tuple[tuple[float, float], ...]:
    return tuple((round(a, 6), round(b, 6)) for a, b in zip(x.tolist(), y.tolist(), strict=True))


def measure_verdicts(name: str, verdicts: Sequence[str], bad: Bools) -> VerdictMeasures:
    """verdicts: of N labelled items; bad: bool [N]."""
    confusion = {
        verdict: (
            sum(v == verdict and b for v, b in zip(verdicts, bad.tolist(), strict=True)),
            sum(v == verdict and not b for v, b in zip(verdicts, bad.tolist(), strict=True)),
        )
        for verdict in ("block", "review", "pass")
    }
    blocked, reviewed, passed = (confusion[verdict] for verdict in ("block", "review", "pass"))
    items, all_bad = len(verdicts), int(bad.sum())
    return VerdictMeasures(
        name=name,
        items=items,
        bad=all_bad,
        confusion=confusion,
        block_precision=rate(blocked[0], sum(blocked)),
        block_recall=rate(blocked[0], all_bad),
        leak=rate(passed[0], sum(passed)),
        review=rate(sum(reviewed), items),
        automation=rate(sum(blocked) + sum(passed), items),
        wrong=rate(blocked[1] + passed[0], items),
    )

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


def rate(k: int, n: int, risk: float = 0.05, effective: float | None = None) -> Rate:
    """A share with its exact interval, two-sided. effective: as many independent items say as much; None: all n."""
    beta, size = scipy_stats().beta, n if effective is None else effective
    hits = k * size / n if n else 0.0
    low = 0.0 if k == 0 else float(beta.ppf(risk / 2, hits, size - hits + 1))
    high = 1.0 if k >= n else float(beta.ppf(1 - risk / 2, hits + 1, size - hits))
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


def effective_items(part: Bools, whole: Bools, groups: I64) -> float:
    """As many independent items as say as much of the share of `part` in `whole` as these, which come in groups.

    After Korn and Graubard (1998): items over the design effect, fewer for few groups. part, whole: bool [N]; groups:
    int64 [N].
    """
    own, hits = groups[whole], part[whole]
    count = len(np.unique(own))
    if count < 2:
        return float(count)
    # Few groups tell little of how groups differ: 1 where each item is one.
    t = scipy_stats().t
    few = float(t.ppf(0.975, len(own) - 1) / t.ppf(0.975, count - 1)) ** 2
    share = float(hits.mean())
    if share in (0.0, 1.0):
        return few * float(len(own) ** 2 / (np.bincount(own).astype(np.float64) ** 2).sum())
    spread = float((np.bincount(own, hits - share) ** 2).sum())
    return few * (min(float(len(own)), len(own) ** 2 * share * (1 - share) / spread) if spread else float(len(own)))


def measure_verdicts(name: str, verdicts: Sequence[str], bad: Bools, groups: I64 | None = None) -> VerdictMeasures:
    """verdicts: of N labelled items; bad: bool [N]; groups: int64 [N], whose items are no independent ones; None: each
    is one."""
    said = np.array(verdicts, np.str_)
    kinds = {verdict: said == verdict for verdict in ("block", "review", "pass")}
    every = np.ones(len(said), np.bool_)

    def share(part: Bools, whole: Bools) -> Rate:
        effective = None if groups is None else effective_items(part & whole, whole, groups)
        return rate(int((part & whole).sum()), int(whole.sum()), effective=effective)

    confusion = {verdict: (int((own & bad).sum()), int((own & ~bad).sum())) for verdict, own in kinds.items()}
    blocked, reviewed, passed = kinds["block"], kinds["review"], kinds["pass"]
    return VerdictMeasures(
        name=name,
        items=len(said),
        bad=int(bad.sum()),
        confusion=confusion,
        block_precision=share(bad, blocked),
        block_recall=share(blocked, bad),
        leak=share(bad, passed),
        review=share(reviewed, every),
        automation=share(blocked | passed, every),
        wrong=share((blocked & ~bad) | (passed & bad), every),
    )

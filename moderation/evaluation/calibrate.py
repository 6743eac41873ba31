"""Scores as probabilities: isotonic or temperature, fitted on labels that do not certify. Pure.

Neither changes the order of scores (isotonic may join some), so thresholds and certificates stay on the scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from moderation.evaluation.curves import calibration_error, rank
from moderation.evaluation.packages import scipy_optimize
from moderation.evaluation.walks import F64, I64, Bools

CalibrationKind = Literal["isotonic", "temperature"]
LEAST = 50  # labels of both kinds
_FOLDS = 5
_EDGE = 1e-6
_MAX_KNOTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A score's map to a probability. knots: (score, probability), rising, with straight lines between them.

    before, after: expected calibration error; `after` is on labels that the map was not fitted on.
    """

    check: str
    kind: CalibrationKind
    labels: int
    knots: tuple[tuple[float, float], ...]
    before: float
    after: float

    @property
    def sentence(self) -> str:
        """For a person."""
        return (
            f"calibrated: {self.check} ({self.kind}, {self.labels:,} labels of no audit): calibration error"
            f" {self.before:.3f}, now {self.after:.3f} on held-out labels"
        )

    def apply(self, scores: F64) -> F64:
        """Probabilities: float64 [N]."""
        knots = np.array(self.knots)
        return np.asarray(np.interp(scores, knots[:, 0], knots[:, 1]), np.float64)


def calibrate_scores(check: str, kind: CalibrationKind, scores: F64, truth: Bools, groups: I64) -> Calibration | None:
    """The map of a check's scores, float64 [N] in 0..1, NaN = null; groups are held out whole; None for too few.

    Too few: labels under LEAST, of one kind only, or of fewer groups than there are folds.
    """
    known = ~np.isnan(scores)
    scores, truth, groups = scores[known], truth[known], groups[known]
    if len(scores) < LEAST or not truth.any() or truth.all():
        return None
    numbers, dense = np.unique(groups, return_inverse=True)
    if len(numbers) < _FOLDS:
        return None
    folds, held_out = dense % _FOLDS, np.empty(len(scores))
    for fold in range(_FOLDS):
        inside = folds == fold
        if inside.any():
            knots = np.array(_fit(kind, scores[~inside], truth[~inside]))
            held_out[inside] = np.interp(scores[inside], knots[:, 0], knots[:, 1])
    return Calibration(
        check=check,
        kind=kind,
        labels=len(scores),
        knots=_fit(kind, scores, truth),
        before=calibration_error(rank(scores, truth)),
        after=calibration_error(rank(held_out, truth)),
    )


def _fit(kind: CalibrationKind, scores: F64, truth: Bools) -> tuple[tuple[float, float], ...]:
    if kind == "isotonic":
        return _fit_isotonic(scores, truth)
    return _fit_temperature(scores, truth)


def _fit_isotonic(scores: F64, truth: Bools) -> tuple[tuple[float, float], ...]:
    # Equal scores have one probability, so they are averaged first.
    known, places, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    shares = np.bincount(places, truth.astype(np.float64)) / sizes
    fitted = scipy_optimize().isotonic_regression(shares, weights=sizes).x
    ends = np.flatnonzero(np.r_[True, fitted[1:] != fitted[:-1]] | np.r_[fitted[1:] != fitted[:-1], True])
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, _MAX_KNOTS).astype(np.int64))]
    return tuple(zip(known[chosen].tolist(), fitted[chosen].tolist(), strict=True))


def _fit_temperature(scores: F64, truth: Bools) -> tuple[tuple[float, float], ...]:
    """One factor of the log odds (Guo et al., arXiv 1706.04599)."""
    odds = _log_odds(scores)

    def loss(log_factor: float) -> float:
        z = np.exp(log_factor) * odds
        return float(np.logaddexp(0.0, np.where(truth, -z, z)).mean())

    factor = np.exp(scipy_optimize().minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x)
    grid = np.linspace(0, 1, 101)
    probabilities = np.exp(-np.logaddexp(0.0, -factor * _log_odds(grid)))
    return tuple(zip(grid.tolist(), probabilities.tolist(), strict=True))


def _log_odds(scores: F64) -> F64:
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(clipped / (1 - clipped)))

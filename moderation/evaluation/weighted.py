"""Verdicts against labels that were drawn with known probabilities: shares by weights of 1/probability. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moderation.evaluation.curves import interval
from moderation.evaluation.measures import Interval, draw_weights
from moderation.evaluation.walks import F64, I64, Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share that is estimated from weighted labels, with a 95% interval by resampled groups. None: not known."""

    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedMeasures:
    """Verdicts against labels that were drawn with known probabilities: each label stands for 1/probability items.

    items: labelled ones; effective: as many equally weighted labels would say as much (Kish).
    """

    items: int
    effective: float
    block_precision: Share
    block_recall: Share
    leak: Share
    review: Share
    automation: Share
    wrong: Share


def measure_weighted(verdicts: Sequence[str], bad: Bools, weights: F64, groups: I64) -> WeightedMeasures:
    """verdicts: of N labelled items; bad: bool [N]; weights: float64 [N]; groups: int64 [N], resampled whole."""
    said = np.array(verdicts)
    blocked, passed, reviewed = said == "block", said == "pass", said == "review"
    draws = draw_weights(groups, None)

    def share(part: Bools, whole: Bools) -> Share:
        return _share(part & whole, whole, weights, draws, groups)

    every = np.ones(len(said), np.bool_)
    return WeightedMeasures(
        items=len(said),
        effective=float(weights.sum() ** 2 / (weights**2).sum()),
        block_precision=share(bad, blocked),
        block_recall=share(blocked, bad),
        leak=share(bad, passed),
        review=share(reviewed, every),
        automation=share(blocked | passed, every),
        wrong=share((blocked & ~bad) | (passed & bad), every),
    )


def _share(part: Bools, whole: Bools, weights: F64, draws: F64 | None, groups: I64) -> Share:
    total = float(weights[whole].sum())
    if not total:
        return Share(share=None, low=None, high=None)
    share = float(weights[part].sum()) / total
    ends = None
    if not part.any() or part.sum() == whole.sum():
        ends = _ends_of_all_or_none(share, np.asarray(np.bincount(groups[whole], weights[whole]), np.float64))
    elif draws is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            ends = interval((draws @ (weights * part)) / (draws @ (weights * whole)))
    low, high = ends or (None, None)
    return Share(share=share, low=low, high=high)


def _ends_of_all_or_none(share: float, sums: F64) -> Interval:
    """The exact interval with the effective number of groups (Korn and Graubard, 1998): every sample of labels without
    an error has none, so samples would claim that there is none. sums: the weights of each group."""
    seen = 1.0 - 0.025 ** float((sums**2).sum() / sums.sum() ** 2)
    return (0.0, seen) if share == 0.0 else (1.0 - seen, 1.0)

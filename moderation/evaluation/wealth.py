"""Betting against a claim: e-values for weighted labels and for sums of groups, and the monitor of a certificate. Pure.

After Waudby-Smith and Ramdas (arXiv 2010.09686) and Xu et al. (arXiv 2406.10490): where the rate of errors is over `a`,
a wealth that is a product of `1 + lambda w (a - e)` ever exceeds 1/d with a probability of at most d, however often one
looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moderation.evaluation.walks import F64, I64, Bools, Zones

BETS = np.array([0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97])
ALARM = 1.0 / 0.05
_MAX_TIMES = 1e6  # nobody labels a million times as many
MAX_GROUP = 20  # items of a group that count, so that no group outweighs the sample


def betting_logs(zones: Zones, strictness: F64, errors: Bools, weights: F64, allowed: float) -> F64:
    """Log wealth of each bet in each zone, from labels that were drawn with different probabilities: float64 [bets, T].

    weights: float64 [N] in (0, 1], the smallest probability of any label divided by that of this one.
    """
    order = np.argsort(-strictness, kind="stable")
    gains = (weights * (allowed - errors.astype(np.float64)))[order]
    logs = np.cumsum(np.log1p(BETS[:, None] / (1.0 - allowed) * gains), axis=1)
    return np.asarray(logs[:, zones.counts - 1], np.float64)


def grouped_logs(zones: Zones, strictness: F64, errors: Bools, groups: I64, weights: F64, allowed: float) -> F64:
    """The same where groups are drawn whole: each bet is a group's sum divided by `MAX_GROUP`; float64 [bets, T].

    groups: int64 [N], numbers from 0; each group has at most MAX_GROUP items (see `audit.drawn_for`).
    weights: of each item.
    """
    gains = weights * (allowed - errors.astype(np.float64)) / MAX_GROUP
    logs = np.empty((len(BETS), len(zones.thresholds)))
    for column, threshold in enumerate(zones.thresholds):
        inside = strictness >= threshold
        sums = np.bincount(groups[inside], gains[inside])
        logs[:, column] = np.log1p(BETS[:, None] / (1.0 - allowed) * sums).sum(axis=1)
    return logs


def p_of(logs: F64) -> F64:
    """p of each zone: min(1, 1 / mean of the wealth of all bets), float64 [T]. logs: float64 [bets, T]."""
    return np.asarray(np.minimum(1.0, np.exp(-_log_mean(logs))), np.float64)


def times_needed(logs: F64, level: float) -> float | None:
    """How many times as many labels like those of a zone reach `level`; None where no number does.

    logs: float64 [bets], over 0 where the rate that was seen is allowed: it grows with the number of labels.
    """
    if logs.max() <= 0:
        return None
    low, high = 0.0, 1.0
    while p_of(high * logs[:, None])[0] > level:
        low, high = high, high * 2
        if high > _MAX_TIMES:
            return None
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if p_of(middle * logs[:, None])[0] <= level else (middle, high)
    return high


def grouped_without_error(allowed: float, level: float) -> int:
    """The least items of whole groups that certify where none is an error; nearly the same for groups of all sizes."""
    one = np.log1p(BETS / (1.0 - allowed) * allowed / MAX_GROUP)
    return math.ceil(1000 * (times_needed(1000 * one, level) or _MAX_TIMES))


def _log_mean(logs: F64) -> F64:
    top = logs.max(axis=0)
    return np.asarray(top + np.log(np.exp(logs - top).mean(axis=0)), np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorWealth:
    """The wealth of a monitor that bets against "the certificate's rate is kept".

    logs: log wealth of each bet. highest: of the mean, over all labels so far, so that an alarm stays.
    """

    logs: tuple[float, ...] = (0.0,) * len(BETS)
    labels: int = 0
    errors: int = 0
    highest: float = 1.0

    @property
    def alarmed(self) -> bool:
        """Whether the certificate has ended: of certificates that hold, at most one in twenty ever does."""
        return self.highest >= ALARM


def bet_on(
    wealth: MonitorWealth, errors: Sequence[bool], weights: Sequence[float], allowed: float, *, whole: bool = False
) -> MonitorWealth:
    """The wealth after one more group. Unlike in certifying, it grows where there are more errors than allowed.

    errors: of its labels. weights: as for `betting_logs`. whole: as `grouped_logs` bets, on at most MAX_GROUP labels;
    else on one.
    """
    gain = sum(weight * (float(error) - allowed) for error, weight in zip(errors, weights, strict=True))
    logs = np.array(wealth.logs) + np.log1p(BETS / (1.0 - allowed) * gain / (MAX_GROUP if whole else 1))
    # Bounded, so that it fits into JSON; the alarm is far below.
    now = math.exp(min(50.0, float(_log_mean(logs[:, None])[0])))
    return MonitorWealth(
        logs=tuple(logs.tolist()),
        labels=wealth.labels + len(errors),
        errors=wealth.errors + sum(errors),
        highest=max(wealth.highest, now),
    )

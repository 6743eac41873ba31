"""The computation of docs/certificates.md on plain arrays: one side of a policy, from an audit's labels. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from moderation.errors import UsageError
from moderation.evaluation.walks import (
    F64,
    I64,
    STARTS,
    Bools,
    Zones,
    binomial_p,
    certified_zones,
    count_errors,
    draw_zones,
    find_starts,
    labels_needed,
    labels_without_error,
    upper_bound,
)
from moderation.evaluation.wealth import betting_logs, grouped_logs, grouped_without_error, p_of, times_needed

Method = Literal["binomial", "betting", "grouped betting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLabels:
    """Labels of one side, one row per item.

    strictness: float64 [N], larger is decided more surely. errors: bool [N]. groups: int64 [N]; None: each item is a
    group. weights: float64 [N] in (0, 1]; None: all were drawn with one probability.
    """

    strictness: F64
    errors: Bools
    groups: I64 | None = None
    weights: F64 | None = None

    def __post_init__(self) -> None:
        if np.isnan(self.strictness).any():
            raise UsageError("an item without a score is in no zone")
        if self.weights is not None and not ((self.weights > 0) & (self.weights <= 1)).all():
            raise UsageError("weights of labels lie over 0 and at most at 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """What the labels of one side allow.

    threshold: the laxest certified strictness; None: none. labels, errors: labels in that zone and the wrong ones among
    them; where no zone is certified, in the one nearest to it. bound: exact upper bound of the rate there, at `level`.
    more: labels still needed, over the whole region; None where no number helps, because the rate that was seen is not
    allowed.
    """

    threshold: float | None
    labels: int
    errors: int
    bound: float
    level: float
    method: Method
    more: int | None


def certify(audit: AuditLabels, allowed: float, risk: float, beyond: float = -math.inf) -> Certified:
    """The laxest threshold whose rate of errors is at most `allowed`; that is wrong with probability at most `risk`.

    beyond: only thresholds over this one may be taken; it may depend on labels.
    Exact binomial where every item has the same weight and is a group of its own; else betting. Raises UsageError.
    """
    level = risk / STARTS
    method: Method = (
        "grouped betting" if audit.groups is not None else "betting" if audit.weights is not None else "binomial"
    )
    if not len(audit.strictness):
        return _none(level, method, needed_without_error(allowed, level, grouped=audit.groups is not None))
    zones = draw_zones(audit.strictness)
    errors = count_errors(zones, audit.strictness, audit.errors)
    logs = None if method == "binomial" else _logs(audit, zones, allowed)
    p_values = binomial_p(zones.counts, errors, allowed) if logs is None else p_of(logs)
    starts = find_starts(zones.counts, allowed, level)
    # All certified zones hold together, so a stricter one than the laxest may be taken.
    usable = int((zones.thresholds > beyond).sum())
    chosen = int(np.flatnonzero(np.r_[True, certified_zones(p_values, starts, level)[:usable]])[-1]) - 1
    counts = zones.counts.tolist()
    if chosen >= 0:
        n, k = counts[chosen], int(errors[chosen])
        threshold = float(zones.thresholds[chosen])
        bound = upper_bound(n, k, level) if method == "binomial" else allowed
        return replace(_none(level, method, 0), threshold=threshold, labels=n, errors=k, bound=bound)
    if logs is None:
        needed = [labels_needed(n, k, allowed, level) for n, k in zip(counts, errors.tolist(), strict=True)]
    else:
        times = [times_needed(column, level) for column in logs.T]
        needed = [None if t is None else math.ceil(t * n) for t, n in zip(times, counts, strict=True)]
    needed[usable:] = [None] * (len(counts) - usable)
    return _nearest(counts, errors.tolist(), needed, _none(level, method, None))


def needed_without_error(allowed: float, level: float, *, grouped: bool) -> int:
    """The least labels of one side that certify where none of them is an error. grouped: of groups labelled whole."""
    return grouped_without_error(allowed, level) if grouped else labels_without_error(allowed, level)


def _logs(audit: AuditLabels, zones: Zones, allowed: float) -> F64:
    weights = np.ones(len(audit.errors)) if audit.weights is None else audit.weights
    if audit.groups is None:
        return betting_logs(zones, audit.strictness, audit.errors, weights, allowed)
    return grouped_logs(zones, audit.strictness, audit.errors, audit.groups, weights, allowed)


def _none(level: float, method: Method, more: int | None) -> Certified:
    return Certified(threshold=None, labels=0, errors=0, bound=1.0, level=level, method=method, more=more)


def _nearest(counts: list[int], errors: list[int], needed: Sequence[int | None], nothing: Certified) -> Certified:
    """The zone that needs the fewest more labels, counted over the whole region: a strict zone gets few of them.

    needed: labels of each zone that would pass at its rate; None where no number does.
    """
    whole = counts[-1]
    best: tuple[int, int, int] | None = None
    for n, k, wanted in zip(counts, errors, needed, strict=True):
        if wanted is not None:
            # At least one: a walk may fail before it reaches a zone that would pass alone.
            more = max(1, -(-wanted * whole // n) - whole)
            best = min(best or (more, n, k), (more, n, k))
    if best is None:
        n, k = counts[-1], errors[-1]
        return replace(nothing, labels=n, errors=k, bound=_bound(n, k, nothing))
    more, n, k = best
    return replace(nothing, labels=n, errors=k, bound=_bound(n, k, nothing), more=more)


def _bound(count: int, errors: int, side: Certified) -> float:
    # Exact for independent labels of one weight; nothing better than 1 is known of the others.
    return upper_bound(count, errors, side.level) if side.method == "binomial" else 1.0

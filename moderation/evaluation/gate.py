"""The promotion gate: a candidate against the incumbent on the same labelled items, held against limits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from moderation.evaluation.curves import interval, resample
from moderation.evaluation.packages import scipy_stats
from moderation.evaluation.population import number_groups
from moderation.evaluation.walks import F64, I64, Bools
from moderation.pages.text import number, percent


class GateLimits(BaseModel):
    """The limits that a candidate must keep to go live; the YAML file of `--limits`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    least_items: int = Field(default=200, ge=1, description="labelled items that both have judged")
    risk: float = Field(default=0.05, gt=0, lt=0.5, description="of the tests and intervals")
    max_leak: float | None = Field(default=None, ge=0, le=1, description="bad of what is passed; null: any")
    max_leak_increase: float = Field(default=0.001, ge=0, le=1, description="over the incumbent's leak")
    max_precision_drop: float = Field(default=0.005, ge=0, le=1, description="of what is blocked, rightly blocked")
    max_automation_drop: float = Field(default=0.01, ge=0, le=1, description="share decided by the machine")
    max_slice_increase: float = Field(default=0.03, ge=0, le=1, description="of wrong decisions, in any slice")
    least_slice_items: int = Field(default=50, ge=1, description="labelled items of a slice that counts")
    max_cost_ratio: float = Field(default=1.5, gt=0, description="seconds of scoring a frame, by the incumbent's")
    must_improve: bool = Field(
        default=True, description="fewer wrong decisions or more automation beyond chance, or a tenth less cost"
    )
    require_certificates: bool = Field(default=False, description="all that the candidate does by itself is certified")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One labelled item as both judged it. slices: attribute -> value."""

    candidate: str
    incumbent: str
    bad: bool
    group: str
    slices: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCheck:
    """One limit: its name, whether it is kept, and why."""

    name: str
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A share for both, over the labelled items, and the 95% interval of the difference by resampled groups."""

    name: str
    candidate: float | None
    incumbent: float | None
    difference: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOutcome:
    """Whether a candidate may go live.

    fixed: items that only the incumbent decides wrongly; broken: only the candidate. p: of McNemar's exact test that as
    many groups got better as got worse.
    """

    passed: bool
    items: int
    fixed: int
    broken: int
    p: float
    comparisons: tuple[Comparison, ...]
    checks: tuple[GateCheck, ...]


def compare(
    pairs: Sequence[Pair],
    limits: GateLimits,
    *,
    cost_ratio: float | None = None,
    uncertified: Mapping[str, str] | None = None,
) -> GateOutcome:
    """Hold a candidate against the incumbent. uncertified: actions without a certificate -> why.

    cost_ratio: the candidate's seconds per frame, over the incumbent's; None where a run does not tell them.
    """
    bad = np.array([pair.bad for pair in pairs], np.bool_)
    candidate, incumbent = _side(pairs, bad, "candidate"), _side(pairs, bad, "incumbent")
    groups = number_groups(pair.group for pair in pairs)
    changes = _mcnemar(candidate.wrong, incumbent.wrong, groups[0])
    comparisons = _compare_shares(candidate, incumbent, groups)
    by_name = {comparison.name: comparison for comparison in comparisons}
    checks = [
        GateCheck(
            name="enough items",
            passed=len(pairs) >= limits.least_items,
            reason=f"{len(pairs):,} labelled items that both judged, {limits.least_items:,} are asked for",
        ),
        GateCheck(
            name="wrong decisions",
            passed=not (changes.groups_worse > changes.groups_better and changes.p < limits.risk),
            reason=f"{changes.fixed:,} put right, {changes.broken:,} newly wrong; {changes.groups_better:,} groups got"
            f" better, {changes.groups_worse:,} worse (McNemar p {number(changes.p)})",
        ),
        *_check_shares(by_name, limits),
        _check_slices(pairs, candidate.wrong, incumbent.wrong, limits),
        _check_cost(cost_ratio, limits),
    ]
    if limits.require_certificates:
        checks.append(_check_certificates(uncertified or {}))
    if limits.must_improve:
        checks.append(_check_better(by_name, limits, changes, cost_ratio))
    return GateOutcome(
        passed=all(check.passed for check in checks),
        items=len(pairs),
        fixed=changes.fixed,
        broken=changes.broken,
        p=changes.p,
        comparisons=comparisons,
        checks=tuple(checks),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """Wrong decisions of only one of both, as items and by groups: the pictures of an album change together."""

    fixed: int
    broken: int
    groups_better: int
    groups_worse: int
    p: float


def _mcnemar(own: Bools, other: Bools, groups: I64) -> _Changes:
    """own, other: wrong, bool [N]; groups: int64 [N]. A group is better or worse by the majority of its changes."""
    turns = other.astype(np.int64) - own.astype(np.int64)
    sums = np.bincount(groups, turns) if len(groups) else np.empty(0)
    better, worse = int((sums > 0).sum()), int((sums < 0).sum())
    p = float(scipy_stats().binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return _Changes(
        fixed=int((turns > 0).sum()), broken=int((turns < 0).sum()), groups_better=better, groups_worse=worse, p=p
    )


def _check_certificates(uncertified: Mapping[str, str]) -> GateCheck:
    missing = ", ".join(f"{action} ({why})" for action, why in uncertified.items())
    return GateCheck(name="certificates", passed=not missing, reason=missing or "everything is certified")


@dataclass(frozen=True, slots=True, kw_only=True)
class _GateSide:
    """The items as one of both decided them; bool [N] each."""

    bad: Bools
    blocked: Bools
    passed: Bools

    @property
    def wrong(self) -> Bools:
        """Decided by the machine, and wrongly."""
        return (self.blocked & ~self.bad) | (self.passed & self.bad)


def _side(pairs: Sequence[Pair], bad: Bools, who: str) -> _GateSide:
    verdicts = [getattr(pair, who) for pair in pairs]
    return _GateSide(
        bad=bad,
        blocked=np.array([v == "block" for v in verdicts], np.bool_),
        passed=np.array([v == "pass" for v in verdicts], np.bool_),
    )


def _compare_shares(candidate: _GateSide, incumbent: _GateSide, groups: tuple[I64, int]) -> tuple[Comparison, ...]:
    weights = resample(*groups)
    shares: dict[str, Callable[[_GateSide], tuple[Bools, Bools]]] = {
        "automation": lambda s: (s.blocked | s.passed, np.ones(len(s.bad), np.bool_)),
        "leak": lambda s: (s.passed & s.bad, s.passed),
        "precision of block": lambda s: (s.blocked & ~s.bad, s.blocked),
        "wrong": lambda s: (s.wrong, np.ones(len(s.bad), np.bool_)),
    }
    made = []
    for name, parts in shares.items():
        own, other = (_share(*parts(side), None) for side in (candidate, incumbent))
        drawn = None
        if weights is not None:
            drawn = interval(_share(*parts(candidate), weights) - _share(*parts(incumbent), weights))
        # Its numbers are of wrong blocks; the share of right ones is 1 minus theirs.
        turn = name == "precision of block"
        made.append(_comparison(name, own, other, drawn, turned=turn))
    return tuple(made)


def _share(members: Bools, whole: Bools, weights: F64 | None) -> F64:
    """A share of one sample, or of each resampled one; NaN where the whole is empty."""
    own = np.ones(len(members)) if weights is None else weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((own * members).sum(axis=-1) / (own * whole).sum(axis=-1), np.float64)


def _comparison(name: str, own: F64, other: F64, drawn: tuple[float, float] | None, *, turned: bool) -> Comparison:
    a, b = (None if np.isnan(v) else 1 - float(v) if turned else float(v) for v in (own, other))
    if drawn is not None and turned:
        drawn = (0.0 - drawn[1], 0.0 - drawn[0])  # avoids -0.0
    difference = None if a is None or b is None else a - b
    return Comparison(name=name, candidate=a, incumbent=b, difference=difference, interval=drawn)


def _check_shares(by_name: Mapping[str, Comparison], limits: GateLimits) -> Iterator[GateCheck]:
    # The last: what an incumbent has that passes, or blocks, nothing: no wrong decision of that kind.
    rules = (
        ("leak", limits.max_leak_increase, 1, 0.0),
        ("precision of block", limits.max_precision_drop, -1, 1.0),
        ("automation", limits.max_automation_drop, -1, 0.0),
    )
    for name, limit, sign, faultless in rules:
        comparison = by_name[name]
        before = faultless if comparison.incumbent is None else comparison.incumbent
        worse = None if comparison.candidate is None else sign * (comparison.candidate - before)
        word = "more" if sign > 0 else "less"
        yield GateCheck(
            name=name,
            # None where the candidate blocks, or passes, nothing.
            passed=worse is None or worse <= limit,
            reason=f"{_both(comparison)}; {percent(limit)} {word} is allowed",
        )
    if limits.max_leak is not None:
        leak = by_name["leak"].candidate
        yield GateCheck(
            name="leak, at most",
            passed=leak is None or leak <= limits.max_leak,
            reason=f"{percent(leak)}; {percent(limits.max_leak)} is allowed",
        )


def _both(comparison: Comparison) -> str:
    between = ""
    if comparison.interval is not None:
        between = f" (difference {comparison.interval[0]:+.2%} to {comparison.interval[1]:+.2%})"
    return f"{percent(comparison.candidate)}, was {percent(comparison.incumbent)}{between}"


def _check_slices(pairs: Sequence[Pair], own: Bools, other: Bools, limits: GateLimits) -> GateCheck:
    members: dict[tuple[str, str], list[int]] = {}
    for index, pair in enumerate(pairs):
        for attribute, value in pair.slices.items():
            members.setdefault((attribute, value), []).append(index)
    worst: tuple[float, str] | None = None
    for (attribute, value), rows in members.items():
        if len(rows) >= limits.least_slice_items:
            increase = float(own[rows].mean() - other[rows].mean())
            worst = max(worst or (increase, ""), (increase, f"{attribute} = {value}, {len(rows):,} items"))
    if worst is None:
        return GateCheck(name="worst slice", passed=True, reason="no slice has enough labelled items")
    reason = f"{worst[0]:+.1%} wrong decisions in {worst[1]}; {percent(limits.max_slice_increase)} more is allowed"
    return GateCheck(name="worst slice", passed=worst[0] <= limits.max_slice_increase, reason=reason)


def _check_cost(ratio: float | None, limits: GateLimits) -> GateCheck:
    if ratio is None:
        return GateCheck(name="cost a frame", passed=True, reason="not known: a run does not tell what its frames took")
    reason = f"{ratio:.2f} times the incumbent's; {limits.max_cost_ratio:.2f} is allowed"
    return GateCheck(name="cost a frame", passed=ratio <= limits.max_cost_ratio, reason=reason)


def _check_better(
    by_name: Mapping[str, Comparison],
    limits: GateLimits,
    changes: _Changes,
    cost_ratio: float | None,
) -> GateCheck:
    automation = by_name["automation"].interval
    ways = {
        "fewer wrong decisions": changes.fixed > changes.broken
        and changes.groups_better > changes.groups_worse
        and changes.p < limits.risk,
        "more automation": automation is not None and automation[0] > 0,
        "less cost": cost_ratio is not None and cost_ratio <= 0.9,
    }
    better = [way for way, holds in ways.items() if holds]
    reason = ", ".join(better) if better else "neither fewer wrong decisions, more automation, nor less cost"
    return GateCheck(name="better in something", passed=bool(better), reason=reason)

"""How each vote and each check of a run is distributed, and where its variants disagree: numbers, for tables and plots.

Frames are counted, with the scores as the policy reads them (inverted where a check inverts). Every check counts as
asked: a cascade hides scores from verdicts, not from votes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from moderation.errors import UsageError
from moderation.policy.bind import BoundCheck
from moderation.policy.model import Policy
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.results.votes import read_bound_votes, score_matrix

BINS = 50
_F = npt.NDArray[np.float64]
_I = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Scores of frames. counts: int64 [50], bins over 0..1. outside: beyond 0..1. nulls: not asked. total: all."""

    name: str
    counts: tuple[int, ...]
    mean: float | None
    nulls: int
    outside: int
    total: int

    def quantile(self, share: float) -> float | None:
        """The score below which the given share of the frames lies, accurate to half a bin (0.01)."""
        whole = sum(self.counts)
        if not whole:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), share * whole))
        return (min(place, BINS - 1) + 0.5) / BINS


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Two votes of a check. apart: share of the frames with both that they put on different sides of the threshold.

    difference: mean distance of the two scores. None where no frame has both.
    """

    first: str
    second: str
    frames: int
    apart: float | None
    difference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDescription:
    """A check: its votes, what they fuse to, its thresholds (`block`, `review`, `pass`), share of frames at each."""

    name: str
    side: str
    thresholds: Mapping[str, float]
    votes: tuple[Distribution, ...]
    fused: Distribution
    at_least: Mapping[str, float]
    pairs: tuple[Disagreement, ...]


def describe_checks(out: str, policy: str | None = None, only: Sequence[str] = ()) -> tuple[CheckDescription, ...]:
    """Distributions of every check of a run's policy (or of another), and disagreement between its votes.

    Reads the votes part by part. Checks over votes beyond 0..1 (measurements) are left out.
    Raises UsageError when there is no run, the policy does not fit, or it has no check of that name.
    """
    run = open_run(out)
    rules = load_policy_of_run(run, policy)
    unknown = [name for name in only if name not in rules.checks]
    if unknown:
        raise UsageError(f"no check {unknown[0]!r}; there are: {', '.join(rules.checks)}")
    described = [tally.result() for tally in _tally_parts(run, rules, only or tuple(rules.checks))]
    shown = (check for check in described if not any(d.outside for d in check.votes))
    # Those that decide come first; else in the policy's order.
    return tuple(sorted(shown, key=lambda check: not check.thresholds))


def _tally_parts(run: StoredRun, policy: Policy, names: Sequence[str]) -> list[_CheckTally]:
    labels: tuple[str, ...] | None = None
    tallies: list[_CheckTally] = []
    for part in read_bound_votes(run, policy):
        if labels is None:
            labels = part.policy.labels
            tallies = [_CheckTally(check, labels) for check in part.policy.checks if check.name in names]
        elif labels != part.policy.labels:
            raise UsageError(f"{run.out}: its parts have different votes; rejudge them first")
        scores = score_matrix(part.votes, labels).astype(np.float64)
        for tally in tallies:
            tally.add(scores)
    return tallies


class _CheckTally:
    """Counts of one check, part after part."""

    def __init__(self, check: BoundCheck, labels: Sequence[str]) -> None:
        self._check = check
        names = [labels[column] if column >= 0 else "not run" for column in check.columns]
        self._votes = [_Histogram(name) for name in names]
        self._fused = _Histogram("fused")
        given = {"block": check.block, "review": check.review, "pass": check.pass_}
        self._thresholds = {name: value for name, value in given.items() if value is not None}
        # The lowest score at which the check decides something: two variants can disagree there.
        line = min(self._thresholds.values(), default=0.5)
        self._over: dict[str, int] = dict.fromkeys(self._thresholds, 0)
        self._pairs = [_PairTally(a, b, line) for a, b in combinations(range(len(names)), 2)]

    def add(self, scores: _F) -> None:
        """scores: float64 [F,L]."""
        # Column -1 stands for a detector that was left out: null throughout.
        own = np.hstack([scores, np.full((len(scores), 1), np.nan)])[:, list(self._check.columns)]
        own = 1.0 - own if self._check.invert else own
        for histogram, column in zip(self._votes, own.T, strict=True):
            histogram.add(column)
        fuse = self._check.fuse
        fused = own[:, 0] if fuse is None else np.array([fuse(row) for row in own.tolist()], np.float64)
        self._fused.add(fused)
        for name, threshold in self._thresholds.items():
            # As float32, as the policy compares.
            self._over[name] += int((fused.astype(np.float32) >= np.float32(threshold)).sum())
        for pair in self._pairs:
            pair.add(own)

    def result(self) -> CheckDescription:
        """What was counted."""
        fused = self._fused.result()
        asked = fused.total - fused.nulls
        names = [histogram.name for histogram in self._votes]
        return CheckDescription(
            name=self._check.name,
            side=self._check.side,
            thresholds=self._thresholds,
            votes=tuple(histogram.result() for histogram in self._votes),
            fused=fused,
            at_least={name: n / asked if asked else 0.0 for name, n in self._over.items()},
            pairs=tuple(pair.result(names) for pair in self._pairs),
        )


class _PairTally:
    """Counts of disagreement between two votes of a check, by their columns."""

    def __init__(self, first: int, second: int, line: float) -> None:
        self._first, self._second, self._line = first, second, line
        self._frames, self._apart, self._difference = 0, 0, 0.0

    def add(self, own: _F) -> None:
        """own: float64 [F,V], the votes of the check."""
        first, second = own[:, self._first], own[:, self._second]
        both = ~np.isnan(first) & ~np.isnan(second)
        first, second = first[both], second[both]
        self._frames += int(both.sum())
        self._apart += int(((first >= self._line) != (second >= self._line)).sum())
        self._difference += float(np.abs(first - second).sum())

    def result(self, names: Sequence[str]) -> Disagreement:
        """What was counted; names: of the check's votes."""
        frames = self._frames
        return Disagreement(
            first=names[self._first],
            second=names[self._second],
            frames=frames,
            apart=self._apart / frames if frames else None,
            difference=self._difference / frames if frames else None,
        )


class _Histogram:
    def __init__(self, name: str) -> None:
        self.name = name
        self._counts: _I = np.zeros(BINS, np.int64)
        self._sum, self._nulls, self._outside, self._total = 0.0, 0, 0, 0

    def add(self, scores: _F) -> None:
        present = scores[~np.isnan(scores)]
        inside = present[(present >= 0) & (present <= 1)]
        self._counts += np.histogram(inside, bins=BINS, range=(0, 1))[0]
        self._sum += float(inside.sum())
        self._nulls += len(scores) - len(present)
        self._outside += len(present) - len(inside)
        self._total += len(scores)

    def result(self) -> Distribution:
        inside = int(self._counts.sum())
        return Distribution(
            name=self.name,
            counts=tuple(self._counts.tolist()),
            mean=self._sum / inside if inside else None,
            nulls=self._nulls,
            outside=self._outside,
            total=self._total,
        )

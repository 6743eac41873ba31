"""How each vote and each check of a run is distributed, and where its variants disagree: numbers, for tables and plots.

Frames are counted, with the scores as the policy reads them (inverted where a check inverts). Every check is looked at
as if it had been asked: a cascade hides scores from verdicts, not from votes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moderation.analysis.ask import read_run
from moderation.analysis.rejudge import wanted_votes
from moderation.errors import UsageError
from moderation.policy.bind import BoundCheck, BoundPolicy, bind
from moderation.policy.model import load_policy
from moderation.results.receipts import committed_ids
from moderation.results.votes import disabled_votes, needed_asks, read_votes, score_matrix, vote_labels

BINS = 50
_F = npt.NDArray[np.float64]
_I = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Scores of frames. counts: int64 [50], over 0..1. outside: beyond that range. nulls: not asked. total: all."""

    name: str
    counts: tuple[int, ...]
    mean: float | None
    nulls: int
    outside: int
    total: int

    def quantile(self, share: float) -> float | None:
        """The score below which that share of the frames lies, to half a bin (0.01)."""
        whole = sum(self.counts)
        if not whole:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), share * whole))
        return (min(place, BINS - 1) + 0.5) / BINS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two votes of a check. apart: share of the frames with both that they put on different sides of the threshold.

    difference: mean distance of the two scores. None where no frame has both.
    """

    first: str
    second: str
    frames: int
    apart: float | None
    difference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFound:
    """A check: its votes, what they fuse to, its thresholds (`block`, `review`, `pass`), share of frames at each."""

    name: str
    side: str
    thresholds: Mapping[str, float]
    votes: tuple[Distribution, ...]
    fused: Distribution
    at_least: Mapping[str, float]
    pairs: tuple[Pair, ...]


def describe_checks(out: str, policy: str | None = None, only: Sequence[str] = ()) -> tuple[CheckFound, ...]:
    """Distributions of every check of a run's policy (or of another), and disagreement between its votes.

    Reads the votes part by part. Checks over votes beyond 0..1 (measurements) are left out.
    Raises UsageError when there is no run, the policy does not fit, or it has no check of that name.
    """
    record = read_run(out)
    config = record["config"]
    path = Path(policy or config.policy)
    if not path.is_file():
        raise UsageError(f"{path}: the policy of this run is not there any more; name one by --policy")
    rules = load_policy(path)
    unknown = [name for name in only if name not in rules.checks]
    if unknown:
        raise UsageError(f"no check {unknown[0]!r}; there are: {', '.join(rules.checks)}")
    ids = sorted(committed_ids(out))
    if not ids:
        raise UsageError(f"{out}: no shard is committed there")
    format_ = config.output.format
    asks = needed_asks(out, wanted_votes(rules), vote_labels(read_votes(out, ids[0], format_)))
    bound: BoundPolicy | None = None
    tallies: dict[str, _Tally] = {}
    for shard_id in ids:
        votes = read_votes(out, shard_id, format_, asks)
        labels = vote_labels(votes)
        if bound is None:
            bound = bind(rules, labels, disabled=disabled_votes(config, wanted_votes(rules)))
            tallies = {c.name: _Tally(c, labels) for c in bound.checks if not only or c.name in only}
        elif labels != bound.labels:
            raise UsageError(f"{out}: its parts have different votes; rejudge them first")
        scores = score_matrix(votes, labels).astype(np.float64)
        for tally in tallies.values():
            tally.add(scores)
    found = [tally.result() for tally in tallies.values()]
    return tuple(check for check in found if not any(d.outside for d in check.votes))


class _Tally:
    """Counts of one check, part after part."""

    def __init__(self, check: BoundCheck, labels: Sequence[str]) -> None:
        self._check = check
        names = [labels[column] if column >= 0 else "not run" for column in check.columns]
        self._votes = [_Histogram(name) for name in names]
        self._fused = _Histogram("fused")
        given = {"block": check.block, "review": check.review, "pass": check.pass_}
        self._thresholds = {name: value for name, value in given.items() if value is not None}
        # Where it first decides something: that is where two variants can be of two minds.
        self._line = min(self._thresholds.values(), default=0.5)
        self._over: dict[str, int] = dict.fromkeys(self._thresholds, 0)
        self._pairs = {pair: [0, 0, 0.0] for pair in combinations(range(len(names)), 2)}

    def add(self, scores: _F) -> None:
        """scores: float64 [F,L]."""
        # A column of -1 is a detector that was left out: null throughout.
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
        for (a, b), counted in self._pairs.items():
            both = ~np.isnan(own[:, a]) & ~np.isnan(own[:, b])
            first, second = own[both, a], own[both, b]
            counted[0] += int(both.sum())
            counted[1] += int(((first >= self._line) != (second >= self._line)).sum())
            counted[2] += float(np.abs(first - second).sum())

    def result(self) -> CheckFound:
        """What was counted."""
        fused = self._fused.result()
        asked = fused.total - fused.nulls
        names = [histogram.name for histogram in self._votes]
        return CheckFound(
            name=self._check.name,
            side=self._check.side,
            thresholds=self._thresholds,
            votes=tuple(histogram.result() for histogram in self._votes),
            fused=fused,
            at_least={name: n / asked if asked else 0.0 for name, n in self._over.items()},
            pairs=tuple(
                Pair(
                    first=names[a],
                    second=names[b],
                    frames=int(n),
                    apart=apart / n if n else None,
                    difference=far / n if n else None,
                )
                for (a, b), (n, apart, far) in self._pairs.items()
            ),
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

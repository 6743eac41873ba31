"""Whether scores are distributed as in a reference window: population stability, and a test corrected for many scores.

The index says how much has changed, the test whether chance explains it. With a million items the smallest change is
significant, so a score counts as drifted only where both say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderation.errors import UsageError
from moderation.evaluation.packages import scipy_stats
from moderation.evaluation.walks import F64
from moderation.results.intact import read_intact
from moderation.results.layout import VERDICTS
from moderation.results.reader import StoredRun, open_run
from moderation.results.votes import adjacent_runs, vote_labels

BINS: Final = 10
RISK: Final = 0.01  # of a false alarm among all scores together
WATCH, DRIFTED = 0.1, 0.25  # the usual limits of the index
LEAST_ITEMS: Final = 50
_MAX_ITEMS: Final = 200_000  # of a window, from its first parts: hashes of ids spread the items
_FLOOR: Final = 1e-4  # of a bin's share, so that the logarithm of an empty bin is finite

State = Literal["stable", "watch", "drifted", "too few"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreDrift:
    """One score in two windows. stability: the population stability index, with nulls as a bin of their own.

    p: the smaller of the two-sample Kolmogorov-Smirnov test and, for nulls, Fisher's exact test, doubled, and corrected
    for all scores (Holm). None where a window has too few items.
    """

    name: str
    reference_items: int
    items: int
    reference_mean: float | None
    mean: float | None
    reference_nulls: float
    nulls: float
    stability: float | None
    p: float | None
    state: State

    @property
    def reason(self) -> str:
        """The change in a sentence."""
        means = f"mean {_shown(self.reference_mean)}, now {_shown(self.mean)}"
        nulls = (
            f"; not asked {self.reference_nulls:.1%}, now {self.nulls:.1%}"
            if self.nulls != self.reference_nulls
            else ""
        )
        return f"{self.name}: {means}{nulls} (stability index {self.stability or 0:.2f}, p {self.p or 0:.1g})"


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def compare_runs(reference: str, out: str) -> tuple[ScoreDrift, ...]:
    """Every score of OUT against a reference run, the most changed first.

    Raises UsageError where the two have no score in common.
    """
    before, now = read_window(open_run(reference)), read_window(open_run(out))
    shared = [name for name in now if name in before]
    if not shared:
        raise UsageError(f"{reference} and {out} have no score in common")
    return compare_windows({name: before[name] for name in shared}, {name: now[name] for name in shared})


def compare_windows(reference: Mapping[str, F64], window: Mapping[str, F64]) -> tuple[ScoreDrift, ...]:
    """reference, window: name -> scores of items, float64 [N], NaN = null; the same names."""
    raw = {name: _p_value(reference[name], window[name]) for name in window}
    corrected = _holm({name: p for name, p in raw.items() if p is not None})
    drifts = [_drift_of(name, reference[name], window[name], corrected.get(name)) for name in window]
    return tuple(sorted(drifts, key=lambda d: (-(d.stability or 0.0), d.name)))


def _drift_of(name: str, before: F64, now: F64, p: float | None) -> ScoreDrift:
    enough = min(len(before), len(now)) >= LEAST_ITEMS
    index = stability_index(before, now) if enough else None
    return ScoreDrift(
        name=name,
        reference_items=len(before),
        items=len(now),
        reference_mean=_mean(before),
        mean=_mean(now),
        reference_nulls=float(np.isnan(before).mean()) if len(before) else 0.0,
        nulls=float(np.isnan(now).mean()) if len(now) else 0.0,
        stability=index,
        p=p,
        state=_state_of(index, p),
    )


def _state_of(index: float | None, p: float | None) -> State:
    if index is None or p is None:
        return "too few"
    if p >= RISK or index < WATCH:
        return "stable"
    return "drifted" if index >= DRIFTED else "watch"


def _mean(scores: F64) -> float | None:
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else None


def stability_index(before: F64, now: F64) -> float:
    """Sum of (q - p) ln(q / p) over ten bins of equally many reference items, and one of nulls."""
    known = before[~np.isnan(before)]
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS)) if len(known) else np.empty(0)
    p, q = (np.maximum(_shares(scores, edges), _FLOOR) for scores in (before, now))
    return float(((q - p) * np.log(q / p)).sum())


def _shares(scores: F64, edges: F64) -> F64:
    nulls = np.isnan(scores)
    counts = np.bincount(np.searchsorted(edges, scores[~nulls], side="right"), minlength=len(edges) + 1)
    return np.append(counts, nulls.sum()) / max(1, len(scores))


def _p_value(before: F64, now: F64) -> float | None:
    if min(len(before), len(now)) < LEAST_ITEMS:
        return None
    stats = scipy_stats()
    nulls = [int(np.isnan(before).sum()), int(np.isnan(now).sum())]
    known = [len(before) - nulls[0], len(now) - nulls[1]]
    by_nulls = float(stats.fisher_exact([nulls, known]).pvalue) if any(nulls) else 1.0
    by_scores = 1.0
    if min(known):
        by_scores = float(stats.ks_2samp(before[~np.isnan(before)], now[~np.isnan(now)], method="asymp").pvalue)
    return min(1.0, 2 * min(by_nulls, by_scores))


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction: the chance of any false alarm among all tests is at most that of one."""
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda entry: entry[1])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = highest
    return corrected


def read_window(run: StoredRun) -> dict[str, F64]:
    """Scores of a run's items by name: of each check its score, of each vote the mean over an item's frames."""
    pieces: dict[str, list[F64]] = {}
    items = 0
    for shard_id in run.shard_ids:
        verdicts = read_intact(run.out, VERDICTS, shard_id, run.format)
        votes = run.read_votes(shard_id)
        for name, scores in (*_check_scores(verdicts), *_vote_scores(votes)):
            pieces.setdefault(name, []).append(scores)
        items += len(verdicts)
        if items >= _MAX_ITEMS:
            break
    return {name: np.concatenate(scores) for name, scores in pieces.items()}


def _check_scores(verdicts: pa.Table) -> Iterator[tuple[str, F64]]:
    judged = verdicts.filter(pc.is_valid(verdicts["verdict"]))
    for name in judged.column_names:
        if name.startswith("score_"):
            yield name.removeprefix("score_"), judged[name].to_numpy().astype(np.float64)


def _vote_scores(votes: pa.Table) -> Iterator[tuple[str, F64]]:
    runs = list(adjacent_runs(votes["item_id"].to_pylist()))
    for label in vote_labels(votes):
        frames = votes[label].to_numpy().astype(np.float64)
        yield label, np.array([_mean(frames[own]) for own in runs], np.float64)


def describe_drift(drifts: Sequence[ScoreDrift]) -> list[str]:
    """A sentence for each score that drifted, the most changed first; at most ten."""
    changed = [drift for drift in drifts if drift.state == "drifted"]
    shown = [f"drifted: {drift.reason}" for drift in changed[:10]]
    return shown + ([f"drifted: {len(changed) - 10} more scores"] if len(changed) > 10 else [])

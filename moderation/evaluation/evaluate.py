"""`moderation evaluate`: the measures of one or several finished runs, by labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.evaluation.audit import group_of, is_uniform
from moderation.evaluation.measures import (
    Rate,
    ScoreMeasures,
    VerdictMeasures,
    measure_score,
    measure_verdicts,
    rate,
)
from moderation.evaluation.population import (
    JudgedItem,
    Population,
    group_numbers,
    number_groups,
    read_population,
    score_array,
    weights_of,
)
from moderation.evaluation.slices import LEAST_ITEMS, SliceMeasures, attributes_of, measure_slices
from moderation.evaluation.walks import F64, Bools
from moderation.evaluation.weighted import WeightedMeasures, measure_weighted
from moderation.labels.label_files import read_labels
from moderation.labels.meaning import Meaning, make_meaning
from moderation.labels.resolve import LabelTable, resolve_labels
from moderation.pages.text import short_line
from moderation.policy.check import Check
from moderation.policy.model import Policy
from moderation.results.reader import open_run
from moderation.results.votes import adjacent_runs, vote_labels

# The detector of 1996 that serves as the baseline, where it was run.
BASELINE: Final = "skin"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelWords:
    """How a caller reads words of labels: `--bad`, `--means`."""

    bad: tuple[str, ...] = ()
    means: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A run, or several together, by labels.

    rows: of all items. automation, review: of all rows, labelled or not. verdicts: over all labels, and, where there
    are any, over those of the audit alone: only these are a random sample. Of an audit with several rates they are
    those that the smallest one draws: the others would count too often. weighted: where the labels say with which
    probability their items were drawn; the areas of `scores` are weighted then, too.
    """

    name: str
    rows: int
    labelled: int
    disputed: int
    policy_hash: str
    stack_fingerprint: str
    automation: Rate
    review: Rate
    scores: tuple[ScoreMeasures, ...]
    verdicts: tuple[VerdictMeasures, ...]
    slices: tuple[SliceMeasures, ...]
    weighted: WeightedMeasures | None = None


def evaluate(
    outs: Sequence[str],
    labels_uri: str,
    *,
    words: LabelWords | None = None,
    policy: str | None = None,
    together: bool = False,
    slice_by: Sequence[str] = (),
    least: int = LEAST_ITEMS,
    precision: float = 0.99,
) -> tuple[Evaluation, ...]:
    """Measures of each run, in order; together: of all runs as one. Raises UsageError."""
    labels = resolve_labels(read_labels(labels_uri))
    parts = [tuple(outs)] if together else [(out,) for out in outs]
    made, attributes = [], set[str]()
    for part in parts:
        population = read_population(part, labels, policy)
        attributes |= attributes_of(population.labelled)
        made.append(_evaluate_population(population, labels, words or LabelWords(), slice_by, least, precision))
    for name in slice_by:
        if name not in attributes:
            known = [short_line(attribute, 60) for attribute in sorted(attributes)[:50]]
            raise UsageError(f"--slice {name}: no labelled item has that attribute{did_you_mean(name, known)}")
    return tuple(made)


def _evaluate_population(
    population: Population,
    labels: LabelTable,
    words: LabelWords,
    slice_by: Sequence[str],
    least: int,
    precision: float,
) -> Evaluation:
    meaning = meaning_of(population.policy, labels, words)
    items = population.labelled
    bad = truths(items, meaning)
    audited = np.array([is_uniform(population.policy.audit, item) for item in items], np.bool_)
    weights, (groups, _) = weights_of(items), group_numbers(items)
    verdicts = [measure_verdicts("all labels", [i.verdict for i in items], bad, groups)]
    if audited.any():
        own = [item for item, audit in zip(items, audited.tolist(), strict=True) if audit]
        audit = population.policy.audit
        drawn, _ = number_groups(i.group if audit is None else group_of(audit, i) for i in own)
        verdicts.append(measure_verdicts("the audit", [i.verdict for i in own], bad[audited], drawn))
    automatic = population.verdicts["block"] + population.verdicts["pass"]
    judged = automatic + population.verdicts["review"]
    return Evaluation(
        name=" + ".join(population.outs),
        rows=population.rows,
        labelled=len(items),
        disputed=population.disputed,
        policy_hash=population.policy_hash,
        stack_fingerprint=population.stack_fingerprint,
        automation=rate(automatic, judged),
        review=rate(population.verdicts["review"], judged),
        scores=tuple(_measure_scores(population, items, meaning, bad, precision, weights)),
        verdicts=tuple(verdicts),
        slices=measure_slices(items, bad, slice_by, least),
        weighted=None if weights is None else measure_weighted([i.verdict for i in items], bad, weights, groups),
    )


def meaning_of(policy: Policy, labels: LabelTable, words: LabelWords) -> Meaning:
    """How a policy's checks read the words of labels. Raises UsageError for a word that says nothing."""
    sides = {name: str(check.side) for name, check in policy.checks.items()}
    return make_meaning(sides, labels.words, words.bad, words.means)


def truths(items: Sequence[JudgedItem], meaning: Meaning) -> Bools:
    """Which items are bad: bool [N]; their labels are not in dispute."""
    return np.array([meaning.is_bad(_words_of(item)) for item in items], np.bool_)


def _words_of(item: JudgedItem) -> frozenset[str]:
    assert item.label is not None
    assert item.label.words is not None
    return item.label.words


def _measure_scores(
    population: Population,
    items: Sequence[JudgedItem],
    meaning: Meaning,
    bad: Bools,
    precision: float,
    weights: F64 | None,
) -> Iterator[ScoreMeasures]:
    groups, _ = group_numbers(items)
    for name, check in population.policy.checks.items():
        if check.side == "attribute":
            continue
        truth = np.array([meaning.confirms(_words_of(item), name) for item in items], np.bool_)
        yield measure_score(
            name,
            check.side,
            score_array(items, name),
            truth,
            groups,
            thresholds=thresholds_of(check),
            precision=precision,
            weights=weights,
        )
    for label, scores in _baseline_scores(population, items).items():
        yield measure_score(
            f"{label} (baseline)",
            "baseline",
            scores,
            bad,
            groups,
            thresholds={},
            precision=precision,
            weights=weights,
        )


def thresholds_of(check: Check) -> dict[str, float]:
    """The thresholds that a check has, by name."""
    given = {"block": check.block, "review": check.review, "pass": check.pass_}
    return {name: value for name, value in given.items() if value is not None}


def _baseline_scores(population: Population, items: Sequence[JudgedItem]) -> Mapping[str, F64]:
    """The baseline's votes, each item's largest over its frames; empty where it was not run."""
    place = {item.item_id: index for index, item in enumerate(items)}
    found: dict[str, F64] = {}
    for out in population.outs:
        run = open_run(out)
        for shard_id in run.shard_ids:
            votes = run.read_votes(shard_id)
            labels = [name for name in vote_labels(votes) if name.startswith(f"{BASELINE}.")]
            for label in labels:
                column = found.setdefault(label, np.full(len(items), np.nan))
                _take_highest(votes, label, place, column)
            if not labels:
                break
    return found


def _take_highest(votes: pa.Table, label: str, place: Mapping[str, int], column: F64) -> None:
    ids, frames = votes["item_id"].to_pylist(), votes[label].to_numpy().astype(np.float64)
    for own in adjacent_runs(ids):
        if ids[own.start] in place:
            # NaN only where all frames are null.
            column[place[ids[own.start]]] = np.fmax.reduce(frames[own])

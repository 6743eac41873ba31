"""What a dataset holds, after its moderation: share by concept, the terms that stand out, examples.

After Schramowski, Tauchmann, Kersting 2022 (arXiv:2202.06675), who answer question 16 of "Datasheets for datasets"
(does it hold what might be offensive?) by what a network finds; here a concept is a check of the policy.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from moderation.analysis.terms import Term, TermCounts, over_represented, terms_of
from moderation.policy.check import Check
from moderation.policy.model import Policy
from moderation.policy.taxonomy import load_taxonomy
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.results.schema import score_column
from moderation.types import Verdict

_COLUMNS = ("item_id", "uri", "kind", "verdict", "status", "attributes")
_EVEN = 0.5  # the threshold of a check that has none
# Detectors that measure pictures: how bright one is, or how many gradients it has, is no concept that it shows.
_MEASURING = frozenset({"quality", "pdq"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An item that shows a concept; shard_id: where the plan has it."""

    item_id: str
    uri: str
    score: float
    shard_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A check and the items at or over its threshold (its lowest; 0.5 where it has none).

    asked: items with a score. terms: over-represented among these items. examples: those with the highest scores.
    """

    name: str
    side: str
    threshold: float
    asked: int
    found: int
    terms: tuple[Term, ...]
    examples: tuple[Example, ...]

    @property
    def share(self) -> float | None:
        """The share of the asked items that show the concept."""
        return self.found / self.asked if self.asked else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A label of the taxonomy, from level 1 down, and the items with a check under it."""

    path: tuple[str, ...]
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What was found in a run. flagged: terms over-represented among items that a check blocked or sent to review.

    notes: what a reader must know of the numbers.
    """

    run_id: str
    source: str
    items: int
    verdicts: Mapping[str, int]
    kinds: Mapping[str, int]
    concepts: tuple[Concept, ...]
    categories: tuple[Category, ...]
    flagged_items: int
    flagged: tuple[Term, ...]
    notes: tuple[str, ...]


def take_inventory(
    out: str, *, policy: str | None = None, taxonomy: str | None = None, examples: int = 6, terms: int = 20
) -> Inventory:
    """The inventory of a finished run, its verdicts read part by part.

    policy: a file with the thresholds that say what is found; default: the run's. taxonomy: a table; default: the
    packaged one. Raises UsageError when there is no run, or its policy is gone.
    """
    run = open_run(out)
    rules = load_policy_of_run(run, policy)
    names = {entry.title: entry.name for entry in run.load_config().stack.detectors}
    measured = {name for name, check in rules.checks.items() if _is_measurement(check, names)}
    tally = _InventoryTally(rules, load_taxonomy(taxonomy), examples, measured)
    for shard_id in run.shard_ids:
        tally.add(run.read_verdicts(shard_id), shard_id)
    return tally.result(run.run_id, _source_of(run), terms)


def _source_of(run: StoredRun) -> str:
    identity = run.record.get("identity")
    known = identity.get("source") if isinstance(identity, Mapping) else None
    return str(run.record.get("source") or known or run.out)


def _is_measurement(check: Check, names: Mapping[str, str]) -> bool:
    """Whether an attribute only measures. names: how the stack calls a detector -> its name."""
    detectors = {vote.partition(".")[0] for vote in check.votes}
    return check.side == "attribute" and all(names.get(d, d) in _MEASURING for d in detectors)


@dataclass(slots=True, kw_only=True)
class _ConceptTally:
    """Counts of one check."""

    check: Check
    threshold: float
    asked: int = 0
    found: int = 0
    outside: bool = False
    terms: TermCounts = field(default_factory=TermCounts)
    best: list[tuple[float, str, str, str]] = field(default_factory=list)  # a heap: score, item_id, uri, shard_id

    def add(
        self, score: float, row: Mapping[str, Any], terms: set[tuple[str, str]], shard_id: str, examples: int
    ) -> bool:
        """Count an item that has a score; returns whether it shows the concept."""
        self.asked += 1
        self.outside |= not 0 <= score <= 1
        if score < self.threshold:
            return False
        self.found += 1
        self.terms.add(terms)
        entry = (score, row["item_id"], row["uri"], shard_id)
        if len(self.best) < examples:
            heapq.heappush(self.best, entry)
        elif examples:
            heapq.heappushpop(self.best, entry)
        return True

    def result(self, name: str, everything: TermCounts, terms: int) -> Concept:
        """What was counted."""
        return Concept(
            name=name,
            side=self.check.side,
            threshold=self.threshold,
            asked=self.asked,
            found=self.found,
            terms=over_represented(self.terms, everything, limit=terms),
            examples=tuple(
                Example(score=score, item_id=item_id, uri=uri, shard_id=shard_id)
                for score, item_id, uri, shard_id in sorted(self.best, key=lambda e: (-e[0], e[1]))
            ),
        )


class _InventoryTally:
    """Counts of a run, part after part."""

    def __init__(
        self, policy: Policy, taxonomy: Mapping[str, tuple[str, ...]], examples: int, measured: Set[str]
    ) -> None:
        self._concepts = {
            name: _ConceptTally(check=check, threshold=_threshold(check))
            for name, check in policy.checks.items()
            if name not in measured
        }
        self._taxonomy = taxonomy
        self._examples = examples
        self._verdicts: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._categories: Counter[tuple[str, ...]] = Counter()
        self._all, self._flagged = TermCounts(), TermCounts()
        self._absent: set[str] = set()

    def add(self, verdicts: pa.Table, shard_id: str) -> None:
        """The items of a part."""
        names = set(verdicts.column_names)
        self._absent |= {name for name in self._concepts if score_column(name) not in names}
        checks = [name for name in self._concepts if score_column(name) in names]
        columns = [*_COLUMNS, "check", *map(score_column, checks)]
        for row in _rows(verdicts.select(columns)):
            self._kinds[row["kind"]] += 1
            # An item without a verdict is not media, so it is none of the dataset's pictures.
            if row["verdict"] is not None:
                self._add_item(row, checks, shard_id)

    def _add_item(self, row: Mapping[str, Any], checks: Sequence[str], shard_id: str) -> None:
        self._verdicts[row["verdict"]] += 1
        terms = terms_of(dict(row["attributes"] or ()))
        self._all.add(terms)
        if row["verdict"] != Verdict.PASS and row["check"] is not None:
            self._flagged.add(terms)
        categories: set[tuple[str, ...]] = set()
        for name in checks:
            score = row[score_column(name)]
            if score is not None and self._concepts[name].add(score, row, terms, shard_id, self._examples):
                path = self._taxonomy.get(name, ())
                categories.update(path[:n] for n in range(1, len(path) + 1))
        self._categories.update(categories)

    def result(self, run_id: str, source: str, terms: int) -> Inventory:
        """What was counted."""
        # Measurements (sharpness) are no concepts.
        kept = {name: c for name, c in self._concepts.items() if name not in self._absent and not c.outside}
        notes = []
        if self._absent:
            notes.append(f"not among the run's checks, so not counted: {', '.join(sorted(self._absent))}")
        if self._all.dropped:
            notes.append("there are more different terms than are counted: rare ones were dropped on the way")
        return Inventory(
            run_id=run_id,
            source=source,
            items=self._all.items,
            verdicts=dict(self._verdicts),
            kinds=dict(self._kinds),
            concepts=tuple(
                concept.result(name, self._all, terms)
                for name, concept in sorted(kept.items(), key=lambda pair: (-pair[1].found, pair[0]))
            ),
            categories=tuple(Category(path=path, items=n) for path, n in sorted(self._categories.items())),
            flagged_items=self._flagged.items,
            flagged=over_represented(self._flagged, self._all, limit=terms),
            notes=tuple(notes),
        )


def _threshold(check: Check) -> float:
    given = [t for t in (check.review, check.block, check.pass_) if t is not None]
    return min(given, default=_EVEN)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    names: Sequence[str] = table.column_names
    for cells in zip(*(column.to_pylist() for column in table.columns), strict=True):
        yield dict(zip(names, cells, strict=True))

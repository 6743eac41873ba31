"""Which items change verdict between two policies, from the votes that runs kept: counts, by rule, and examples.

Parts are judged in columns, as a rejudge judges them; only the votes that one of the two policies names are read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from moderation.lists.policy_file import load_whole_policy
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy
from moderation.results.asked import read_digests
from moderation.results.judged import JUDGED_BY, judge_columns
from moderation.results.layout import VERDICTS
from moderation.results.reader import StoredRun, open_run
from moderation.results.votes import disabled_votes, needed_asks, policy_votes, read_votes, vote_labels

MAX_RULES: Final = 10_000  # pairs of reasons that are counted apart; lists and codes are few
_SIDES: Final = ("verdict_before", "verdict_after")
_REASONS: Final = ("reason_before", "reason_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedItem:
    """An example of an item whose verdict changes. score: of the check that decides now."""

    out: str
    item_id: str
    uri: str
    reason_text: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedRule:
    """Items of one reason before and another now. examples: the first ones, in the order of the runs."""

    before: str
    after: str
    items: int
    changes_verdict: bool
    examples: tuple[ChangedItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDifference:
    """Two policies over the same votes.

    items: judged ones, without `skipped`. before, after: items by verdict. moved: (verdict before, after) -> items, of
    those whose verdict changes. rules: by reason, those that change the verdict first, then the most items.
    """

    items: int
    skipped: int
    before: Mapping[str, int]
    after: Mapping[str, int]
    moved: Mapping[tuple[str, str], int]
    rules: tuple[ChangedRule, ...]

    @property
    def changed(self) -> int:
        """The number of items whose verdict changes."""
        return sum(self.moved.values())


def diff_policies(
    old_path: str, new_path: str, outs: Sequence[str], *, examples: int = 3, as_of: date | None = None
) -> PolicyDifference:
    """Judge the votes of every run of `outs` by both policies; nothing is written.

    examples: how many of every change of rule. as_of: the day for lists that end; None: that of each run.
    Raises UsageError naming a vote that a run did not cast, and the nearest right one.
    """
    old, new = load_whole_policy(Path(old_path)), load_whole_policy(Path(new_path))
    tally = _Tally(most_examples=examples)
    for run in [open_run(out) for out in outs]:
        for judged in _judge_both(run, (old, new), as_of):
            tally.add(run.out, judged)
    return tally.result()


def _judge_both(run: StoredRun, policies: tuple[Policy, Policy], as_of: date | None) -> Iterator[pa.Table]:
    """A part after another: item_id, uri, verdict and reason by both policies, reason_text and score by the new one."""
    read = _BothPolicies.of(run, policies, as_of)
    for shard_id in run.shard_ids:
        rows = run.read_present(VERDICTS, shard_id, (*JUDGED_BY, "uri"))
        votes = read_votes(run, shard_id, read.asks, read.digests, labels=read.wanted)
        before, after = (judge_columns(rows, votes, bound) for bound in read.bind(vote_labels(votes)))
        yield pa.table(
            {
                "item_id": rows["item_id"],
                "uri": rows["uri"],
                "verdict_before": before["verdict"],
                "verdict_after": after["verdict"],
                "reason_before": before["reason"],
                "reason_after": after["reason"],
                "reason_text": after["reason_text"],
                "score": after["score"],
            }
        )


@dataclass(slots=True, kw_only=True)
class _BothPolicies:
    """Two policies over one run: the votes that they read, and how they are bound to a part's columns."""

    run: StoredRun
    policies: tuple[Policy, Policy]
    as_of: date | None
    wanted: tuple[str, ...]
    asks: tuple[str, ...]
    digests: Mapping[str, Mapping[str, str]]
    bound: dict[tuple[str, ...], tuple[BoundPolicy, BoundPolicy]] = field(default_factory=dict)

    @staticmethod
    def of(run: StoredRun, policies: tuple[Policy, Policy], as_of: date | None) -> _BothPolicies:
        """Raises UsageError naming a vote that the run did not cast, and the nearest right one."""
        wanted = tuple(sorted({vote for policy in policies for vote in policy_votes(policy)}))
        asks = needed_asks(run.votes_out, wanted, vote_labels(run.read_votes(run.shard_ids[0])))
        both = _BothPolicies(
            run=run,
            policies=policies,
            as_of=as_of,
            wanted=wanted,
            asks=asks,
            digests=read_digests(run.votes_out, asks),
        )
        # Against all votes of the run, so that the nearest right one is among them.
        both.bind(vote_labels(read_votes(run, run.shard_ids[0], asks)))
        return both

    def bind(self, labels: tuple[str, ...]) -> tuple[BoundPolicy, BoundPolicy]:
        """Both policies bound to a part's columns."""
        if labels not in self.bound:
            disabled = disabled_votes(self.run.load_config(), self.wanted)
            old, new = (
                bind(policy, labels, disabled=disabled, as_of=self.run.day(policy, self.as_of))
                for policy in self.policies
            )
            self.bound[labels] = (old, new)
        return self.bound[labels]


@dataclass(slots=True, kw_only=True)
class _Tally:
    most_examples: int
    items: int = 0
    skipped: int = 0
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
    rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    sides: dict[tuple[str, str], bool] = field(default_factory=dict)
    examples: defaultdict[tuple[str, str], list[ChangedItem]] = field(default_factory=lambda: defaultdict(list))

    def add(self, out: str, judged: pa.Table) -> None:
        """Count a part. judged: of `_judge_both`."""
        kept = judged.filter(pc.and_(judged["verdict_before"].is_valid(), judged["verdict_after"].is_valid()))
        self.skipped += len(judged) - len(kept)
        self.items += len(kept)
        keys = [*_SIDES, *_REASONS]
        for row in kept.select(keys).group_by(keys).aggregate([([], "count_all")]).to_pylist():
            self._count(row["verdict_before"], row["verdict_after"], (row["reason_before"], row["reason_after"]), row)
        changed = kept.filter(pc.not_equal(kept["reason_before"], kept["reason_after"]))
        for rule in self._lacking(changed):
            self._add_examples(out, changed, rule)

    def _count(self, before: str, after: str, rule: tuple[str, str], row: Mapping[str, int]) -> None:
        items = row["count_all"]
        self.before[before] += items
        self.after[after] += items
        if before != after:
            self.moved[before, after] += items
        if rule[0] == rule[1] or (rule not in self.rules and len(self.rules) >= MAX_RULES):
            return
        self.rules[rule] += items
        self.sides[rule] = before != after

    def _lacking(self, changed: pa.Table) -> list[tuple[str, str]]:
        """The changes of rule in a part of which there are not enough examples yet."""
        pairs = changed.select(_REASONS).group_by(_REASONS).aggregate([]).to_pylist()
        rules = [(pair["reason_before"], pair["reason_after"]) for pair in pairs]
        return [rule for rule in rules if rule in self.rules and len(self.examples[rule]) < self.most_examples]

    def _add_examples(self, out: str, changed: pa.Table, rule: tuple[str, str]) -> None:
        of_rule = pc.and_(pc.equal(changed["reason_before"], rule[0]), pc.equal(changed["reason_after"], rule[1]))
        left = self.most_examples - len(self.examples[rule])
        for row in changed.filter(of_rule).slice(0, left).to_pylist():
            self.examples[rule].append(
                ChangedItem(
                    out=out,
                    item_id=row["item_id"],
                    uri=row["uri"],
                    reason_text=row["reason_text"] or "",
                    score=row["score"],
                )
            )

    def result(self) -> PolicyDifference:
        rules = [
            ChangedRule(
                before=rule[0],
                after=rule[1],
                items=items,
                changes_verdict=self.sides[rule],
                examples=tuple(self.examples[rule]),
            )
            for rule, items in self.rules.items()
        ]
        return PolicyDifference(
            items=self.items,
            skipped=self.skipped,
            before={str(verdict): n for verdict, n in sorted(self.before.items())},
            after={str(verdict): n for verdict, n in sorted(self.after.items())},
            moved=dict(self.moved),
            rules=tuple(sorted(rules, key=lambda r: (not r.changes_verdict, -r.items, r.before, r.after))),
        )

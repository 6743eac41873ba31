"""Which items change verdict between two policies, from the votes that runs kept: counts, by rule, and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from moderation.lists.policy_file import load_whole_policy
from moderation.policy.model import Policy
from moderation.results.judged import JUDGED_BY, judge_rows
from moderation.results.reader import StoredRun, open_run
from moderation.results.votes import item_votes, read_bound_votes
from moderation.types import Judgement

MAX_RULES = 10_000  # pairs of reasons that are counted apart; lists and codes are few


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
        for item, before, after in _judge_both(run, old, new, as_of):
            tally.add(item, before, after)
    return tally.result()


def _judge_both(
    run: StoredRun, old: Policy, new: Policy, as_of: date | None
) -> Iterator[tuple[ChangedItem, Judgement | None, Judgement | None]]:
    parts = zip(read_bound_votes(run, old, as_of=as_of), read_bound_votes(run, new, as_of=as_of), strict=True)
    for one, other in parts:
        rows = run.read_verdicts(one.shard_id)
        rows = rows.select([name for name in (*JUDGED_BY, "uri") if name in rows.column_names])
        before = judge_rows(rows, dict(item_votes(one.votes, one.policy.labels)), one.policy)
        after = judge_rows(rows, dict(item_votes(other.votes, other.policy.labels)), other.policy)
        for item_id, uri, was, now in zip(
            rows["item_id"].to_pylist(), rows["uri"].to_pylist(), before, after, strict=True
        ):
            text, score = (now.reason_text, now.score) if now is not None else ("", None)
            yield ChangedItem(out=run.out, item_id=item_id, uri=uri, reason_text=text, score=score), was, now


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

    def add(self, item: ChangedItem, before: Judgement | None, after: Judgement | None) -> None:
        if before is None or after is None:
            self.skipped += 1
            return
        self.items += 1
        self.before[before.verdict] += 1
        self.after[after.verdict] += 1
        if before.verdict != after.verdict:
            self.moved[str(before.verdict), str(after.verdict)] += 1
        rule = (before.reason, after.reason)
        if before.reason == after.reason or (rule not in self.rules and len(self.rules) >= MAX_RULES):
            return
        self.rules[rule] += 1
        self.sides[rule] = before.verdict != after.verdict
        if len(self.examples[rule]) < self.most_examples:
            self.examples[rule].append(item)

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

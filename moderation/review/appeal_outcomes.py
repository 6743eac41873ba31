"""What became of appeals: upheld or overturned, in all and by the rule that had decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderation.errors import UsageError
from moderation.labels.decided_labels import given_answers, settle
from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, Decision, standing_decisions
from moderation.pages.text import short_line
from moderation.results.reader import StoredRun, open_run
from moderation.review.agreement import group_by_item
from moderation.review.appeals import Appeal, add_appeals, read_appeals, read_appeals_file

REVIEWER = "a reviewer"  # the rule of what a person had decided before


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOverturns:
    """Appeals of what one rule had decided. rule: the reason of the verdict, or `a reviewer`."""

    rule: str
    decided: int
    overturned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealReport:
    """Appeals of a run. open: that nobody has decided. unknown: of items that the run does not have."""

    appeals: int
    open: int
    upheld: int
    overturned: int
    unknown: int
    rules: tuple[RuleOverturns, ...]

    @property
    def overturn_rate(self) -> float | None:
        """Share of the decided appeals that were overturned; None without any."""
        decided = self.upheld + self.overturned
        return self.overturned / decided if decided else None


def take_appeals(out: str, uri: str) -> int:
    """Keep the appeals of a file in OUT; returns how many are new. Raises UsageError naming an unknown item."""
    verdicts = read_reasons(open_run(out))
    appeals = read_appeals_file(uri)
    absent = [appeal.item_id for appeal in appeals if appeal.item_id not in verdicts]
    if absent:
        more = f" (and {len(absent) - 1:,} more)" if len(absent) > 1 else ""
        raise UsageError(f"{uri}: the run has no item {short_line(absent[0], 80)!r}{more}; nothing was taken in")
    return add_appeals(out, appeals)


def report_appeals(out: str) -> AppealReport:
    """What became of the appeals of a run. Raises UsageError, DamagedDecisionsError."""
    return count_outcomes(read_appeals(out), group_by_item(read_decisions(out)), read_reasons(open_run(out)))


def count_outcomes(
    appeals: Sequence[Appeal],
    by_item: Mapping[str, Sequence[Decision]],
    verdicts: Mapping[str, tuple[str | None, str | None]],
) -> AppealReport:
    """verdicts: item id -> (verdict, reason). Pure.

    What an appeal is against is the answer of reviewers before it, else the verdict; of a verdict `review` nobody had
    decided, so that a block upholds it.
    """
    decided: dict[str, int] = {}
    overturned: dict[str, int] = {}
    known = [appeal for appeal in appeals if appeal.item_id in verdicts]
    # Of an item that was appealed twice before anybody looked, reviewers get the last appeal: both are decided then.
    last = {appeal.item_id: appeal for appeal in known}
    for appeal in known:
        standing = standing_decisions(by_item.get(appeal.item_id, ()))
        place = _decided_at(standing, appeal, last[appeal.item_id])
        if place is None:
            continue
        before, rule = _before(standing[:place], verdicts[appeal.item_id])
        decided[rule] = decided.get(rule, 0) + 1
        overturned[rule] = overturned.get(rule, 0) + (standing[place].decision is not before)
    total, turned = sum(decided.values()), sum(overturned.values())
    rules = (RuleOverturns(rule=rule, decided=n, overturned=overturned[rule]) for rule, n in decided.items())
    return AppealReport(
        appeals=len(appeals),
        open=len(known) - total,
        upheld=total - turned,
        overturned=turned,
        unknown=len(appeals) - len(known),
        rules=tuple(sorted(rules, key=lambda rule: (-rule.overturned, -rule.decided, rule.rule))),
    )


def _decided_at(standing: Sequence[Decision], *appeals: Appeal) -> int | None:
    """The place of the first decision of the first of these appeals that has one."""
    places = (n for appeal in appeals for n, decision in enumerate(standing) if appeal.is_decided_by(decision))
    return next(places, None)


def read_reasons(run: StoredRun) -> dict[str, tuple[str | None, str | None]]:
    """Item id -> (verdict, reason)."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for shard_id in run.shard_ids:
        for row in run.read_present("verdicts", shard_id, ("item_id", "verdict", "reason")).to_pylist():
            found[row["item_id"]] = (row.get("verdict"), row.get("reason"))
    return found


def _before(earlier: Sequence[Decision], verdict: tuple[str | None, str | None]) -> tuple[Answer, str]:
    """What was decided before an appeal, and by which rule."""
    answers = given_answers(earlier)
    if answers:
        return settle(answers)[0].decision, REVIEWER
    machine = Answer.PASS if verdict[0] == Answer.PASS else Answer.BLOCK
    return machine, verdict[1] or "no reason"

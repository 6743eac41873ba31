"""Appeals: files that are read, what is kept, and what became of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.review.appeal_outcomes import REVIEWER, count_outcomes, report_appeals, take_appeals
from moderation.review.appeals import APPEAL, Appeal, read_appeals, read_appeals_file
from tests.reviewed_run import made, write_reviewed

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def run_of(folder: Path) -> str:
    return write_reviewed(folder, [made("a", weapon=0.6), made("b", gore=0.99)])


def test_appeals_are_read_from_csv_and_json_lines_and_kept_once(tmp_path: Path) -> None:
    out = run_of(tmp_path)
    (tmp_path / "a.csv").write_text("item_id,text,time\na,It is a toy.,2026-11-26T13:00:00Z\nb,,2026-11-27\n")
    (tmp_path / "a.jsonl").write_text('{"item_id": "a", "text": "It is a toy.", "time": "2026-11-26T14:00:00+01:00"}\n')
    assert take_appeals(out, str(tmp_path / "a.csv")) == 2
    # The same moment in another zone is the same appeal.
    assert take_appeals(out, str(tmp_path / "a.jsonl")) == 0
    assert [appeal.item_id for appeal in read_appeals(out)] == ["a", "b"]
    report = report_appeals(out)
    assert (report.appeals, report.open, report.overturn_rate) == (2, 2, None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "item,text,time\na,b,2026-11-26\n", "line 2: names no item: no `item_id`; did you mean 'item'"),
        ("a.csv", "item_id,text,time\na,b,yesterday\n", "line 2: `time` is 'yesterday', not a time"),
        ("a.csv", "item_id,text,time\nnone,b,2026-11-26\n", "the run has no item 'none'; nothing was taken in"),
        ("a.csv", f"item_id,text,time\na,{'x' * 5000},2026-11-26\n", "more than 4,096 characters"),
        ("a.csv", "item_id,text,time\n", "no appeals in it"),
        ("a.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("a.txt", "", r"appeals are read from .csv and .jsonl"),
    ],
)
def test_a_file_with_something_wrong_takes_nothing_in(tmp_path: Path, name: str, text: str, message: str) -> None:
    out = run_of(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        take_appeals(out, str(tmp_path / name))
    assert read_appeals(out) == []


def test_a_missing_file_of_appeals_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file of appeals"):
        read_appeals_file(str(tmp_path / "none.csv"))


def appeal(item: str) -> Appeal:
    return Appeal(item_id=item, text="no", time="2026-11-26T13:00:00+00:00")


def said(item: str, reviewer: str, answer: Answer, of: Appeal | None = None) -> Decision:
    more = {} if of is None else {"source": DecisionSource.APPEAL, "shown": {APPEAL: of.appeal}}
    return Decision(
        decision_id=f"{item}{reviewer}", item_id=item, decision=answer, reviewer=reviewer, decided_at=NOON, **more
    )  # type: ignore[arg-type] # keywords of the row


def test_outcomes_are_counted_by_the_rule_that_had_decided() -> None:
    verdicts = {
        "a": ("block", "negative:gore:block"), "b": ("block", "negative:gore:block"), "c": ("review", "null:x:review"),
        "d": ("block", "negative:gore:block"),
    }  # fmt: skip
    appeals = [appeal(item) for item in ("a", "b", "c", "d", "gone")]
    # How somebody answered a hidden item was never the decision.
    hidden = replace(said("a", "cy", Answer.PASS), source=DecisionSource.HIDDEN)
    by_item = {
        "a": [hidden, said("a", "bob", Answer.PASS, appeals[0])],
        "b": [said("b", "bob", Answer.BLOCK, appeals[1])],
        "c": [said("c", "ann", Answer.BLOCK), said("c", "bob", Answer.PASS, appeals[2])],
        "d": [said("d", "ann", Answer.BLOCK)],
    }
    # Two appeals before anybody looked are answered at once.
    twice = Appeal(item_id="b", text="please", time="2026-11-26T12:30:00+00:00")
    both = count_outcomes([twice, appeals[1]], by_item, verdicts)
    assert (both.appeals, both.open, both.upheld) == (2, 0, 2)
    report = count_outcomes(appeals, by_item, verdicts)
    assert (report.appeals, report.open, report.upheld, report.overturned, report.unknown) == (5, 1, 1, 2, 1)
    assert [(rule.rule, rule.decided, rule.overturned) for rule in report.rules] == [
        ("negative:gore:block", 2, 1),
        (REVIEWER, 1, 1),
    ]

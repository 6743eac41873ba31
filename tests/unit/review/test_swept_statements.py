"""What a sweep blocks in older runs has a statement, too, and counts in the numbers."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from moderation.analysis.sweep import SweepChange, sweep
from moderation.analysis.sweep_by_decision import CopyLimits
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import find_targets
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.entries import ListEntry, ListRule
from moderation.review.statements import export_statements
from moderation.review.transparency import report_transparency
from tests.finished_run import Made, write_run
from tests.statement_rules import RULE

LABELS = ("a.weapon", "pdq.quality")
POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.5, block: 0.9}
"""
GORE = {**RULE, "category": "STATEMENT_CATEGORY_ANIMAL_WELFARE"}
MAPPING = {
    "platform": "shop",
    "territory": "EU",
    "content_date": "uploaded",
    "checks": {"weapon": RULE, "gore": GORE},
    "lists": {"spam": {**RULE, "category": "STATEMENT_CATEGORY_SCAMS_AND_FRAUD"}},
}
DAY = {"uploaded": "2026-01-02"}


def picture(name: str, content: int, score: float = 0.1) -> Made:
    return Made(name=name, votes=[(score, 1.0)], attributes=DAY, content_hash=f"{content:064x}")


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    made = {
        "old": [picture("copy.jpg", 1), picture("unsure.jpg", 3, 0.7), picture("hot.jpg", 4, 0.95)],
        "new": [picture("bad.jpg", 1), picture("fine.jpg", 2)],
    }
    outs = [write_run(tmp_path / name, LABELS, items, POLICY) for name, items in made.items()]
    at = datetime(2026, 3, 4, 12, tzinfo=UTC)
    decision = Decision(
        decision_id="d1", item_id="bad.jpg", decision=Answer.BLOCK, reviewer="r", decided_at=at, labels=("gore",)
    )
    append_decisions(outs[1], [decision])
    return outs


def swept(runs: list[str], to: Path, change: SweepChange) -> str:
    sweep(find_sources(runs), change, str(to), as_of=date(2026, 11, 26), workers=1)
    return str(to)


def by_decision(runs: list[str], to: Path) -> str:
    targets = find_targets(find_sources(runs), ["bad.jpg"], None, embedding=None)
    return swept(runs, to, SweepChange(name="bad", targets=targets, limits=CopyLimits()))


def statements(tmp_path: Path, out: str) -> list[dict[str, Any]]:
    path = tmp_path / "dsa.yaml"
    path.write_text(json.dumps(MAPPING))
    report = export_statements(out, str(path), to=str(tmp_path / "statements.jsonl"))
    assert not report.incomplete
    return [json.loads(line) for line in Path(report.to).read_text().splitlines()]


def test_a_copy_of_what_a_person_blocked_is_stated_under_what_the_person_called_it(
    tmp_path: Path, runs: list[str]
) -> None:
    home = by_decision(runs, tmp_path / "swept")
    (copy,) = statements(tmp_path, home)  # bad.jpg itself is told of its own run
    assert copy["automated_decision"] == "AUTOMATED_DECISION_PARTIALLY"
    assert copy["category"] == GORE["category"]
    assert copy["decision_facts"].startswith("A copy of what a person blocked.")
    assert copy["content_date"] == "2026-01-02"
    ended = json.loads((Path(home) / "sweep.json").read_text())["ended_at"]
    assert copy["application_date"] == ended[:10]


def test_the_same_block_by_two_sweeps_has_one_id_and_a_repeated_sweep_its_first_day(
    tmp_path: Path, runs: list[str]
) -> None:
    first = by_decision(runs, tmp_path / "swept")
    (before,) = statements(tmp_path, first)
    record = Path(first) / "sweep.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "ended_at": "2026-03-05T00:00:00+00:00"}))
    (again,) = statements(tmp_path, by_decision(runs, tmp_path / "swept"))
    (other,) = statements(tmp_path, by_decision(runs[:1] + runs[1:], tmp_path / "other"))
    assert before["puid"] == again["puid"] == other["puid"]
    assert again["application_date"] == "2026-03-05"


def test_a_stricter_policy_states_what_it_blocks_anew(tmp_path: Path, runs: list[str]) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(POLICY.replace("block: 0.9", "block: 0.6"))
    home = swept(runs, tmp_path / "swept", SweepChange(name="strict", policy=load_whole_policy(strict)))
    (one,) = statements(tmp_path, home)
    assert (one["category"], one["automated_decision"]) == (RULE["category"], "AUTOMATED_DECISION_FULLY")


def test_what_is_gone_or_another_picture_by_now_is_an_error_line(tmp_path: Path, runs: list[str]) -> None:
    home = by_decision(runs, tmp_path / "swept")
    (Path(runs[0]) / "run.json").unlink()
    path = tmp_path / "dsa.yaml"
    path.write_text(json.dumps(MAPPING))
    report = export_statements(home, str(path), to=str(tmp_path / "statements.jsonl"))
    assert report.statements == 0
    assert report.incomplete == {"its run, or its part, is gone or was changed": 1}
    assert report_transparency([home]).unknown == 1


@pytest.mark.parametrize(("year", "count"), [(2026, 1), (2999, 0)])
def test_what_people_passed_before_the_sweep_is_stated_and_what_they_passed_since_is_not(
    year: int, count: int, tmp_path: Path, runs: list[str]
) -> None:
    at = datetime(year, 1, 1, tzinfo=UTC)
    earlier = Decision(decision_id="d0", item_id="copy.jpg", decision=Answer.PASS, reviewer="r", decided_at=at)
    append_decisions(runs[0], [earlier])
    assert len(statements(tmp_path, by_decision(runs, tmp_path / "swept"))) == count


def test_what_people_passed_while_it_ran_is_not_stated(tmp_path: Path, runs: list[str]) -> None:
    home = by_decision(runs, tmp_path / "swept")
    record = json.loads((Path(home) / "sweep.json").read_text())
    assert record["began_at"] < record["ended_at"] or record["began_at"][:19] == record["ended_at"][:19]
    began_at = datetime.fromisoformat(record["began_at"])
    ended_at = (began_at + timedelta(minutes=9)).isoformat()
    (Path(home) / "sweep.json").write_text(json.dumps({**record, "ended_at": ended_at}))
    at = began_at + timedelta(minutes=4)
    append_decisions(runs[0], [
        Decision(decision_id="d0", item_id="copy.jpg", decision=Answer.PASS, reviewer="r", decided_at=at)
    ])  # fmt: skip
    assert statements(tmp_path, home) == []


def test_the_note_of_a_list_s_entry_does_not_make_another_statement(tmp_path: Path, runs: list[str]) -> None:
    ids = set()
    for note in ("one", "two"):
        entry = ListEntry(value=f"{2:064x}", reason=note)
        rule = ListRule(action="deny", by="content_hash", entries=(entry,))
        (one,) = statements(tmp_path, swept(runs, tmp_path / note, SweepChange(name="spam", lists={"spam": rule})))
        ids.add(one["puid"])
        assert one["category"] == "STATEMENT_CATEGORY_SCAMS_AND_FRAUD"
    assert len(ids) == 1


def test_a_sweep_counts_in_the_numbers_once(tmp_path: Path, runs: list[str]) -> None:
    home = by_decision(runs, tmp_path / "swept")
    report = report_transparency([*runs, home, by_decision(runs, tmp_path / "again")])
    assert (report.items, report.restricted, report.unknown) == (5, 3, 0)  # hot.jpg, bad.jpg, and the copy
    assert report.automation == {
        "AUTOMATED_DECISION_FULLY": 1,
        "AUTOMATED_DECISION_NOT_AUTOMATED": 1,
        "AUTOMATED_DECISION_PARTIALLY": 1,
    }

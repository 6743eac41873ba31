"""Statements of reasons: one per item that is restricted in the end, in the database's fields; and numbers of runs."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.results.reader import load_policy_of_run, open_run
from moderation.review.appeals import Appeal, add_appeals
from moderation.review.statement_map import EEA, EU, read_statement_map
from moderation.review.statements import export_statements
from moderation.review.transparency import report_transparency
from tests.finished_run import RUN_ID, Made, write_run

POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.5, block: 0.9}
"""
RULE = {
    "ground": "incompatible",
    "reference": "Terms, 4.2",
    "explanation": "No weapons.",
    "category": "STATEMENT_CATEGORY_VIOLENCE",
}
MAPPING: dict[str, Any] = {
    "platform": "shop",
    "territory": "EU",
    "content_date": "uploaded",
    "checks": {"weapon": RULE},
    "default": {**RULE, "ground": "illegal", "category": "STATEMENT_CATEGORY_SELF_HARM"},
}
DAY = {"uploaded": "2026-01-02T03:04:05Z"}


def decided(name: str, answer: Answer) -> Decision:
    at = datetime(2026, 3, 4, 12, tzinfo=UTC)
    return Decision(decision_id=f"d-{name}", item_id=name, decision=answer, reviewer="r", decided_at=at)


@pytest.fixture
def out(tmp_path: Path) -> str:
    scores = {"machine": 0.95, "both": 0.6, "people": 0.1, "freed": 0.97, "fine": 0.1, "waits": 0.7}
    made = [Made(name=name, votes=[(score,)], attributes=DAY) for name, score in scores.items()]
    made.append(Made(name="undated", votes=[(0.99,)]))
    out = write_run(tmp_path, ("a.weapon",), made, POLICY)
    record = json.loads((Path(out) / "run.json").read_text())
    (Path(out) / "run.json").write_text(json.dumps({**record, "updated_at": "2026-03-04T02:00:00+00:00"}))
    append_decisions(
        out,
        [decided("both", Answer.BLOCK), decided("people", Answer.BLOCK), decided("freed", Answer.PASS)],
    )
    return out


def mapping(tmp_path: Path, **keys: Any) -> str:
    path = tmp_path / "dsa.yaml"
    path.write_text(json.dumps({**MAPPING, **keys}))
    return str(path)


def statements(out: str, path: str) -> list[dict[str, Any]]:
    report = export_statements(out, path)
    return [json.loads(line) for line in Path(report.to).read_text().splitlines()]


def test_what_is_restricted_in_the_end_has_a_statement(tmp_path: Path, out: str) -> None:
    report = export_statements(out, mapping(tmp_path))
    assert (report.statements, report.rows) == (3, 7)
    assert report.incomplete == {"its attribute 'uploaded' is not a day from 2000-01-01 on": 1}
    assert json.loads(Path(report.errors).read_text())["item_id"] == "undated"


def test_a_statement_says_how_it_came_about(tmp_path: Path, out: str) -> None:
    machine, both, people = statements(out, mapping(tmp_path))
    assert [one["automated_detection"] for one in (machine, both, people)] == ["Yes", "Yes", "No"]
    assert [one["automated_decision"].rpartition("DECISION_")[2] for one in (machine, both, people)] == [
        "FULLY",
        "PARTIALLY",
        "NOT_AUTOMATED",
    ]
    assert machine["category"] == "STATEMENT_CATEGORY_VIOLENCE"
    assert machine["decision_ground"] == "DECISION_GROUND_INCOMPATIBLE_CONTENT"
    assert (machine["content_date"], machine["application_date"]) == ("2026-01-02", "2026-03-04")
    assert machine["content_type"] == ["CONTENT_TYPE_IMAGE"] and machine["territorial_scope"] == list(EU)
    # Nobody but a reviewer objected: the mapping's default speaks.
    assert people["decision_ground"] == "DECISION_GROUND_ILLEGAL_CONTENT"
    assert people["decision_facts"] == "A person decided."


def test_ids_are_unique_stable_and_of_allowed_characters(tmp_path: Path, out: str) -> None:
    first, again = (statements(out, mapping(tmp_path)) for _ in range(2))
    ids = [one["puid"] for one in first]
    assert ids == [one["puid"] for one in again] and len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,500}", one) for one in ids)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"platfrom": "x"}, "did you mean 'platform'"),
        ({"checks": {"weapons": RULE}}, "did you mean 'weapon'"),
        ({"checks": {}, "default": None}, "nothing for weapon"),
        ({"checks": {"weapon": {**RULE, "category": "STATEMENT_CATEGORY_VIOLENT"}}}, "STATEMENT_CATEGORY_VIOLENCE"),
        ({"territory": ["AT", "UK"]}, "no 'UK'"),
        ({"platform": "a b"}, "platform"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path: Path, out: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_statement_map(Path(mapping(tmp_path, **keys)), load_policy_of_run(open_run(out)))


def test_the_database_takes_thirty_countries() -> None:
    assert len(EEA) == 30 and len(EU) == 27


def test_numbers_for_a_transparency_report(tmp_path: Path, out: str) -> None:
    appeal = Appeal(item_id="machine", text="mine", time="2026-03-05T00:00:00+00:00")
    add_appeals(out, [appeal, Appeal(item_id="both", text="please", time="2026-03-05T00:00:00+00:00")])
    report = report_transparency([out], mapping(tmp_path))
    assert (report.items, report.restricted, report.by_people, report.overturned) == (7, 4, 3, 2)
    assert report.automated_share == 0.5
    assert report.categories == {"STATEMENT_CATEGORY_VIOLENCE": 3, "STATEMENT_CATEGORY_SELF_HARM": 1}
    assert report.hours_to_decision == 10.0
    assert (report.appeals, report.appeals_open) == (2, 2)
    assert report_transparency([out]).categories == {"weapon": 3, "default:pass": 1}
    assert RUN_ID and not report.certificates


def test_a_run_counts_once(out: str) -> None:
    with pytest.raises(UsageError, match="stands twice"):
        report_transparency([out, f"{out}/"])

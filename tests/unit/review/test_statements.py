"""Statements of reasons: one per item that is restricted in the end, in the database's fields; and numbers of runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.results.reader import load_policy_of_run, open_run
from moderation.review.appeals import Appeal, add_appeals
from moderation.review.statement_map import CATEGORIES, EEA, EU, KEYWORDS, SOURCES, VISIBILITIES, read_statement_map
from moderation.review.statements import export_statements
from moderation.review.transparency import report_transparency
from tests.finished_run import RUN_ID, Made, write_run
from tests.statement_rules import RULE

POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.5, block: 0.9}
"""
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


def test_a_statement_names_a_list_but_nobody_from_the_note_of_its_entry(tmp_path: Path) -> None:
    """The database is public. A learned entry's note says who decided."""
    (tmp_path / "spam.csv").write_text("value,reason\neve,told by anna\n")
    listed = f"{POLICY}lists: {{spam: {{action: deny, by: owner, from: {tmp_path}/spam.csv}}}}\n"
    made = Made(name="x", votes=[(0.1,)], attributes={**DAY, "owner": "eve"})
    out = write_run(tmp_path / "run", ("a.weapon",), [made], listed)
    record = json.loads((Path(out) / "run.json").read_text())
    (Path(out) / "run.json").write_text(json.dumps({**record, "updated_at": "2026-03-04T02:00:00+00:00"}))
    (one,) = statements(out, mapping(tmp_path))
    assert one["decision_facts"] == "On the list spam. The decision was taken by automated means."


def test_the_ground_is_that_of_what_the_reviewer_called_it(tmp_path: Path, out: str) -> None:
    """The machine asked about a weapon, or passed it; the reviewer saw gore."""
    rules = {"weapon": RULE, "gore": {**RULE, "category": "STATEMENT_CATEGORY_ANIMAL_WELFARE"}}
    with_gore = POLICY + "  gore: {side: negative, votes: [a.gore], review: 0.5, null: ignore}\n"
    made = [Made(name=name, votes=[(score, None)], attributes=DAY) for name, score in (("both", 0.6), ("people", 0.1))]
    out = write_run(tmp_path / "run", ("a.weapon", "a.gore"), made, with_gore)
    append_decisions(out, [replace(decided(one.name, Answer.BLOCK), labels=("gore",)) for one in made])
    path = mapping(tmp_path, checks=rules)
    assert {one["category"] for one in statements(out, path)} == {"STATEMENT_CATEGORY_ANIMAL_WELFARE"}
    assert report_transparency([out], path).categories == {"STATEMENT_CATEGORY_ANIMAL_WELFARE": 2}
    assert report_transparency([out]).categories == {"gore": 2}


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
        ({"territory": ["EU"]}, "EU is not a country"),
        ({"territory": []}, "no country"),
        ({"checks": {"weapon": {**RULE, "keywords": ["KEYWORD_NUDE"]}}}, "KEYWORD_NUDITY"),
        ({"checks": {"weapon": {**RULE, "keywords": ["KEYWORD_OTHER"]}}}, "needs a text"),
        ({"platform": "a b"}, "platform"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path: Path, out: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_statement_map(Path(mapping(tmp_path, **keys)), load_policy_of_run(open_run(out)))


ILLEGAL = {"illegal_content_legal_ground": 500, "illegal_content_explanation": 2000}
INCOMPATIBLE = {"incompatible_content_ground": 500, "incompatible_content_explanation": 2000}
REQUIRED = {
    "puid", "decision_visibility", "decision_ground", "category", "content_type", "content_date", "territorial_scope",
    "application_date", "decision_facts", "source_type", "automated_detection", "automated_decision",
}  # fmt: skip


def assert_fits_the_schema(one: dict[str, Any]) -> None:
    """As the database's documentation has it: names, enumerations, lengths, days."""
    is_illegal = one["decision_ground"] == "DECISION_GROUND_ILLEGAL_CONTENT"
    assert is_illegal or one["decision_ground"] == "DECISION_GROUND_INCOMPATIBLE_CONTENT"
    texts = ILLEGAL if is_illegal else INCOMPATIBLE
    optional = {"category_specification", *(() if is_illegal else ("incompatible_content_illegal",))}
    assert REQUIRED | set(texts) <= set(one) <= REQUIRED | set(texts) | optional
    assert all(0 < len(one[name]) <= most for name, most in {**texts, "decision_facts": 5000}.items())
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,500}", one["puid"])
    assert one["category"] in CATEGORIES and set(one.get("category_specification", ())) <= set(KEYWORDS)
    assert one["decision_visibility"] and set(one["decision_visibility"]) <= set(VISIBILITIES)
    assert set(one["content_type"]) <= {"CONTENT_TYPE_IMAGE", "CONTENT_TYPE_VIDEO"} and one["content_type"]
    assert one["territorial_scope"] and set(one["territorial_scope"]) <= set(EEA)
    assert date.fromisoformat(one["content_date"]) >= date(2000, 1, 1)
    assert date.fromisoformat(one["application_date"]) >= date(2020, 1, 1)
    assert one["source_type"] in SOURCES and one["automated_detection"] in ("Yes", "No")
    assert one.get("incompatible_content_illegal", "No") in ("Yes", "No")
    assert one["automated_decision"] in {f"AUTOMATED_DECISION_{n}" for n in ("FULLY", "PARTIALLY", "NOT_AUTOMATED")}


def test_every_statement_fits_the_schema_of_the_database(tmp_path: Path, out: str) -> None:
    keywords = ["KEYWORD_UNSAFE_PRODUCTS", "KEYWORD_NUDITY"]
    longest = {**RULE, "reference": "r" * 500, "explanation": "e" * 2000, "keywords": keywords, "also_illegal": True}
    made = statements(out, mapping(tmp_path, platform="p" * 64, checks={"weapon": longest}))
    assert len(made) == 3
    for one in made:
        assert_fits_the_schema(one)


def test_the_database_has_so_many_words() -> None:
    assert (len(CATEGORIES), len(KEYWORDS), len(VISIBILITIES)) == (16, 68, 7)
    assert len(set(KEYWORDS)) == len(KEYWORDS)


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
    assert report_transparency([out]).categories == {"weapon": 3, "a reviewer, without a word": 1}
    assert RUN_ID and not report.certificates


def test_a_run_counts_once(out: str) -> None:
    with pytest.raises(UsageError, match="stands twice"):
        report_transparency([out, f"{out}/"])

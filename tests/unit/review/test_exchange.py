"""Decisions to other programs and back: the round trip, the schema of Label Studio, and files with something wrong."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions, read_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.review.exporting import ENDINGS, export_review
from moderation.review.filters import QueueFilter
from moderation.review.importing import ImportReport, import_decisions
from moderation.review.label_studio import label_config
from moderation.review.plain_exchange import COLUMNS, as_csv, decision_cells, read_csv
from moderation.types import Kind
from tests.reviewed_run import made, write_reviewed

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
ALL = QueueFilter()
# What the documentation of Label Studio says of a task with annotations: labelstud.io/guide/task_format, and
# `TaskValue`, `AnnotationValue`, `PredictionValue` of its SDK 2.1.2.
REGION = {
    "type": "object",
    "required": ["id", "from_name", "to_name", "type", "value"],
    "properties": {
        "id": {"type": "string"},
        "type": {"enum": ["choices", "textarea"]},
        "value": {
            "type": "object",
            "properties": {
                "choices": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "text": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            },
            "additionalProperties": False,
            "minProperties": 1,
        },
    },
}
TASKS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["data", "annotations", "predictions"],
        "properties": {
            "data": {"type": "object"},
            "annotations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["completed_by", "result", "was_cancelled", "ground_truth"],
                    "properties": {
                        "completed_by": {"type": "integer"},
                        "was_cancelled": {"type": "boolean"},
                        "ground_truth": {"type": "boolean"},
                        "lead_time": {"type": ["number", "null"]},
                        "result_count": {"type": "integer"},
                        "created_at": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"},
                        "result": {"type": "array", "items": REGION},
                    },
                },
            },
            "predictions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["model_version", "result"],
                    "properties": {
                        "score": {"type": "number", "minimum": 0, "maximum": 1},
                        "result": {"type": "array", "items": REGION},
                    },
                },
            },
        },
    },
}


def run_of(folder: Path) -> str:
    items = [made("a.png", weapon=0.6), made("b.png", weapon=0.1), made("c.png", gore=0.99), made("d.png", weapon=0.4)]
    return write_reviewed(folder, [*items, made("v.mp4", weapon=0.6, kind=Kind.VIDEO)])


def said(number: int, item: str, answer: Answer = Answer.BLOCK, **more: object) -> Decision:
    values = {"reviewer": "ann", "decided_at": NOON + timedelta(seconds=number), "exposure_s": 1.5, **more}
    return Decision(decision_id=f"d{number}", item_id=item, decision=answer, uri="", **values)  # type: ignore[arg-type] # keywords of the row


def decided(folder: Path) -> str:
    out = run_of(folder)
    append_decisions(
        out,
        [
            said(1, "a.png", labels=("gore", "weapon"), comment="=1+1\n2", reason="minor", shown={"verdict": "review"}),
            said(2, "b.png", Answer.PASS, source=DecisionSource.AUDIT, expert=True, reviewer="eve"),
            said(3, "a.png", Answer.SKIP, reviewer="bob"),
            said(4, "v.mp4", Answer.ESCALATE, exposure_s=None),
            said(5, "v.mp4", Answer.SKIP, undoes="d4"),
            said(6, "c.png"),
        ],
    )
    return out


def stripped(decision: Decision) -> dict[str, Any]:
    """What every format carries: not what the run knows of the item."""
    return {**decision_cells(decision), "uri": ""}


@pytest.mark.parametrize("format_", ["jsonl", "label-studio"])
def test_what_was_decided_of_another_picture_is_still_to_do(tmp_path: Path, format_: str) -> None:
    out = write_reviewed(tmp_path, [made("a.png", weapon=0.6, content_hash="new")])
    append_decisions(out, [replace(said(1, "a.png"), content_hash="old")])
    path = str(tmp_path / f"d{ENDINGS[format_]}")
    assert export_review(out, path, format_, ALL, todo=True).items == 1
    assert b"d1" not in Path(path).read_bytes()
    if format_ == "label-studio":
        assert export_review(out, path, format_, ALL, todo=False).items == 0


@pytest.mark.parametrize("format_", ["jsonl", "csv"])
def test_decisions_come_back_whole_from_our_own_formats(tmp_path: Path, format_: str) -> None:
    out, other = decided(tmp_path / "one"), run_of(tmp_path / "two")
    path = str(tmp_path / f"d.{format_}")
    assert export_review(out, path, format_, ALL, todo=False).decisions == 6
    assert import_decisions(other, path, format_, NOON) == ImportReport(written=6, repeated=0, blank=0)
    assert list(map(stripped, read_decisions(other))) == list(map(stripped, read_decisions(out)))
    assert import_decisions(other, path, format_, NOON).repeated == 6


def test_label_studio_gets_tasks_of_its_schema_and_gives_the_answers_back(tmp_path: Path) -> None:
    out, other = decided(tmp_path / "one"), run_of(tmp_path / "two")
    report = export_review(out, str(tmp_path / "t.json"), "label-studio", ALL, todo=False)
    tasks = json.loads((tmp_path / "t.json").read_text())
    jsonschema.validate(tasks, TASKS)
    assert report.decisions == 4 and report.items == 3
    import_decisions(other, str(tmp_path / "t.json"), "label-studio", NOON)
    back = {d.decision_id: d for d in read_decisions(other)}
    kept = ("item_id", "decision", "reviewer", "labels", "comment", "reason", "source", "expert", "decided_at")
    for decision in read_decisions(out):
        if decision.decision_id in ("d1", "d2", "d3", "d6"):
            assert [getattr(back[decision.decision_id], name) for name in kept] == [
                getattr(decision, name) for name in kept
            ]


@pytest.mark.skipif(importlib.util.find_spec("label_studio_sdk") is None, reason="label-studio-sdk is not installed")
def test_the_sdk_of_label_studio_accepts_tasks_and_configurations(tmp_path: Path) -> None:
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.objects import TaskValue

    out = decided(tmp_path)
    done = export_review(out, str(tmp_path / "t.json"), "label-studio", ALL, todo=False)
    todo = export_review(run_of(tmp_path / "todo"), str(tmp_path / "todo.json"), "label-studio", ALL, todo=True)
    for file in (*done.files, *todo.files):
        interface = LabelInterface(Path(file).with_suffix(".xml").read_text())
        interface.validate()
        for task in json.loads(Path(file).read_text()):
            TaskValue.model_validate(task)
            assert all(interface.validate_annotation(annotation) for annotation in task["annotations"])
            assert all(interface.validate_prediction(prediction) for prediction in task["predictions"])


def test_tasks_to_do_show_no_verdict_of_the_audit(tmp_path: Path) -> None:
    out = run_of(tmp_path)
    export_review(out, str(tmp_path / "t.json"), "label-studio", ALL, todo=True)
    tasks = {t["data"]["item_id"]: t for t in json.loads((tmp_path / "t.json").read_text())}
    assert set(tasks) == {"a.png", "b.png", "c.png"}
    assert set(tasks["b.png"]["data"]) == {"image", "item_id", "uri", "kind", "audit"}
    assert tasks["b.png"]["predictions"] == [] and tasks["a.png"]["data"]["verdict"] == "review"
    videos = json.loads((tmp_path / "t.video.json").read_text())
    assert "video" in videos[0]["data"] and "<Video" in (tmp_path / "t.video.xml").read_text()


def test_an_annotation_of_another_picture_is_refused(tmp_path: Path) -> None:
    one, two = (
        write_reviewed(tmp_path / content, [made("a.png", weapon=0.6, content_hash=content)])
        for content in ("old", "new")
    )
    append_decisions(one, [replace(said(1, "a.png"), content_hash="old")])
    export_review(one, str(tmp_path / "t.json"), "label-studio", ALL, todo=False)
    with pytest.raises(UsageError, match="other content"):
        import_decisions(two, str(tmp_path / "t.json"), "label-studio", NOON)
    assert read_decisions(two) == []


def test_an_annotation_that_was_changed_is_a_decision_of_who_changed_it(tmp_path: Path) -> None:
    out = decided(tmp_path)
    export_review(out, str(tmp_path / "t.json"), "label-studio", ALL, todo=False)
    tasks = json.loads((tmp_path / "t.json").read_text())
    task = next(task for task in tasks if task["data"]["item_id"] == "c.png")
    (annotation,) = task["annotations"]
    annotation["result"][0]["value"]["choices"] = ["pass"]
    annotation["completed_by"] = {"id": 7, "email": "a@example.org"}
    (tmp_path / "t.json").write_text(json.dumps(tasks))
    assert import_decisions(out, str(tmp_path / "t.json"), "label-studio", NOON).written == 1
    latest = read_decisions(out)[-1]
    assert (latest.reviewer, latest.decision, latest.source) == ("label-studio-7", Answer.PASS, DecisionSource.IMPORT)


def test_urls_of_media_are_rewritten_for_the_annotators_browser(tmp_path: Path) -> None:
    out = run_of(tmp_path)
    url = (f"{tmp_path}/in/", "/data/local-files/?d=")
    export_review(out, str(tmp_path / "t.json"), "label-studio", ALL, todo=True, url=url)
    images = [task["data"]["image"] for task in json.loads((tmp_path / "t.json").read_text())]
    assert "/data/local-files/?d=a.png" in images


def test_a_list_to_fill_in_is_read_back_as_far_as_it_is_filled_in(tmp_path: Path) -> None:
    out, path = run_of(tmp_path), tmp_path / "todo.csv"
    report = export_review(out, str(path), "csv", ALL, todo=True)
    lines = path.read_text().splitlines()
    assert report.items == len(lines) - 1 == 4 and lines[0].split(",") == list(COLUMNS)
    place = COLUMNS.index("decision")
    cells = lines[1].split(",")
    cells[place] = "Pass"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    assert import_decisions(out, str(path), "csv", NOON, reviewer="cy") == ImportReport(written=1, repeated=0, blank=3)
    (kept,) = read_decisions(out)
    assert (kept.reviewer, kept.decision, kept.source) == ("cy", Answer.PASS, DecisionSource.IMPORT)
    # Decided items are not on the next list.
    assert export_review(out, str(path), "csv", ALL, todo=True).items == 3


@pytest.mark.parametrize("format_", ["jsonl", "label-studio"])
def test_what_was_only_skipped_or_escalated_is_still_to_do(tmp_path: Path, format_: str) -> None:
    out = write_reviewed(tmp_path / "run", [made(name, weapon=0.6) for name in "abcd"])
    choices = {"a": Answer.SKIP, "b": Answer.ESCALATE, "c": Answer.PASS}
    append_decisions(
        out,
        [
            Decision(decision_id=item, item_id=item, decision=choice, reviewer="ann", decided_at=NOON)
            for item, choice in choices.items()
        ],
    )
    path = tmp_path / {"jsonl": "t.jsonl", "label-studio": "t.json"}[format_]
    report = export_review(out, str(path), format_, ALL, todo=True)
    assert (report.decisions, report.items) == (0, 3)
    rows = json.loads(path.read_text()) if format_ == "label-studio" else list(map(json.loads, path.open()))
    named = {row["data"]["item_id"] if "data" in row else row["item_id"] for row in rows}
    assert named == {"a", "b", "d"} and not any(row.get("annotations") for row in rows)


def test_a_file_cannot_make_an_item_one_of_the_audit(tmp_path: Path) -> None:
    out, path = run_of(tmp_path), tmp_path / "d.csv"
    path.write_text("item_id,decision,source\na.png,pass,audit\nb.png,pass,audit\n")
    import_decisions(out, str(path), "csv", NOON)
    assert [d.source for d in read_decisions(out)] == [DecisionSource.IMPORT, DecisionSource.AUDIT]


@pytest.mark.parametrize("format_", ["jsonl", "csv"])
def test_an_answer_about_other_content_is_refused_and_nothing_is_written(tmp_path: Path, format_: str) -> None:
    out = write_reviewed(tmp_path / "out", [made(name, weapon=0.6, content_hash="b" * 64) for name in ("a", "b")])
    rows = [{"item_id": "a", "decision": "pass", "content_hash": digit * 64} for digit in "Bb"]
    wrong = {"item_id": "b", "decision": "pass", "content_hash": "a" * 64}
    path = tmp_path / f"d.{format_}"
    texts = {
        "jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
        "csv": lambda rows: "\n".join(",".join(row) for row in [rows[0].keys(), *(row.values() for row in rows)]),
    }
    path.write_text(texts[format_]([*rows, wrong]))
    with pytest.raises(UsageError, match="'b' has other content in this run: `content_hash` differs"):
        import_decisions(out, str(path), format_, NOON)
    assert read_decisions(out) == []
    path.write_text(texts[format_](rows[:1]))
    assert import_decisions(out, str(path), format_, NOON).written == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.csv", "item_id,decison\na.png,pass\n", "no column `decision`; did you mean 'decison'"),
        ("d.csv", "id,decision\na.png,pass\n", "no column `item_id` or `uri`"),
        ("d.csv", "item_id,decision\na.png,blok\n", "row 2: no decision 'blok'; did you mean 'block'"),
        ("d.csv", "item_id,decision\nnone.png,pass\n", "row 2: the run has no item 'none.png'"),
        ("d.csv", "item_id,decision\n,pass\n", "row 2: names no item"),
        ("d.csv", "item_id,decision\na.png\n", "row 2: not 2 cells"),
        ("d.csv", "item_id,decision,decided_at\na.png,pass,noon\n", "`decided_at` is 'noon', not a time"),
        ("d.csv", "item_id,decision,exposure_s\na.png,pass,long\n", "`exposure_s` is 'long', not a number"),
        ("d.csv", "item_id,decision,exposure_s\na.png,pass,nan\n", "`exposure_s` is not a time"),
        ("d.csv", "item_id,decision,expert\na.png,pass,maybe\n", "neither true nor false"),
        ("d.csv", "item_id,decision,source\na.png,pass,que\n", "no source 'que' of a decision; did you mean 'queue'"),
        ("d.csv", "item_id,decision,shown\na.png,pass,x\n", "`shown` is not a JSON object"),
        ("d.csv", "", "no column `decision`"),
        ("d.jsonl", "[]\n", "row 1: not a JSON object"),
        ("d.jsonl", '{"item_id": ["a"], "decision": "pass"}', "`item_id` is not text"),
        ("d.jsonl", '{"item_id": "a.png", "decision": "pass", "labels": [1]}', "`labels` are not words"),
        ("d.json", "{}", "expected a list of tasks"),
        ("d.json", "nonsense", "not JSON"),
        ("d.json", '[{"data": {}, "decision": "pass"}]', "export it as JSON, not as JSON-MIN"),
        ("d.json", '[{"data": 1, "annotations": []}]', "row 1: not a task"),
        ("d.json", '[{"data": {}, "annotations": [7]}]', "row 1: an annotation that is not an object"),
    ],
)
def test_a_file_with_something_wrong_imports_nothing(tmp_path: Path, name: str, text: str, message: str) -> None:
    out = run_of(tmp_path)
    (tmp_path / name).write_text(text)
    format_ = {".csv": "csv", ".jsonl": "jsonl", ".json": "label-studio"}[Path(name).suffix]
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        import_decisions(out, str(tmp_path / name), format_, NOON)
    assert read_decisions(out) == []


@pytest.mark.parametrize("format_", ["jsonl", "csv", "label-studio"])
def test_ids_that_look_like_formulas_or_end_in_spaces_come_back(tmp_path: Path, format_: str) -> None:
    names = ["-dQw4w9.jpg", "=1+1", "a;=b", " lead.jpg", "trail.jpg ", "'=x", "عربي.jpg"]
    out = write_reviewed(tmp_path, [made(name, weapon=0.6) for name in names])
    append_decisions(out, [said(n, name) for n, name in enumerate(names)])
    path = str(tmp_path / f"d{ENDINGS[format_]}")
    export_review(out, path, format_, ALL, todo=False)
    assert import_decisions(out, path, format_, NOON) == ImportReport(written=0, repeated=len(names), blank=0)


def test_markup_in_a_word_stays_text_in_the_configuration() -> None:
    config = label_config("image", ['"/><Style>'])
    assert "<Style>" not in config and "&lt;Style&gt;" in config


TEXT = st.text(st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("=+-@;\t\r\n '")), max_size=20)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_any_text_comes_back_from_csv(texts: list[tuple[str, str]]) -> None:
    decisions = [said(n, "i", comment=comment, reason=reason) for n, (comment, reason) in enumerate(texts)]
    rows = list(read_csv(as_csv(map(decision_cells, decisions)), "d.csv"))
    back = [(cells["comment"], cells["reason"]) for _, cells in rows if isinstance(cells, dict)]
    assert back == [(decision.comment, decision.reason) for decision in decisions]

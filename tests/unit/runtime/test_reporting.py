"""`moderation report`: a run, two runs, nights; and what it says of a wrong call."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.results.summary import summarise
from moderation.review.appeals import Appeal, add_appeals, read_appeals
from moderation.runtime.reporting import (
    keep_nights_page,
    night_before,
    read_answers,
    read_appeal_figures,
    report_extras,
    write_nights_page,
)
from tests.finished_run import Made, write_run
from tests.job_runs import make_pictures, run_job

POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask], fuse: max, review: 0.5, block: 0.9}
"""
NIGHTS = ("20261101-021500-aa", "20261102-021500-bb", "20261103-021500-cc")


def made_run(folder: Path, score: float = 0.6) -> str:
    items = [Made(name=f"{n:04}.png", votes=[(score,)]) for n in range(4)]
    out = write_run(folder, ("a.mask",), items, POLICY)
    (Path(out) / "summary.json").write_text(json.dumps(summarise([], {}) | {"items": 4}))
    return out


def make_nights(root: Path) -> None:
    for name in NIGHTS:
        (root / name).mkdir(parents=True)
        (root / name / "run.json").write_text(json.dumps({"state": "done"}))
        summary = summarise([], {"nightly": {"new": 4}}) | {"items": 4, "verdicts": {"review": 4}}
        (root / name / "summary.json").write_text(json.dumps(summary))


def test_the_report_of_a_run_is_written_again_with_its_pictures(tmp_path: Path) -> None:
    out = made_run(tmp_path)
    make_pictures(tmp_path / "in", 4)
    ended = run_job("report", out)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"{out}/report.html"
    assert Path(out, "report.html").read_text().count("data:image/jpeg;base64,") == 4
    assert run_job("report", out, "--thumbnails", "0", "--to", str(tmp_path / "x.html")).returncode == 0
    assert "data:image/jpeg" not in (tmp_path / "x.html").read_text()


def test_the_report_counts_what_reviewers_decided(tmp_path: Path) -> None:
    out = made_run(tmp_path)

    def decide(number: int, answer: Answer, **changes: Any) -> Decision:
        whole = {"decision_id": f"d{number}", "item_id": f"{number % 2:04}.png", "decided_at": datetime.now(UTC)}
        return Decision(**(whole | {"decision": answer, "reviewer": "fox"} | changes))

    assert read_answers(out) == {}
    first, second = decide(0, Answer.BLOCK), decide(1, Answer.PASS)
    append_decisions(out, [first, second, decide(2, Answer.PASS), decide(3, Answer.SKIP, undoes="d1")])
    assert read_answers(out) == {"0000.png": "pass"}
    assert run_job("report", out, "--thumbnails", "0").returncode == 0
    page = Path(out, "report.html").read_text()
    assert (
        "What reviewers decided" in page
        and "negative:mask:review" in page
        and "1 item is decided by reviewers so far." in page
    )
    next(Path(out, "decisions").glob("*.arrow")).write_bytes(b"x")
    assert read_answers(out) == {}


def test_the_report_says_what_became_of_appeals_by_rule(tmp_path: Path) -> None:
    out = made_run(tmp_path)
    assert read_appeal_figures(out) is None
    appeals = [Appeal(item_id=f"000{n}.png", text="<b>mine", time="2026-11-26T10:00:00Z") for n in (0, 1)]
    add_appeals(out, appeals)
    kept = next(appeal for appeal in read_appeals(out) if appeal.item_id == "0000.png")
    decided = Decision(
        decision_id="d1", item_id="0000.png", decision=Answer.PASS, reviewer="fox", source=DecisionSource.APPEAL,
        decided_at=datetime.now(UTC), shown={"appeal": kept.appeal},
    )  # fmt: skip
    append_decisions(out, [decided])
    figures = read_appeal_figures(out)
    assert figures is not None
    assert (figures.open, figures.upheld, figures.overturned) == (1, 0, 1)
    assert figures.rules == [("negative:mask:review", 1, 1)]
    assert run_job("report", out, "--thumbnails", "0").returncode == 0
    assert "1 overturned · 0 upheld · 1 open" in Path(out, "report.html").read_text()
    Path(out, "review", "appeals.jsonl").write_bytes(b"{")
    assert read_appeal_figures(out) is None


def test_two_runs_are_held_side_by_side(tmp_path: Path) -> None:
    first, second = made_run(tmp_path / "a"), made_run(tmp_path / "b", 0.1)
    ended = run_job("report", first, second)
    assert ended.returncode == 0, ended.stderr
    assert "4 of 4 common items moved" in ended.stdout and "review -> pass: 4" in ended.stdout
    assert "4 items of 4 moved" in Path(second, "comparison.html").read_text()
    told = json.loads(run_job("report", first, second, "--json").stdout)
    assert told["moved"] == {"review -> pass": 4}


def test_the_out_of_a_nightly_job_has_a_page_of_its_nights(tmp_path: Path) -> None:
    make_nights(tmp_path)
    ended = run_job("report", tmp_path)
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "index.html").read_text()
    assert "3 nights" in page and "20261103-021500-cc/report.html" in page
    assert run_job("report", tmp_path, "--thumbnails", "3").returncode == 2


def test_a_folder_without_nights_has_no_page_and_a_night_ends_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no nights there"):
        write_nights_page(str(tmp_path))
    keep_nights_page(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_night_before_is_the_newest_that_judged_something(tmp_path: Path) -> None:
    make_nights(tmp_path)
    assert night_before(str(tmp_path), NIGHTS[2]) == f"{tmp_path}/{NIGHTS[1]}"
    assert night_before(str(tmp_path), NIGHTS[0]) is None
    (tmp_path / NIGHTS[1] / "run.json").write_text(json.dumps({"state": "failed"}))
    assert night_before(str(tmp_path), NIGHTS[2]) == f"{tmp_path}/{NIGHTS[0]}"


def test_an_earlier_run_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert report_extras(before=str(tmp_path / "none")).before is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("report", "Missing argument"),
        ("report a b c", "3 runs"),
        ("report a --json", "--json is of a comparison"),
        ("report a b --thumbnails 3", "--thumbnails is of the report of one run"),
        ("report a b --against c", "--against is of the report of one run"),
        ("report a", "not the output of a run"),
        ("report a b", "not the output of a run"),
        ("report a --thumbnails 999", "less than or equal to 200"),
        ("report a --object-url javascript:x", "report: object_url: "),
    ],
)
def test_a_wrong_call_is_a_sentence(call: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run_job(*call.split())
    assert ended.returncode == 2 and words in ended.stderr + ended.stdout, ended.stderr
    assert not list(tmp_path.iterdir())

"""What became of the nights, below OUT and in a ledger; and what to do next."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.errors import UsageError
from moderation.ledger.nights import MAX_QUIET, note_quiet, read_nights, read_quiet
from moderation.runtime.reporting import write_nights_page
from moderation.storage.lease import hold_lease
from moderation.types import Verdict

FIRST, SECOND, THIRD = (f"2026112{n}-020000-aaaaaa" for n in (1, 2, 3))


def make_night(root: Path, night: str, state: str = "done", **counts: int) -> None:
    folder = root / night
    folder.mkdir(parents=True)
    error = {"error": "the bucket is gone"} if state == "failed" else {}
    (folder / "run.json").write_text(json.dumps({"run_id": "x", "state": state, **error}))
    told = {"night": night, "ledger": str(root.parent / "ledger"), "looked_at": 9, **counts}
    verdicts = {str(verdict): 1 for verdict in Verdict}
    (folder / "summary.json").write_text(
        json.dumps({"items": 3, "verdicts": verdicts, "error_rate": 0.25, "nightly": told})
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_night(tmp_path / "out", FIRST, new=9)
    make_night(tmp_path / "out", THIRD, new=1, changed=2, deleted=1, unchanged=6)
    note_quiet(str(tmp_path / "out"), SECOND, {"looked_at": 9, "unchanged": 9})
    return tmp_path / "out"


def test_nights_are_told_in_order_with_the_quiet_ones(root: Path) -> None:
    nights = read_nights(str(root))
    assert nights is not None
    assert [(n.night, n.state) for n in nights.nights] == [(FIRST, "done"), (SECOND, "quiet"), (THIRD, "done")]
    assert nights.nights[2].counts == {"looked_at": 9, "new": 1, "changed": 2, "unchanged": 6, "deleted": 1}
    assert nights.advice == "nothing to do: the newest night is done"
    assert nights.ledger == str(root.parent / "ledger")


@pytest.mark.parametrize(("state", "advice"), [("failed", "is failed: the same"), ("partial", "is partial: the same")])
def test_a_night_that_did_not_end_is_to_be_gone_on_with(root: Path, state: str, advice: str) -> None:
    make_night(root, "20261124-020000-aaaaaa", state)
    nights = read_nights(str(root))
    assert nights is not None
    assert advice in nights.advice
    shown = CliRunner().invoke(app, ["status", str(root)])
    assert advice in " ".join(shown.stdout.split())
    assert ("the bucket is gone" in shown.stdout) is (state == "failed")


def test_an_unfinished_night_of_the_ledger_comes_first(root: Path) -> None:
    ledger = root.parent / "ledger"
    ledger.mkdir()
    (ledger / "unfinished.json").write_text(json.dumps({"night": THIRD, "out": str(root)}))
    of_root, of_ledger = read_nights(str(root)), read_nights(str(ledger))
    assert of_root is not None
    assert of_ledger is not None
    assert f"night {THIRD} is not finished" in of_root.advice
    assert of_ledger.advice == of_root.advice
    assert [(n.night, n.state, n.out) for n in of_ledger.nights] == [(THIRD, "unfinished", f"{root}/{THIRD}")]


def test_a_night_at_work_is_told_from_one_whose_job_died(tmp_path: Path) -> None:
    ledger, folder = str(tmp_path / "ledger"), tmp_path / "out" / FIRST
    folder.mkdir(parents=True)
    # As a first night leaves it that was killed: no summary knows the ledger yet.
    record = {"run_id": "x", "state": "running", "identity": {"ledger": ledger}}
    (folder / "run.json").write_text(json.dumps(record))
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "unfinished.json").write_text(json.dumps({"night": FIRST, "out": str(tmp_path / "out")}))
    with hold_lease(ledger):
        for place in (tmp_path / "out", tmp_path / "ledger"):
            shown = " ".join(CliRunner().invoke(app, ["status", str(place)]).stdout.split())
            assert f"night {FIRST} is being judged by process {os.getpid()} on" in shown
    died = " ".join(CliRunner().invoke(app, ["status", str(tmp_path / "out")]).stdout.split())
    assert "no job holds the lease" in died
    assert "the same `moderation nightly` goes on with it" in died


def test_the_newest_are_shown_and_all_are_counted(root: Path) -> None:
    nights = read_nights(str(root), most=1)
    assert nights is not None
    assert (nights.nights_total, [n.night for n in nights.nights]) == (3, [THIRD])


def test_what_is_neither_is_a_run_or_nothing(tmp_path: Path) -> None:
    assert read_nights(str(tmp_path)) is None
    assert read_nights(str(tmp_path / "none")) is None
    (tmp_path / "file").write_text("x")
    for uri in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UsageError, match="no run there"):
            CliRunner().invoke(app, ["status", str(uri)], catch_exceptions=False)


def test_a_quiet_night_has_one_line_and_the_oldest_go_first(tmp_path: Path) -> None:
    out = str(tmp_path)
    for _ in range(2):
        note_quiet(out, FIRST, {"unchanged": 1})
    assert [line["night"] for line in read_quiet(out)] == [FIRST]
    (tmp_path / "quiet.jsonl").write_text(f'{{"night": "{FIRST}"}}\nno json\n[]\n{{"night": 3}}\n' * MAX_QUIET)
    note_quiet(out, SECOND, {})
    lines = read_quiet(out)
    assert len(lines) == MAX_QUIET
    assert lines[-1] == {"night": SECOND}


@pytest.mark.parametrize(
    "summary",
    [
        '{"items": "many"}',
        '{"items": 1e400}',
        '{"items": 3, "verdicts": [1]}',
        '{"items": 3, "verdicts": {"pass": "x"}}',
        '{"items": 3, "error_rate": "x"}',
        '{"nightly": [1]}',
        '{"nightly": {"new": "x", "ledger": 3}}',
        "[" * 5000,
    ],
)
def test_a_damaged_summary_of_one_night_hides_no_other(root: Path, summary: str) -> None:
    (root / FIRST / "summary.json").write_text(summary)
    shown = CliRunner().invoke(app, ["status", str(root)], catch_exceptions=False)
    assert THIRD in shown.stdout
    assert write_nights_page(str(root)).endswith("index.html")


def test_a_record_that_is_not_ours_is_not_believed(root: Path) -> None:
    (root / THIRD / "summary.json").write_text("[")
    nights = read_nights(str(root))
    assert nights is not None
    assert nights.nights[-1].counts is None

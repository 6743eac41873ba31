"""Nothing that a job prints of a stranger's text steers a terminal, turns text or ends a line."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from moderation.pages.terminal import PlainConsole
from moderation.pages.text import escaped, escaped_lines, json_text
from moderation.runtime.progress import BarProgress, LineProgress
from moderation.runtime.shard_queue import PlanCounts
from tests.finished_run import Made, write_run
from tests.job_runs import run_job

EVIL = "a\x1b[2J\u202e\x9b\nFORGED b"
POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.6}
"""


def assert_unsteered(text: str) -> None:
    for line in text.split("\n"):
        assert line.isprintable(), repr(line)
        assert not line.startswith("FORGED"), text


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers") / EVIL
    made = [
        Made(name=f"{EVIL}{i}.png", votes=[(0.1 + i / 12,)], attributes={"class": EVIL, EVIL: f"rifle {EVIL}"})
        for i in range(10)
    ]
    written = Path(write_run(folder, ("a.weapon",), made, POLICY))
    record = json.loads((written / "run.json").read_text())
    (written / "run.json").write_text(json.dumps({**record, "state": "failed", "error": EVIL}))
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "label"])
        rows.writerows([f"{folder}/in/{EVIL}{i}.png", EVIL if i % 2 else "fine"] for i in range(10))
    (folder / "store").mkdir()
    change = {"bundle": "0" * 64, "at": "2026-01-01T00:00:00Z", "reason": EVIL, "report": EVIL}
    (folder / "store" / "current.json").write_text(json.dumps({"bundle": "0" * 64, "history": [change]}))
    (folder / "in").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "in" / f"{EVIL}9.png")
    return written


@pytest.fixture
def harmed(out: Path, tmp_path: Path) -> Path:
    copy = tmp_path / EVIL
    shutil.copytree(out, copy)
    sorted((copy / "votes").iterdir())[1].write_bytes(b"not the one")
    return copy


def is_named(text: str) -> bool:
    return "\\x1b" in text or "\\u001b" in text


def run_all(*arguments: object) -> subprocess.CompletedProcess[str]:
    ended = run_job(*arguments)
    assert "Traceback" not in ended.stderr
    assert_unsteered(ended.stdout + ended.stderr)
    return ended


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "OUT"),
        ("status", "OUT", "--json"),
        ("verify", "HARMED"),
        ("verify", "HARMED", "--json"),
        ("merge", "OUT"),
        ("ask", "HARMED", "a weapon"),
        ("checks", "OUT", "--plot"),
        ("checks", "HARMED"),
        ("document", "OUT"),
        ("explain", "OUT", "--verdict", "review", "--top", "2", "--to", "OUT/../explained"),
        ("explain", "HARMED", "--item", EVIL),
        ("duplicates", "HARMED"),
        ("rejudge", "OUT", "--policy", f"no such {EVIL}", "--to", "x"),
        ("rejudge", "HARMED", "--policy", "OUT/../policy.yaml", "--to", "OUT/../again"),
        ("hashes", "match", "OUT", "--list", EVIL, "--sha256", "0" * 64),
        ("hashes", "build", EVIL, "--out", "x"),
        ("doctor", "OUT"),
        ("nightly", f"no such {EVIL}", "--ledger", EVIL, "--out", "x", "--config", EVIL),
        ("backfill", "OUT", "--out", "x", "--dry-run", "--policy", EVIL),
        ("backfill", "OUT", "--out", "x", f"--{EVIL}"),
        ("keyframes", "OUT", "--out", "x", "--config", EVIL),
        ("enroll", f"OUT/{EVIL}", "--out", "x"),
        ("config", "show", "--set", f"policy={EVIL}"),
        ("config", "show", "--set", f"source.bytes_column={EVIL}"),
        ("config", "show", "--json", "--set", f"source.bytes_column={EVIL}"),
        ("weights", "pull", EVIL, "--to", "x"),
        ("evaluate", "OUT", "--labels", "OUT/../labels.csv", "--bad", EVIL, "--slice", EVIL, "--least-n", "1"),
        ("evaluate", "HARMED", "--labels", f"no such {EVIL}"),
        ("certify", f"no such {EVIL}", "--dry-run"),
        ("certify", "OUT", "--dry-run", "--calibrate", EVIL),
        ("drift", "HARMED", "--against", "OUT"),
        ("promote", "OUT", "--against", "HARMED", "--labels", "OUT/../labels.csv", "--bundles", "OUT/../store"),
        ("promote", "OUT", "--against", "OUT", "--labels", "x", "--bundles", "x", "--limits", EVIL),
        ("bundle", "make", "--bundles", "x", "--policy", EVIL),
        ("bundle", "list", "--bundles", "OUT/../store"),
        ("export", "OUT", "--format", "csv"),
        ("export", "OUT", "--format", "copies", "--to", f"OUT/../{EVIL}"),
        ("export", "HARMED", "--format", "jsonl"),
        ("export", "OUT", "--format", EVIL),
        ("train-head", "--images", EVIL, "--out", "x", "--backbone", EVIL),
        ("train-watermark", "--backgrounds", EVIL, "--out", "x"),
    ],
    ids=lambda a: " ".join(a[:2]).replace(EVIL, "name"),
)
def test_a_job_escapes_names_attributes_and_paths(out: Path, harmed: Path, arguments: tuple[str, ...]) -> None:
    ended = run_all(*(a.replace("OUT", str(out)).replace("HARMED", str(harmed)) for a in arguments))
    assert is_named(ended.stdout + ended.stderr) or arguments[0] == "ask"  # which refuses a run without embeddings
    assert ended.returncode in (0, 1, 2, 3, 4)


def test_pages_have_no_character_that_turns_text(out: Path) -> None:
    run_job("document", out)
    run_job("checks", out, "--plot")
    run_job("explain", out, "--verdict", "review")
    pages = {page: page.read_text(encoding="utf-8") for page in out.rglob("*.html")}
    assert len(pages) >= 3  # and those that the jobs above have left
    wrong = [(page, line) for page, text in pages.items() for line in text.split("\n") if not line.isprintable()]
    assert not wrong


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_and_the_log_escape_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with BarProgress(PlainConsole(stderr=True)) as bar:
        bar.note("retry", EVIL, item=EVIL)
        receipt = {"rows_in": 1, "counts": {f"verdict:{EVIL}": 1}}
        bar.shard_done(
            receipt, PlanCounts(shards=1, items=1, size_bytes=1, ended=True, committed_shards=0, committed_items=0)
        )
    shown = stream.getvalue()
    assert "\\x1b[2J" in shown
    assert "\x1b[2J" not in shown and "\u202e" not in shown and "\x9b" not in shown and "\nFORGED" not in shown
    log = io.StringIO()
    LineProgress("run", log).note("retry", EVIL, item=EVIL)
    assert_unsteered(log.getvalue())
    assert is_named(log.getvalue())
    assert json.loads(log.getvalue())["message"] == EVIL


@given(st.text())
def test_escaped_text_is_one_printable_line(text: str) -> None:
    assert escaped(text).isprintable()
    assert escaped(text) == text or not text.isprintable()
    assert escaped_lines(text).count("\n") == text.count("\n")


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_text_is_printable_and_says_the_same(value: object) -> None:
    text = json_text(value, indent=1)
    assert all(line.isprintable() for line in text.split("\n"))
    assert json.loads(text) == json.loads(json.dumps(value))

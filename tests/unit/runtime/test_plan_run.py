"""A call that ends by an error, of whatever kind, says so in OUT."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from PIL import Image

from moderation import storage
from moderation.config.load import load_config
from moderation.errors import FatalError, UsageError
from moderation.results.record import write_record
from moderation.runtime import plan_run
from moderation.runtime.backfill import backfill, judging_task
from moderation.runtime.prepare import prepare_run
from moderation.runtime.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return prepare_run(str(tmp_path / "in"), str(tmp_path / "out"), load_config())


def test_any_error_leaves_the_state_failed_and_what_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/ray")

    monkeypatch.setattr(plan_run, "open_pool", refuse)
    with pytest.raises(OSError, match="No space left"):
        plan_run.run_plan(run, judging_task(run), iter(()), set())
    record = json.loads(Path(run.out, "run.json").read_text())
    assert (record["state"], record["error"][:8]) == ("failed", "OSError:")
    assert "No space left" in record["error"]


def test_where_the_state_cannot_be_noted_the_first_error_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_up(*_: object) -> None:
        storage.delete_tree(run.out)
        Path(run.out).write_text("nothing can be written below a file")
        raise FatalError("the workers found no room")

    monkeypatch.setattr(plan_run, "open_pool", fill_up)
    with pytest.raises(FatalError, match="the workers found no room"):
        plan_run.run_plan(run, judging_task(run), iter(()), set())


def test_a_new_beginning_deletes_nothing_where_its_workers_cannot_start(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.new("RGB", (8, 8)).save(source / "a.png")
    config = load_config(None, ["runtime.pool=processes", "runtime.num_cpus=512"])
    write_record(prepare_run(str(source), str(out), config), "done")
    with pytest.raises(UsageError, match=r"runtime\.num_cpus is 512"):
        backfill(str(source), str(out), config, fresh=True)
    assert json.loads((out / "run.json").read_text())["state"] == "done"

"""A call that ends by an error, of whatever kind, says so in OUT."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from moderation import storage
from moderation.config.load import load_config
from moderation.errors import FatalError
from moderation.runtime import plan_run
from moderation.runtime.backfill import judging_task
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

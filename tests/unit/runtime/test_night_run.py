"""Which night a call runs: later than all that the ledger has, whatever this machine's clock says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from moderation.config.load import load_config
from moderation.errors import FatalError
from moderation.ledger.difference import Choice
from moderation.runtime.night_run import begin_night
from moderation.runtime.prepare import prepare_run
from moderation.runtime.run import Run
from tests.finished_run import Made, enter_run, write_run

POLICY = "checks: {a: {side: negative, votes: [a.b], block: 0.9}}\n"


@pytest.fixture
def base(tmp_path: Path) -> Run:
    return prepare_run(str(tmp_path / "in"), str(tmp_path / "nights"), load_config())


def enter_night(folder: Path, ahead: timedelta) -> str:
    """A ledger with one night, dated by a clock that was ahead."""
    out = write_run(folder / "run", ["a.b"], [Made(name="x.jpg", votes=[[0.1]])], POLICY)
    night = f"{datetime.now(UTC) + ahead:%Y%m%d-%H%M%S}-fffff0"
    enter_run(str(folder / "ledger"), night, out)
    return night


def test_where_the_clock_is_behind_the_ledger_tonight_still_counts_as_newer(tmp_path: Path, base: Run) -> None:
    earlier, notes = enter_night(tmp_path, timedelta(hours=3)), []  # type: tuple[str, list[str]]
    night = begin_night(base, str(tmp_path / "ledger"), Choice(), notes.append)
    assert night.night_id > earlier
    assert "behind the newest night of the ledger" in notes[0]


def test_a_clock_that_is_days_behind_is_told(tmp_path: Path, base: Run) -> None:
    night = enter_night(tmp_path, timedelta(days=3))
    with pytest.raises(FatalError, match=rf"{night}, is 7[12] h .* ahead of this machine's clock"):
        begin_night(base, str(tmp_path / "ledger"), Choice(), lambda _: None)
    assert not (tmp_path / "ledger" / "unfinished.json").exists()


def test_after_a_night_of_the_past_and_in_an_empty_ledger_it_is_now(tmp_path: Path, base: Run) -> None:
    for name in ("none", "ledger"):
        before = datetime.now(UTC).replace(microsecond=0)
        night = begin_night(base, str(tmp_path / name), Choice(), pytest.fail)
        assert before <= night.began_at <= datetime.now(UTC)
        enter_night(tmp_path, timedelta(hours=-3))

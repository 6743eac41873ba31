"""What a night learns: lists before it judges, a sweep of the ledger after it. No Ray."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from moderation.analysis.sweep_changes import read_changes
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.lists.learned import read_learned
from moderation.runtime.night_learn import learn_before_night, sweep_after_night
from tests.finished_run import Made, enter_run, write_run

POLICY = "default: pass\nchecks: {mask: {side: negative, votes: [a.mask], review: 0.5}}\n"
NIGHTS = ("20261101-000000-0", "20261102-000000-0", "20261103-000000-0")
NOON = datetime.now(UTC) - timedelta(days=1)


def said(id_: str, answer: Answer, **more: Any) -> Decision:
    at = NOON + timedelta(minutes=len(id_))
    return Decision(decision_id=id_, item_id="bad.jpg", decision=answer, reviewer=f"by-{id_}", decided_at=at, **more)


class Nights:
    """A folder of two nights with the same picture under two names, its ledger, and what was noted."""

    def __init__(self, folder: Path) -> None:
        self.home, self.ledger = str(folder / "out"), str(folder / "ledger")
        self.notes: list[str] = []
        for night, name in zip(NIGHTS, ("bad.jpg", "copy.jpg"), strict=False):
            made = [Made(name=name, votes=[(0.1,)], hashes=["0f" * 32], content_hash=f"{1:064x}")]
            out = write_run(folder / "made" / night, ("a.mask",), made, POLICY)
            (folder / "out").mkdir(exist_ok=True)
            Path(out).rename(folder / "out" / night)
            enter_run(self.ledger, night, f"{self.home}/{night}")
        self.first = f"{self.home}/{NIGHTS[0]}"
        self.config = Config.model_validate({"learn": {"to": str(folder / "learned.csv")}})

    def night(self, night: str) -> dict[str, tuple[str, str]]:
        """Learn and sweep; item -> (verdict, cause) of what changed."""
        learning = learn_before_night(self.home, self.ledger, self.config, self.notes.append)
        sweep_after_night(learning, self.home, self.ledger, night, self.config, self.notes.append)
        to = f"{self.home}/sweeps/{night}"
        rows = [row for table in read_changes(to) for row in table.to_pylist()] if Path(to).exists() else []
        return {row["item_id"]: (row["new_verdict"], row["cause"]) for row in rows}


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def test_a_block_reaches_copies_of_all_nights_once_and_an_appeal_takes_it_back(nights: Nights) -> None:
    assert nights.night("a") == {}
    append_decisions(nights.first, [said("d", Answer.BLOCK)])
    assert nights.night("b") == {"bad.jpg": ("block", "decision"), "copy.jpg": ("block", "decision")}
    assert nights.night("c") == {}  # it was applied
    append_decisions(nights.first, [said("dd", Answer.PASS, source=DecisionSource.APPEAL)])
    assert nights.night("d") == {"bad.jpg": ("pass", "appeal"), "copy.jpg": ("pass", "appeal")}
    assert {e.action for e in read_learned(str(nights.config.learn.to)) or ()} == {"allow"}


def test_a_sweep_that_failed_is_made_up_for_by_the_next_night(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    append_decisions(nights.first, [said("d", Answer.BLOCK)])
    with monkeypatch.context() as broken:
        broken.setattr("moderation.analysis.learn_sweep.find_sources", _out_of_reach)
        assert nights.night("a") == {}
    assert "the next night tries again" in nights.notes[-1]
    assert set(nights.night("b")) == {"bad.jpg", "copy.jpg"}


def test_a_block_is_taken_back_although_the_night_that_applied_it_was_killed_before_it_noted_it(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_decisions(nights.first, [said("d", Answer.BLOCK)])
    with monkeypatch.context() as killed:
        killed.setattr("moderation.analysis.learn_sweep._finished_sweeps", lambda home: _ended_by_kill(killed))
        assert set(nights.night("a")) == {"bad.jpg", "copy.jpg"}
    append_decisions(nights.first, [replace(said("u", Answer.SKIP, undoes="d"), reviewer="by-d")])
    assert {name: verdict for name, (verdict, _) in nights.night("b").items()} == {
        "bad.jpg": "pass",
        "copy.jpg": "pass",
    }


def _ended_by_kill(patch: pytest.MonkeyPatch) -> list[str]:
    """From now on nothing can be noted; no sweep was made before."""
    patch.setattr("moderation.analysis.learn_sweep.swept_decisions_uri", _out_of_reach)
    return []


def _out_of_reach(uris: object) -> None:
    raise OSError("out of reach")


def test_a_damaged_chain_of_decisions_leaves_the_lists_as_they_are(nights: Nights) -> None:
    append_decisions(nights.first, [said("d", Answer.BLOCK)])
    nights.night("a")
    before = Path(str(nights.config.learn.to)).read_bytes()
    append_decisions(nights.first, [said("dd", Answer.PASS)])
    next((Path(nights.first) / "decisions").glob("part-*.arrow")).unlink()
    assert nights.night("b") == {}
    assert "nothing was learned" in nights.notes[-1]
    assert Path(str(nights.config.learn.to)).read_bytes() == before


def test_an_unfinished_night_goes_on_with_its_lists(nights: Nights) -> None:
    (Path(nights.ledger) / "unfinished.json").write_text(f'{{"night": "{NIGHTS[2]}"}}')
    append_decisions(nights.first, [said("d", Answer.BLOCK)])
    assert nights.night("a") == {}
    assert NIGHTS[2] in nights.notes[0] and not Path(str(nights.config.learn.to)).exists()


def test_a_name_that_no_list_can_have_is_refused_before_the_night(nights: Nights) -> None:
    nights.config = Config.model_validate({"learn": {"to": "learned.txt"}})
    with pytest.raises(UsageError, match=r"learn\.to: learned\.txt: learned lists are a file that ends in \.csv"):
        nights.night("a")


def test_without_a_file_nothing_is_learned(nights: Nights) -> None:
    learning = learn_before_night(nights.home, nights.ledger, Config(), nights.notes.append)
    assert learning.facts() is None and not nights.notes

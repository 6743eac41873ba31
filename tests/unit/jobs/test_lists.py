"""`moderation lists learn`: a call whose sweep failed can be made again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.lists import lists_learn
from moderation.analysis.sweep_changes import read_changes
from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.lists.learned import read_learned
from tests.finished_run import Made, write_run

POLICY = "default: pass\nchecks: {mask: {side: negative, votes: [a.mask], review: 0.5}}\n"


def test_a_call_whose_sweep_failed_sweeps_when_it_is_made_again(tmp_path: Path) -> None:
    """What is new is told by the file of lists: it is written after the sweep."""
    out = write_run(tmp_path / "run", ("a.mask",), [Made(name="x", votes=[(0.1,)], content_hash=f"{1:064x}")], POLICY)
    now = datetime.now(UTC)
    append_decisions(out, [Decision(decision_id="d", item_id="x", decision=Answer.BLOCK, reviewer="r", decided_at=now)])
    to, swept = str(tmp_path / "learned.csv"), str(tmp_path / "swept")

    def learn(sources: str) -> None:
        lists_learn(
            [out], to, near=15, near_pass=-1, days=0, sweep=[sources], sweep_to=swept, after=None, as_of=None,
            dry_run=False, as_json=True,
        )  # fmt: skip

    with pytest.raises(UsageError, match="neither the output"):
        learn(str(tmp_path))
    learn(out)
    assert [row["new_verdict"] for table in read_changes(swept) for row in table.to_pylist()] == ["block"]
    assert len(read_learned(to) or ()) == 1

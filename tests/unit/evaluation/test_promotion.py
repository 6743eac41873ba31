"""A candidate is held against the incumbent over the same pictures, not over the same places."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.evaluation.promotion import judge_candidate
from tests.finished_run import Made, write_run

LABELS = ("a.hat",)
POLICY = "default: pass\nchecks:\n  hat: {side: negative, votes: [a.hat], block: 0.9, review: 0.5}\n"


def night(folder: Path, contents: list[int]) -> str:
    made = [Made(name=f"i{n}", votes=[(0.1,)], content_hash=f"{c:064x}") for n, c in enumerate(contents)]
    return write_run(folder, LABELS, made, POLICY)


def test_items_whose_content_has_changed_between_the_runs_are_no_pairs(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("item_id,label,source\n" + "".join(f"i{n},ok,audit\n" for n in range(4)))
    old, new = night(tmp_path / "old", [1, 2, 3, 4]), night(tmp_path / "new", [1, 2, 30, 40])
    judged = judge_candidate(new, old, str(labels), today=date(2026, 11, 26))
    assert (judged.only_candidate, judged.only_incumbent) == (2, 2)
    with pytest.raises(UsageError, match="with the same content"):
        judge_candidate(night(tmp_path / "other", [5, 6, 7, 8]), old, str(labels), today=date(2026, 11, 26))

"""What is still blocked holds its copies when another block of them is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from moderation.analysis.learn_sweep import held_beside
from moderation.analysis.sweep import SweepChange, sweep
from moderation.analysis.sweep_by_decision import CopyLimits
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import find_targets
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer
from tests.finished_run import Made, write_run
from tests.unit.analysis.test_sweep import DAY, LABELS, POLICY, changed, decide, decision, film, picture, turned


def freed_after_two_blocks(
    tmp_path: Path, items: Sequence[Made], one: str, other: str, *, by_people: bool
) -> dict[str, str]:
    """Both are blocked in turn, then the first is passed: item -> its verdict, of what that changes."""
    out = write_run(tmp_path / "run", LABELS, items, POLICY)
    sweeps = [tmp_path / name for name in ("1", "2", "3")]
    for nth, name in enumerate((one, other)):
        decide([out], name, "block", sweeps[nth], sweeps[:nth])
    sources = find_sources([out])
    freed = find_targets(sources, [one], "pass", embedding=None)
    earlier = [str(sweep) for sweep in sweeps[:2]]
    held = held_beside(freed, [out], () if by_people else earlier)
    change = SweepChange(name=one, targets=(*freed, *held), limits=CopyLimits())
    sweep(sources, change, str(sweeps[2]), as_of=DAY, earlier=earlier, workers=1)
    return {item: row["new_verdict"] for item, row in changed(sweeps[2]).items()}


def decide_by_people(tmp_path: Path, items: Sequence[Made], *names: str) -> None:
    """Reviewers have blocked these, in the run that is to be made."""
    hashes = {made.name: made.content_hash for made in items}
    rows = [decision(f"d-{name}", name, Answer.BLOCK, content_hash=hashes[name]) for name in names]
    append_decisions(str(tmp_path / "run" / "out"), rows)


def test_what_the_caller_of_an_earlier_sweep_blocked_holds_its_copies(tmp_path: Path) -> None:
    items = [
        picture("a.jpg", 0, content=1),
        picture("c.jpg", 0, bits=8, content=2),
        picture("b.jpg", 0, bits=16, content=3),
    ]
    assert freed_after_two_blocks(tmp_path, items, "a.jpg", "b.jpg", by_people=False) == {"a.jpg": "pass"}


def test_a_film_that_shows_a_blocked_picture_stays_in_review_when_its_copy_is_freed(tmp_path: Path) -> None:
    items = [
        replace(film("a.mp4", [0, 1, 2, 3]), content_hash=f"{1:064x}"),
        replace(film("c.mp4", [0, 1, 2, 3]), content_hash=f"{2:064x}"),
        picture("b.jpg", 3, content=3),
    ]
    decide_by_people(tmp_path, items, "a.mp4", "b.jpg")
    changes = freed_after_two_blocks(tmp_path, items, "a.mp4", "b.jpg", by_people=True)
    assert changes == {"a.mp4": "pass", "c.mp4": "review"}


def test_a_blocked_picture_holds_what_is_its_copy_by_what_lies_within_bars(tmp_path: Path) -> None:
    def within(made: Made, inner: bytes) -> Made:
        return replace(made, parts={"inner": [inner], "quarters": [bytes(32)], "edges": [bytes(32)]})

    items = [
        within(picture("a.jpg", 7, content=1), bytes.fromhex(turned(0, 0))),
        within(picture("c.jpg", 0, bits=8, content=2), bytes(32)),
        within(picture("b.jpg", 0, bits=16, content=3), bytes(32)),
    ]
    decide_by_people(tmp_path, items, "a.jpg", "b.jpg")
    assert "c.jpg" not in freed_after_two_blocks(tmp_path, items, "a.jpg", "b.jpg", by_people=True)

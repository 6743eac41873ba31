"""Decisions become lists, and lists forget what was overturned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moderation.analysis.learn import LearnedLists, LearnRules, learn_lists
from moderation.analysis.learn_sweep import held_beside, sweep_learned
from moderation.analysis.rejudge import rejudge
from moderation.analysis.sweep import SweepChange, sweep
from moderation.analysis.sweep_by_decision import CopyLimits
from moderation.analysis.sweep_changes import read_changes
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import find_targets
from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.labels.effective import effective_decisions, hold
from moderation.lists.learned import LearnedEntry, read_learned, write_learned
from moderation.lists.policy_file import load_whole_policy
from moderation.lists.read import read_entries
from moderation.types import Kind
from tests.finished_run import Made, write_run

LABELS = ("a.mask", "a.gore", "pdq.quality")
POLICY = """
default: pass
severities: [low, critical]
checks:
  mask: {side: negative, votes: [a.mask], review: 0.5, block: 0.9}
  gore: {side: negative, votes: [a.gore], review: 0.5, block: 0.9, severity: critical}
"""
LEARNING = """
lists:
  learned_block: {action: deny, by: content_hash, from: FILE}
  learned_near: {action: deny, by: pdq, distance: 15, from: FILE}
  learned_pass: {action: allow, by: content_hash, from: FILE}
"""
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = NOON.date()
HASH = np.random.default_rng(5).integers(0, 256, (10, 32), dtype=np.uint8)


def made(name: str, row: int, content: int, *, bits: int = 0, mask: float = 0.1, gore: float = 0.1) -> Made:
    unpacked = np.unpackbits(HASH[row])
    unpacked[:bits] ^= 1
    hash_ = np.packbits(unpacked).tobytes().hex()
    return Made(name=name, votes=[(mask, gore, 1.0)], hashes=[hash_], content_hash=f"{content:064x}")


ITEMS = [
    made("bad.jpg", 0, 1),
    made("near.jpg", 0, 2, bits=10),
    made("far.jpg", 0, 3, bits=25),
    made("fine.jpg", 1, 4, mask=0.6),
    made("altered.jpg", 1, 5, bits=3, mask=0.6),
    made("gory.jpg", 2, 6, gore=0.6),
    Made(name="film.mp4", votes=[(0.1, 0.1, 1.0)] * 2, hashes=[HASH[3].tobytes().hex()] * 2, kind=Kind.VIDEO,
         times_s=[0, 1], content_hash=f"{7:064x}"),
]  # fmt: skip


def said(id_: str, item: str, answer: Answer, **more: Any) -> Decision:
    at = more.pop("at", NOON)
    return Decision(
        decision_id=id_, item_id=item, decision=answer, reviewer=more.pop("by", "ann"), decided_at=at, **more
    )


def learn(out: str, to: Path, rules: LearnRules | None = None, today: date = DAY) -> LearnedLists:
    return learn_lists([out], str(to), rules or LearnRules(), today=today)


@pytest.fixture
def out(tmp_path: Path) -> str:
    return write_run(tmp_path / "night1", LABELS, ITEMS, POLICY)


def verdicts_by(tmp_path: Path, lists: Path, out: str) -> dict[str, str]:
    policy = tmp_path / "learning.yaml"
    policy.write_text(POLICY + LEARNING.replace("FILE", str(lists)))
    to = tmp_path / f"by-{lists.stem}-{len(list(tmp_path.iterdir()))}"
    rejudge(out, str(policy), str(to), as_of=DAY)
    from moderation.results.reader import open_run

    run = open_run(str(to))
    tables = [run.read_verdicts(shard, ("item_id", "verdict")) for shard in run.shard_ids]
    return {row["item_id"]: row["verdict"] for table in tables for row in table.to_pylist()}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
def test_a_block_denies_the_bytes_and_near_copies_and_a_pass_only_the_bytes(
    out: str, tmp_path: Path, suffix: str
) -> None:
    append_decisions(out, [said("d1", "bad.jpg", Answer.BLOCK, reason="spam"), said("d2", "fine.jpg", Answer.PASS)])
    lists = tmp_path / f"learned{suffix}"
    learned = learn(out, lists)
    assert learned.counts == {"allow by content_hash": 1, "deny by content_hash": 1, "deny by pdq": 1}
    verdicts = verdicts_by(tmp_path, lists, out)
    assert {name: verdicts[name] for name in ("bad.jpg", "near.jpg", "far.jpg")} == {
        "bad.jpg": "block", "near.jpg": "block", "far.jpg": "pass",
    }  # fmt: skip
    assert (verdicts["fine.jpg"], verdicts["altered.jpg"]) == ("pass", "review")


def test_a_pass_does_not_hold_against_a_severe_check(out: str, tmp_path: Path) -> None:
    append_decisions(out, [said("d1", "gory.jpg", Answer.PASS)])
    learn(out, tmp_path / "learned.csv")
    assert verdicts_by(tmp_path, tmp_path / "learned.csv", out)["gory.jpg"] == "review"


def test_an_entry_tells_its_decision_its_reviewer_and_its_end(out: str, tmp_path: Path) -> None:
    append_decisions(out, [said("d1", "bad.jpg", Answer.BLOCK, reason="spam", labels=("mask",), by="r7")])
    learn(out, tmp_path / "learned.csv", LearnRules(days=30))
    entries = read_learned(str(tmp_path / "learned.csv"))
    assert entries is not None
    for entry in entries:
        assert (entry.reviewer, entry.decision_id, entry.item_id, entry.run) == ("r7", "d1", "bad.jpg", out)
        assert entry.until == date(2026, 12, 26) and "spam, mask" in entry.reason and "r7" in entry.reason
    later = learn(out, tmp_path / "learned.csv", LearnRules(days=30), today=date(2026, 12, 27))
    assert (later.entries, later.ended, len(later.removed), later.changed) == (0, 2, 2, ())


def test_of_a_video_only_the_bytes_are_denied(out: str, tmp_path: Path) -> None:
    append_decisions(out, [said("d1", "film.mp4", Answer.BLOCK)])
    assert learn(out, tmp_path / "learned.csv").counts == {"deny by content_hash": 1}


def test_a_hash_near_a_passed_picture_is_not_denied(out: str, tmp_path: Path) -> None:
    append_decisions(out, [said("d1", "fine.jpg", Answer.PASS), said("d2", "altered.jpg", Answer.BLOCK)])
    learned = learn(out, tmp_path / "learned.csv")
    assert learned.close == 1 and learned.counts == {"allow by content_hash": 1, "deny by content_hash": 1}


def test_what_was_taken_back_or_overturned_leaves_the_list_and_sweeps(out: str, tmp_path: Path) -> None:
    lists = tmp_path / "learned.csv"
    append_decisions(out, [said("d1", "bad.jpg", Answer.BLOCK), said("d2", "fine.jpg", Answer.BLOCK)])
    first = learn(out, lists)
    swept = sweep_learned(first.changed, [out], str(tmp_path / "one"), near=15, as_of=DAY)
    assert swept is not None and swept.moved == {("pass", "block"): 2, ("pass", "review"): 1, ("review", "block"): 2}
    appeal = said("d3", "bad.jpg", Answer.PASS, source=DecisionSource.APPEAL, by="bob", at=NOON + timedelta(hours=1))
    back = said("d4", "fine.jpg", Answer.SKIP, undoes="d2", at=NOON + timedelta(hours=1))
    append_decisions(out, [appeal, back])
    second = learn(out, lists)
    assert {e.action for e in read_learned(str(lists)) or ()} == {"allow"}
    assert len(second.removed) == 4 and {i.item_id: i.verdict for i in second.changed} == {
        "bad.jpg": "pass",
        "fine.jpg": "none",
    }
    sweep_learned(second.changed, [out], str(tmp_path / "two"), near=15, as_of=DAY, earlier=[str(tmp_path / "one")])
    rows = {r["item_id"]: r for table in read_changes(str(tmp_path / "two")) for r in table.to_pylist()}
    verdicts = {name: (row["cause"], row["new_verdict"]) for name, row in rows.items()}
    assert verdicts == {
        "bad.jpg": ("appeal", "pass"), "near.jpg": ("appeal", "pass"), "far.jpg": ("appeal", "pass"),
        "fine.jpg": ("decision", "review"), "altered.jpg": ("decision", "review"),
    }  # fmt: skip
    assert sweep_learned(learn(out, lists).changed, [out], str(tmp_path / "x"), near=15, as_of=DAY) is None


def test_learning_twice_writes_the_same_bytes(out: str, tmp_path: Path) -> None:
    append_decisions(out, [said("d1", "bad.jpg", Answer.BLOCK), said("d2", "fine.jpg", Answer.PASS)])
    learn(out, tmp_path / "a.csv")
    again = learn(out, tmp_path / "a.csv")
    learn(out, tmp_path / "b.csv")
    assert (again.added, again.removed) == ((), ())
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_without_decisions_the_file_is_an_empty_list(out: str, tmp_path: Path) -> None:
    assert learn(out, tmp_path / "learned.csv").entries == 0
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY + LEARNING.replace("FILE", "learned.csv"))
    assert load_whole_policy(policy).lists["learned_block"].entries == ()


def test_a_list_of_a_policy_takes_only_its_own_rows(tmp_path: Path) -> None:
    entry = LearnedEntry(
        value="0" * 64, reason="x", until=None, action="deny", by="pdq", distance=15, reviewer="r", decision_id="d",
        decided_at=NOON, item_id="i", uri="u", run="r",
    )  # fmt: skip
    file = str(tmp_path / "learned.csv")
    write_learned(file, [entry, replace(entry, action="allow", by="content_hash", value="1" * 64, distance=None)])
    assert [e.value for e in read_entries(file, "deny", "pdq")] == ["0" * 64]
    assert [e.value for e in read_entries(file, "allow", "content_hash")] == ["1" * 64]
    assert read_entries(file, "deny", "content_hash") == []


def test_other_words_under_these_columns_are_a_lists_own_business(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("value,action,by\nann,warned,the team\n")
    assert [e.value for e in read_entries(str(tmp_path / "list.csv"), "deny", "owner")] == ["ann"]


@pytest.mark.parametrize(
    ("decisions", "holds"),
    [
        ([said("a", "x", Answer.BLOCK), said("b", "x", Answer.PASS, at=NOON + timedelta(1))], "b"),
        ([said("a", "x", Answer.BLOCK, expert=True), said("b", "x", Answer.PASS, at=NOON + timedelta(1))], "a"),
        (
            [
                said("a", "x", Answer.BLOCK),
                said("b", "x", Answer.BLOCK, by="bob"),
                said("c", "x", Answer.PASS, by="eve", at=NOON + timedelta(1)),
            ],
            "b",
        ),
        (
            [
                said("a", "x", Answer.BLOCK, expert=True),
                said("b", "x", Answer.PASS, by="bob", source=DecisionSource.APPEAL),
            ],
            "b",
        ),
        ([said("a", "x", Answer.BLOCK), said("b", "x", Answer.SKIP), said("c", "x", Answer.ESCALATE)], "a"),
        ([said("a", "x", Answer.BLOCK), said("b", "x", Answer.PASS, source=DecisionSource.HIDDEN)], "a"),
        ([said("a", "x", Answer.BLOCK), said("b", "x", Answer.SKIP, undoes="a")], None),
    ],
)  # fmt: skip
def test_the_strongest_answer_holds(decisions: Sequence[Decision], holds: str | None) -> None:
    held = hold(decisions).get(("x", None))
    assert (held and held.decision_id) == holds


def test_a_decision_says_nothing_of_another_picture_at_the_same_place(tmp_path: Path) -> None:
    hashes = [f"{0xAA:064x}", f"{0xBB:064x}"]
    nights = [
        write_run(tmp_path / f"night{n}", LABELS, [made("x.jpg", n, int(content, 16))], POLICY)
        for n, content in enumerate(hashes)
    ]
    old = [said(who, "x.jpg", Answer.PASS, by=who, content_hash=hashes[0]) for who in ("ann", "cy")]
    append_decisions(nights[0], old)
    append_decisions(nights[1], [said("3", "x.jpg", Answer.BLOCK, by="bob", content_hash=hashes[1])])
    learned = learn_lists(nights, str(tmp_path / "l.csv"), LearnRules(), today=DAY)
    assert {(e.action, e.by, e.value) for e in learned.added} == {
        ("allow", "content_hash", hashes[0]), ("deny", "content_hash", hashes[1]),
        ("deny", "pdq", HASH[1].tobytes().hex()),
    }  # fmt: skip
    assert {key: d.decision for key, d in effective_decisions(nights).items()} == {
        ("x.jpg", hashes[0]): Answer.PASS, ("x.jpg", hashes[1]): Answer.BLOCK,
    }  # fmt: skip


def test_an_old_block_stays_on_the_list_although_its_place_has_another_picture(tmp_path: Path) -> None:
    nights = [
        write_run(tmp_path / f"night{n}", LABELS, [made("x.jpg", n, content)], POLICY)
        for n, content in enumerate((0xAA, 0xBB))
    ]
    append_decisions(nights[0], [said("1", "x.jpg", Answer.BLOCK, content_hash=f"{0xAA:064x}")])
    append_decisions(nights[1], [said("2", "x.jpg", Answer.PASS, content_hash=f"{0xBB:064x}")])
    learned = learn_lists(nights, str(tmp_path / "l.csv"), LearnRules(near=None), today=DAY)
    assert {(e.action, int(e.value, 16)) for e in learned.added} == {("deny", 0xAA), ("allow", 0xBB)}


def test_wrong_calls_are_sentences(out: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.csv"):
        learn(out, tmp_path / "learned.txt")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="not a file of learned lists"):
        learn(out, tmp_path / "other.csv")
    with pytest.raises(UsageError, match="0 to 47"):
        LearnRules(near=50)
    with pytest.raises(UsageError, match="nothing is there"):
        learn(str(tmp_path / "none"), tmp_path / "learned.csv")


def test_a_copy_of_two_blocked_pictures_stays_blocked_when_one_block_is_taken_back(tmp_path: Path) -> None:
    """The second block changed nothing of the copy, which the first had blocked."""
    items = [made("a.jpg", 0, 1), made("copy.jpg", 0, 2, bits=8), made("b.jpg", 0, 3, bits=16), made("c.jpg", 4, 4)]
    out = write_run(tmp_path / "run", LABELS, items, POLICY)
    append_decisions(out, [said("d1", "a.jpg", Answer.BLOCK), said("d2", "c.jpg", Answer.BLOCK)])
    sweeps = [str(tmp_path / name) for name in ("one", "two", "three")]

    def step(number: int) -> dict[str, str]:
        learned = learn(out, tmp_path / "learned.csv")
        sweep_learned(
            learned.changed, [out], sweeps[number], near=15, as_of=DAY, earlier=sweeps[:number],
            holding=learned.holding.values(),
        )  # fmt: skip
        rows = [row for table in read_changes(sweeps[number]) for row in table.to_pylist()]
        return {row["item_id"]: row["new_verdict"] for row in rows}

    assert step(0) == {"a.jpg": "block", "copy.jpg": "block", "b.jpg": "review", "c.jpg": "block"}
    append_decisions(out, [said("d3", "b.jpg", Answer.BLOCK, at=NOON + timedelta(hours=1))])
    assert step(1) == {"b.jpg": "block"}
    sources = find_sources([out])
    freed = find_targets(sources, ["a.jpg"], "pass", embedding=None)
    change = SweepChange(name="a", targets=(*freed, *held_beside(freed, [out])), limits=CopyLimits())
    assert sweep(sources, change, None, as_of=DAY, earlier=sweeps[:2]).moved == {("block", "pass"): 1}
    late = NOON + timedelta(hours=2)
    append_decisions(out, [said("d4", "a.jpg", Answer.PASS, source=DecisionSource.APPEAL, by="bob", at=late)])
    assert step(2) == {"a.jpg": "pass"}


def test_a_picture_that_was_passed_is_freed_beside_a_near_one_that_was_blocked(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run", LABELS, [made("a.jpg", 0, 1), made("b.jpg", 0, 2, bits=8)], POLICY)
    append_decisions(out, [said("d1", "a.jpg", Answer.BLOCK)])
    sweep_learned(learn(out, tmp_path / "l.csv").changed, [out], str(tmp_path / "one"), near=15, as_of=DAY)
    late = NOON + timedelta(hours=1)
    appeal = said("d2", "a.jpg", Answer.PASS, source=DecisionSource.APPEAL, by="bob", at=late)
    append_decisions(out, [appeal, said("d3", "b.jpg", Answer.BLOCK, at=late)])
    two = str(tmp_path / "two")
    changed = learn(out, tmp_path / "l.csv").changed
    sweep_learned(changed, [out], two, near=15, as_of=DAY, earlier=[str(tmp_path / "one")])
    rows = {row["item_id"]: row["new_verdict"] for table in read_changes(two) for row in table.to_pylist()}
    assert rows == {"a.jpg": "pass"}

"""Hard examples: what is hard, in which order, without near-copies; and the manifest that a job reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.analysis.hard_examples import HardExample, HardKind, choose_hardest
from moderation.analysis.mine import MiningWish, mine
from moderation.errors import UsageError
from moderation.sources.rows import read_rows
from tests.finished_run import Made, write_run

POLICY = """
default: pass
checks:
  gore: {side: negative, votes: [a.gore, b.gore], fuse: max, review: 0.6, block: 0.9}
  plain: {side: positive, votes: [a.plain], pass: 0.8}
audit: {salt: s, pass: {check: gore, to: 0.1, rate: 1.0}}
"""
LABELS = ("a.gore", "b.gore", "a.plain")


def made(name: str, a: float, b: float | None = None, plain: float = 0.3, **more: object) -> Made:
    return Made(name=name, votes=[(a, a if b is None else b, plain)], **more)  # type: ignore[arg-type] # keywords of the item


def mined(folder: Path, items: Sequence[Made], labels: str | None = None, **wish: object) -> dict[str, dict[str, str]]:
    out = write_run(folder, LABELS, items, POLICY)
    if labels is not None:
        (folder / "labels.csv").write_text(labels)
    path = folder / "hard.jsonl"
    named = str(folder / "labels.csv") if labels is not None else None
    mine([out], str(path), MiningWish(labels=named, **wish))  # type: ignore[arg-type] # keywords of the wish
    return {line["item_id"]: line for line in map(json.loads, path.read_text().splitlines())}


def test_what_is_near_a_threshold_or_in_dispute_is_worth_a_label(tmp_path: Path) -> None:
    lines = mined(
        tmp_path,
        [
            made("near review", 0.61), made("near block", 0.87), made("near pass", 0.3, plain=0.79), made("far", 0.3),
            made("differ", 0.7, 0.2),
        ],
    )  # fmt: skip
    assert {name: (line["hard"], line["hard_check"]) for name, line in lines.items()} == {
        "near review": ("threshold", "gore"), "near block": ("threshold", "gore"), "near pass": ("threshold", "plain"),
        "differ": ("disagreement", "gore"),
    }  # fmt: skip
    assert "label" not in lines["differ"] and lines["near block"]["hard_threshold"] == "0.9"


def test_labels_show_confident_mistakes_and_what_is_right_is_left_out(tmp_path: Path) -> None:
    lines = mined(
        tmp_path,
        [
            made("missed", 0.2),
            made("false alarm", 0.99),
            made("right", 0.95),
            made("right too", 0.3),
            made("open", 0.61),
        ],
        "item_id,label\nmissed,block|gore\nfalse alarm,pass\nright,gore\nright too,pass\n",
    )
    assert {name: (line["hard"], line.get("label")) for name, line in lines.items()} == {
        "missed": ("mistake", "gore"), "false alarm": ("mistake", "pass"), "open": ("threshold", None),
    }  # fmt: skip


def test_the_audit_is_left_out_so_that_it_can_certify_what_was_learned(tmp_path: Path) -> None:
    assert mined(tmp_path, [made("drawn", 0.05, 0.09, plain=0.79)]) == {}


def test_what_was_not_decoded_teaches_nothing(tmp_path: Path) -> None:
    assert mined(tmp_path, [Made(name="broken", votes=None)], "item_id,label\nbroken,gore\n") == {}


def test_near_copies_are_taken_once_the_hardest(tmp_path: Path) -> None:
    near = ["0f" * 32, "1f" + "0f" * 31]
    items = [made("less", 0.63, hashes=[near[0]]), made("more", 0.61, hashes=[near[1]])]
    assert set(mined(tmp_path, items)) == {"more"}
    same = [made("one", 0.62, content_hash="ab"), made("two", 0.62, content_hash="ab")]
    assert len(mined(tmp_path / "bytes", same)) == 1


def test_the_manifest_is_read_as_a_source(tmp_path: Path) -> None:
    mined(tmp_path, [made("a.png", 0.61, attributes={"cam": "7"})])
    (row,) = list(read_rows(str(tmp_path / "hard.jsonl")))
    assert row.item_id == "a.png" and row.attributes["cam"] == "7" and row.attributes["hard"] == "threshold"


def test_a_manifest_must_end_in_jsonl(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.jsonl"):
        mine([str(tmp_path)], str(tmp_path / "x.csv"), MiningWish())


def candidate(number: int, kind: HardKind, hardness: float, look: int) -> HardExample:
    embedding = np.zeros(8, np.float16)
    embedding[look] = 1
    return HardExample(
        out="o", item_id=str(number), kind=kind, check="c", hardness=hardness, score=hardness, threshold=None,
        embedding=embedding,
    )  # fmt: skip


CANDIDATES = st.lists(st.tuples(st.sampled_from(list(HardKind)), st.floats(0, 1), st.integers(0, 7)), max_size=30)


@given(CANDIDATES, st.integers(0, 10))
def test_a_choice_holds_no_two_alike_and_never_more_than_asked(
    given_candidates: Sequence[tuple[HardKind, float, int]], count: int
) -> None:
    candidates = [candidate(n, *facts) for n, facts in enumerate(given_candidates)]
    chosen = choose_hardest(candidates, count)
    looks = [int(np.argmax(one.embedding)) for one in chosen if one.embedding is not None]
    assert len(chosen) <= count and len(set(looks)) == len(looks)
    assert len(chosen) == min(count, len({look for _, _, look in given_candidates}))

"""A part of a picture is judged within it: what blocks, what goes to a person, and what stays as it was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from moderation.policy.bind import bind
from moderation.policy.judge import judge
from moderation.policy.model import Policy
from moderation.results.tables import ItemRow, votes_table
from moderation.results.votes import item_votes
from moderation.types import Item, ItemVotes, Judgement, Kind, Role, Status, Verdict

LABELS = ("d.bad", "d.good")
NAN = math.nan
F, T, W = Role.FRAME, Role.TILE, Role.WHOLE
BOX = (0.5, 0.5, 1.0, 1.0)


def votes(*rows: tuple[float, float, Role, int | None]) -> ItemVotes:
    return ItemVotes(
        labels=LABELS,
        frames=tuple(range(len(rows))),
        times_s=(None,) * len(rows),
        scores=np.array([r[:2] for r in rows], np.float32),
        roles=tuple(r[2] for r in rows),
        parents=tuple(r[3] for r in rows),
        boxes=tuple(None if r[3] is None else BOX for r in rows),
    )


def judged(found: ItemVotes, **check: Any) -> Judgement:
    bad = {"side": "negative", "votes": ["d.bad"], "block": 0.9, "review": 0.4, **check}
    good = {"side": "positive", "votes": ["d.good"], "pass": 0.5}
    return judge(bind(Policy.model_validate({"checks": {"bad": bad, "good": good}}), LABELS), found)


def test_tile_that_alone_looks_bad_goes_to_a_person_not_to_a_block() -> None:
    found = judged(votes((0.1, 0.9, F, None), (0.95, 0.1, T, 0), (0.2, 0.9, T, 0)))
    assert (found.verdict, found.reason) == (Verdict.REVIEW, "context:bad:review")
    assert [(e.frame, e.box) for e in found.evidence] == [(1, BOX), (0, None)]
    assert found.score == found.scores["bad"] == np.float32(0.95)


def test_tile_blocks_where_the_picture_around_it_is_suspicious_too() -> None:
    assert judged(votes((0.5, 0.1, F, None), (0.95, 0.1, T, 0))).reason == "negative:bad:block"


def test_without_a_review_threshold_only_a_block_agrees() -> None:
    assert judged(votes((0.8, 0.1, F, None), (0.95, 0.1, T, 0)), review=None).reason == "context:bad:review"


def test_picture_cut_into_nine_is_found_by_the_whole() -> None:
    members = [(0.1, 0.9, F, 9)] * 9
    assert judged(votes(*members, (0.95, 0.1, W, None))).reason == "negative:bad:block"


def test_piece_of_a_cut_picture_that_looks_bad_alone_does_not_block_the_album() -> None:
    members = [(0.1, 0.9, F, 9)] * 8 + [(0.97, 0.1, F, 9)]
    assert judged(votes(*members, (0.1, 0.9, W, None))).reason == "context:bad:review"


def test_strange_picture_among_the_pieces_of_another_still_blocks() -> None:
    members = [(0.1, 0.9, F, 9)] * 8 + [(0.97, 0.1, F, None)]
    assert judged(votes(*members, (0.1, 0.9, W, None))).reason == "negative:bad:block"


def test_different_pictures_of_an_album_block_each_by_itself() -> None:
    assert judged(votes(*[(0.1, 0.9, F, None)] * 8, (0.97, 0.1, F, None))).reason == "negative:bad:block"


def test_suspicious_tile_alone_is_reviewed() -> None:
    assert judged(votes((0.1, 0.9, F, None), (0.5, 0.9, T, 0))).reason == "negative:bad:review"


def test_parent_without_a_score_does_not_agree() -> None:
    assert judged(votes((NAN, 0.9, F, None), (0.95, 0.1, T, 0)), null="ignore").reason == "context:bad:review"
    orphan = votes((0.1, 0.9, F, None), (0.95, 0.1, T, 77))
    assert judged(orphan).reason == "context:bad:review"


def test_tiles_need_no_vouching_but_the_picture_does() -> None:
    assert judged(votes((0.1, 0.9, F, None), (0.1, 0.0, T, 0))).verdict is Verdict.PASS
    assert judged(votes((0.1, 0.1, F, None), (0.1, 0.9, T, 0))).verdict is Verdict.REVIEW
    assert judged(votes(*[(0.1, 0.0, F, 4)] * 4, (0.1, 0.9, W, None))).verdict is Verdict.PASS


def test_what_is_known_of_a_tile_alone_lets_no_picture_pass() -> None:
    bad = {"side": "negative", "votes": ["d.bad"], "block": 0.9, "null": "ignore"}
    policy = bind(Policy.model_validate({"default": "pass", "checks": {"bad": bad}}), LABELS)
    assert judge(policy, votes((NAN, NAN, F, None), (0.1, NAN, T, 0))).reason == "null:all:review"
    assert judge(policy, votes((0.1, NAN, F, None), (NAN, NAN, T, 0))).reason == "default:pass"


def test_tiles_do_not_dilute_what_the_frame_itself_scores() -> None:
    pool = {"method": "top_k_mean", "k": 3}
    alone = judged(votes((0.93, 0.1, F, None)), pool=pool)
    tiled = judged(votes((0.93, 0.1, F, None), *[(0.0, 0.9, T, 0)] * 9), pool=pool)
    assert alone.reason == tiled.reason == "negative:bad:block"


def test_tile_does_not_stop_a_cascade_before_a_check_that_blocks() -> None:
    checks = {
        "bad": {"side": "negative", "votes": ["d.bad"], "block": 0.9, "order": 1, "stop": True},
        "worse": {"side": "negative", "votes": ["d.good"], "block": 0.8, "order": 2},
    }
    policy = bind(Policy.model_validate({"checks": checks}), LABELS)
    found = judge(policy, votes((0.1, 0.85, F, None), (0.95, 0.1, T, 0)))
    assert found.reason == "negative:worse:block"


def test_votes_table_says_what_each_frame_is_and_a_rejudge_from_it_decides_alike() -> None:
    found = votes((0.1, 0.9, F, None), (0.95, 0.1, T, 0), (0.2, 0.9, T, 0))
    item = Item(item_id="i", uri="u", objects=())
    row = ItemRow(item=item, status=Status.OK, kind=Kind.IMAGE, votes=found, frames_total=1)
    table = votes_table([row], LABELS, {}, {}, {})
    assert row.frames_scored == 1
    assert table["role"].to_pylist() == ["frame", "tile", "tile"]
    assert table["parent"].to_pylist() == [None, 0, 0]
    assert table["box"].to_pylist() == [None, list(BOX), list(BOX)]
    ((name, again),) = item_votes(table, LABELS)
    assert name == "i"
    assert judged(again) == judged(found)

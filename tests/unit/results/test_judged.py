"""Whole parts judged in columns give the rows that items judged one by one give, of any policy and any votes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy
from moderation.results.judged import judge_columns, judge_rows
from moderation.results.schema import verdicts_schema
from moderation.results.tables import ItemRow, judgement_cells, verdicts_table, votes_table
from moderation.results.votes import item_votes
from moderation.types import ErrorCode, Item, ItemVotes, Kind, MediaObject, Region, Role, Status
from tests.drawn_policies import (
    HASHES,
    LABELS,
    NEGATIVE,
    TODAY,
    full_policies,
    item_facts,
    level,
    policies,
    seens,
    vote,
)

quiet = st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.25, math.nan])
fine = st.sampled_from([1.0, 0.9, 0.75, 0.6, math.nan])
CHECKED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def drawn_items(draw: st.DrawFn, related: bool = True) -> ItemRow:
    """An item with its votes, its times, its regions and hashes, or an error without any."""
    facts, seen = draw(item_facts()), draw(seens())
    error = draw(st.sampled_from([None, None, None, ErrorCode.TRUNCATED]))
    status = Status.OK if error is None else Status.ERROR
    if draw(st.integers(0, 9)) == 0:
        error, status = ErrorCode.NOT_MEDIA, Status.SKIPPED
    scored = status is not Status.SKIPPED and draw(st.integers(0, 9)) > 0
    if not scored and error is None:
        error, status = ErrorCode.CORRUPT, Status.ERROR
    item = Item(item_id=facts.item_id, uri="u", objects=(MediaObject(uri="u", name="u"),), attributes=facts.attributes)
    return ItemRow(
        item=item,
        status=status,
        kind=seen.kind,
        votes=draw(drawn_votes(related)) if scored else None,
        duration_s=seen.duration_s,
        widest_gap_s=seen.widest_gap_s,
        unseen=seen.unseen,
        content_hash=facts.content_hash,
        pdq=facts.pdq,
        error_code=error,
    )


@st.composite
def drawn_votes(draw: st.DrawFn, related: bool) -> ItemVotes:
    """Votes on one frame, as nearly always, or on some; now and then with parts of pictures."""
    count = draw(st.sampled_from([1, 1, 1, 2, 3, 6]))
    # Half of them mild, so that the rules behind the reviews are reached, too.
    mild = draw(st.booleans())
    of_label = [vote if not mild else quiet if label in NEGATIVE else fine for label in LABELS]
    scores = [[draw(strategy) for strategy in of_label] for _ in range(count)]
    timed = draw(st.booleans())
    shown = st.sampled_from([(), (), ("n", "one"), ("p", "two")])
    regions = [
        tuple(_region(*found, draw(level)) for found in [draw(shown), draw(shown)] if found) for _ in range(count)
    ]
    votes = ItemVotes(
        labels=LABELS,
        frames=tuple(range(count)),
        times_s=tuple(float(n) for n in range(count)) if timed else (None,) * count,
        scores=np.array(scores, np.float32),
        regions=tuple(regions),
        blobs={"pdq.hash": tuple(bytes.fromhex(draw(st.sampled_from([*HASHES, "ab" * 32]))) for _ in range(count))},
    )
    if not related or count == 1 or draw(st.integers(0, 4)):
        return votes
    roles = (Role.FRAME, *(draw(st.sampled_from(list(Role))) for _ in range(count - 1)))
    parents = (None, *(draw(st.sampled_from([None, 0])) for _ in range(count - 1)))
    return replace(votes, roles=roles, parents=parents, boxes=((0.0, 0.0, 0.5, 0.5),) * count)


def _region(detector: str, label: str, score: float) -> Region:
    return Region(detector=detector, label=label, score=score, x0=0.25, y0=0.25, x1=0.75, y1=0.5)


def tables_of(rows: Sequence[ItemRow]) -> tuple[pa.Table, pa.Table]:
    """(verdicts, votes) of a part: ids made unique."""
    named = [replace(row, item=replace(row.item, item_id=f"{row.item.item_id}-{n}")) for n, row in enumerate(rows)]
    return verdicts_table(named, (), {}), votes_table(named, LABELS, {"pdq.hash": 32}, {}, {})


def one_by_one(verdicts: pa.Table, votes: pa.Table, bound: BoundPolicy) -> pa.Table:
    checks = tuple(bound.policy.checks)
    judged = judge_rows(verdicts, dict(item_votes(votes, bound.labels)), bound)
    cells = [judgement_cells(judgement, checks) for judgement in judged]
    names = judgement_cells(None, checks)
    schema = verdicts_schema(checks, {})
    return pa.table({name: pa.array([row[name] for row in cells], schema.field(name).type) for name in names})


def assert_alike(policy: Policy, rows: Sequence[ItemRow]) -> None:
    bound = bind(policy, LABELS, as_of=TODAY)
    verdicts, votes = tables_of(rows)
    expected = one_by_one(verdicts, votes, bound)
    found = pa.table(judge_columns(verdicts, votes, bound)).select(expected.column_names)
    assert found.schema == expected.schema
    for name in expected.column_names:
        assert found[name].combine_chunks().to_pylist() == expected[name].combine_chunks().to_pylist(), name


@CHECKED
@given(policy=policies(), rows=st.lists(drawn_items(), min_size=1, max_size=8))
def test_a_part_in_columns_is_judged_as_its_items_one_by_one(policy: Policy, rows: list[ItemRow]) -> None:
    assert_alike(policy, rows)


@CHECKED
@given(policy=full_policies(), rows=st.lists(drawn_items(), min_size=1, max_size=8))
def test_with_every_rule_a_part_in_columns_is_judged_as_its_items_one_by_one(
    policy: Policy, rows: list[ItemRow]
) -> None:
    assert_alike(policy, rows)


ALL_METHODS = [
    {"method": "max"}, {"method": "min"}, {"method": "mean"}, {"method": "weighted_mean"}, {"method": "mean_logit"},
    {"method": "k_of_n", "k": 2}, {"method": "majority"},
]  # fmt: skip
ALL_POOLS = [
    {"method": "any"}, {"method": "all"}, {"method": "mean"}, {"method": "top_k_mean", "k": 2},
    {"method": "bottom_k_mean", "k": 2}, {"method": "run", "length": 2, "gap": 1}, {"method": "linear_softmax"},
]  # fmt: skip


@pytest.mark.parametrize("fuse", ALL_METHODS, ids=lambda f: f["method"])
@pytest.mark.parametrize("missing", ["null", "skip"])
@settings(max_examples=8, deadline=None)
@given(rows=st.lists(drawn_items(related=False), min_size=1, max_size=6), invert=st.booleans(), stop=st.booleans())
def test_every_way_to_fuse_and_to_pool_is_the_same_to_the_last_bit(
    fuse: dict[str, object], missing: str, rows: list[ItemRow], invert: bool, stop: bool
) -> None:
    weights = {"n.one": 1.5, "n.two": 0.3, "m.one": 2.0}
    votes = weights if fuse["method"] in ("weighted_mean", "mean_logit") else list(weights)
    checks = {
        f"c{n}": {
            "side": "negative", "votes": votes, "fuse": {**fuse, "missing": missing}, "pool": pool, "invert": invert,
            "review": 0.4, "block": 0.8, "order": n, "stop": stop and n == 2,
        }
        for n, pool in enumerate(ALL_POOLS)
    }  # fmt: skip
    assert_alike(Policy.model_validate({"checks": checks, "default": "pass"}), rows)


def test_sums_are_exact_where_an_ordinary_sum_is_not() -> None:
    tiny, votes = 1e-9, (1.0, 1e-9, 1e-9)
    rows = [
        ItemRow(
            item=Item(item_id="a", uri="u", objects=()),
            status=Status.OK,
            kind=Kind.IMAGE,
            votes=ItemVotes(
                labels=LABELS,
                frames=(0,),
                times_s=(None,),
                scores=np.array([[*votes, tiny, tiny]], np.float32),
            ),
        )
    ]
    policy = Policy.model_validate(
        {"checks": {"c": {"side": "negative", "votes": ["n.one", "n.two", "m.one"], "fuse": "mean", "block": 0.3}}}
    )
    assert_alike(policy, rows)


def test_a_lone_frame_over_the_limit_of_a_positive_rule_keeps_it_from_passing() -> None:
    scores = np.array([[0.0, 0, 0, 1, 1], [0.3, 0, 0, 1, 1], [0.0, 0, 0, 1, 1]], np.float32)
    row = ItemRow(
        item=Item(item_id="a", uri="u", objects=()),
        status=Status.OK,
        kind=Kind.VIDEO,
        votes=ItemVotes(labels=LABELS, frames=(0, 1, 2), times_s=(None,) * 3, scores=scores),
    )
    policy = Policy.model_validate(
        {
            "checks": {
                "bad": {"side": "negative", "votes": ["n.one"], "pool": "mean", "review": 0.5},
                "good": {"side": "attribute", "votes": ["p.one"]},
            },
            "vouch": {"good": {"at_least": {"good": 0.5}, "others_below": 0.2}},
        }
    )
    assert_alike(policy, [row])
    verdicts, votes = tables_of([row])
    assert judge_columns(verdicts, votes, bind(policy, LABELS))["reason"].to_pylist() == ["default:review"]


def test_a_part_without_votes_is_judged() -> None:
    item = Item(item_id="a", uri="u", objects=())
    rows = [ItemRow(item=item, status=Status.ERROR, kind=Kind.IMAGE, error_code=ErrorCode.CORRUPT)]
    assert_alike(Policy.model_validate({"checks": {"c": {"side": "negative", "votes": ["n.one"], "block": 0.3}}}), rows)


def test_votes_of_a_detector_that_was_left_out_are_null() -> None:
    row = ItemRow(
        item=Item(item_id="a", uri="u", objects=()),
        status=Status.OK,
        kind=Kind.IMAGE,
        votes=ItemVotes(labels=LABELS, frames=(0,), times_s=(None,), scores=np.ones((1, 5), np.float32)),
    )
    checks = {"c": {"side": "negative", "votes": ["gone.x"], "block": 0.3}}
    bound = bind(Policy.model_validate({"checks": checks}), LABELS, disabled=["gone.x"])
    verdicts, votes = tables_of([row])
    judged = judge_columns(verdicts, votes, bound)
    assert judged["reason"].to_pylist() == ["null:c:review"]
    assert judged["score_c"].to_pylist() == [None]

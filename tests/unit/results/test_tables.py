"""Rows -> tables -> bytes -> rows; the same rows give the same bytes; what was not computed is null."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.config.model import OutputConfig
from moderation.results.schema import verdicts_schema, votes_schema
from moderation.results.tables import DETAIL_LIMIT, ItemRow, decode_table, encode_table, verdicts_table, votes_table
from moderation.types import (
    ErrorCode,
    Evidence,
    Item,
    ItemVotes,
    Judgement,
    Kind,
    MediaObject,
    Region,
    Status,
    Verdict,
)

LABELS = ("a.x", "a.y")
BLOBS = {"pdq.hash": 4}
DIMS = {"a": 3}
CHECKS = ("calm", "hot")
METADATA = {"run_id": "r", "policy_hash": "p"}
REGION = Region(detector="a", label="x", score=0.5, x0=0.0, y0=0.25, x1=0.5, y1=1.0)


def row(name: str, scores: Sequence[Sequence[float]] | None = None, **changes: Any) -> ItemRow:
    media = MediaObject(uri=name, name=name, size_bytes=3, etag="e1")
    item = Item(item_id=name, uri=name, objects=(media,), attributes={"k": "v", "group": "g1", "b": ""})
    votes = None
    if scores is not None:
        count = len(scores)
        votes = ItemVotes(
            labels=LABELS,
            frames=tuple(range(count)),
            times_s=tuple(None if i == 0 else i / 2 for i in range(count)),
            scores=np.array(scores, dtype=np.float32).reshape(count, len(LABELS)),
            regions=tuple((REGION,) if i == 1 else () for i in range(count)),
            blobs={"pdq.hash": tuple(None if i == 0 else bytes([i]) * 4 for i in range(count))},
        )
    judgement = Judgement(
        verdict=Verdict.BLOCK,
        reason="negative:hot:block",
        check="hot",
        score=0.75,
        confidence=0.5,
        evidence=(
            Evidence(detector="a", label="x", score=0.75, frame=1, time_s=0.5, box=(0.0, 0.25, 0.5, 1.0)),
            Evidence(detector="a", label="y", score=0.5),
        ),
        scores={"hot": 0.75, "calm": None},
    )
    facts: dict[str, Any] = {"status": Status.OK, "kind": Kind.VIDEO, "judgement": judgement, "frames_total": 9}
    return ItemRow(item=item, votes=votes, **{**facts, **changes})


def votes_of(rows: Sequence[ItemRow], dims: Mapping[str, int] | None = None) -> pa.Table:
    return votes_table(rows, LABELS, BLOBS, dims or {}, METADATA)


def assert_schema(table: pa.Table, expected: pa.Schema) -> None:
    # Parquet calls the member of a list `element`, Arrow `item`; only that may differ.
    assert table.schema.equals(expected)
    assert table.schema.metadata == expected.metadata


def through(table: pa.Table, format_: Literal["parquet", "arrow"]) -> pa.Table:
    return decode_table(encode_table(table, OutputConfig(format=format_)), format_)


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_verdicts_come_back_as_they_were(format_: Literal["parquet", "arrow"]) -> None:
    one = row("i1", [[0.1, 0.2], [0.75, 0.5]], pdq="ff", width=8, height=4)
    table = through(verdicts_table([one], CHECKS, METADATA), format_)
    assert_schema(table, verdicts_schema(CHECKS, METADATA))
    (cells,) = table.to_pylist()
    assert (cells["item_id"], cells["verdict"], cells["status"], cells["kind"]) == ("i1", "block", "ok", "video")
    assert (cells["check"], cells["score"], cells["score_hot"], cells["score_calm"]) == ("hot", 0.75, 0.75, None)
    assert (cells["frames_total"], cells["frames_scored"], cells["width"], cells["height"]) == (9, 2, 8, 4)
    assert (cells["etag"], cells["group_id"], cells["pdq"]) == ("e1", "g1", "ff")
    assert cells["attributes"] == [("b", ""), ("group", "g1"), ("k", "v")]
    assert cells["evidence"] == [
        {"detector": "a", "label": "x", "score": 0.75, "frame": 1, "time_s": 0.5, "box": [0.0, 0.25, 0.5, 1.0]},
        {"detector": "a", "label": "y", "score": 0.5, "frame": None, "time_s": None, "box": None},
    ]
    assert (cells["error_code"], cells["error_detail"]) == (None, None)


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_votes_come_back_as_they_were(format_: Literal["parquet", "arrow"]) -> None:
    rows = [row("i1", [[0.5, math.nan], [0.25, 1.0]]), row("none"), row("i2", [[0.0, 0.125]])]
    table = through(votes_of(rows), format_)
    assert_schema(table, votes_schema(LABELS, BLOBS, {}, METADATA))
    assert table.column("item_id").to_pylist() == ["i1", "i1", "i2"]
    assert table.column("frame").to_pylist() == [0, 1, 0]
    assert table.column("time_s").to_pylist() == [None, 0.5, None]
    assert table.column("a.x").to_pylist() == [0.5, 0.25, 0.0]
    assert table.column("a.y").to_pylist() == [None, 1.0, 0.125]
    assert table.column("pdq.hash").to_pylist() == [None, b"\1\1\1\1", None]
    assert table.column("regions").to_pylist() == [
        [],
        [{"detector": "a", "label": "x", "score": 0.5, "x0": 0.0, "y0": 0.25, "x1": 0.5, "y1": 1.0}],
        [],
    ]


@given(st.lists(st.lists(st.tuples(*[st.floats(width=32, allow_infinity=False)] * 2), max_size=4), max_size=5))
@settings(max_examples=40, deadline=None)
def test_scores_round_trip_and_not_asked_is_null(items: list[list[tuple[float, float]]]) -> None:
    rows = [row(str(i), scores) for i, scores in enumerate(items)]
    expected = [[None if math.isnan(s) else s for s in frame] for item in items for frame in item]
    for format_ in ("parquet", "arrow"):
        table = through(votes_of(rows), format_)  # type: ignore[arg-type]  # a literal
        assert [list(pair) for pair in zip(*(table.column(c).to_pylist() for c in LABELS), strict=True)] == expected
        assert table.column("a.y").null_count == sum(pair[1] is None for pair in expected)


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_embeddings_round_trip_and_one_that_was_not_computed_is_null(format_: Literal["parquet", "arrow"]) -> None:
    found = np.array([[0.5, 0.25, 0.0], [0.5, math.nan, 0.0], [math.nan] * 3], dtype=np.float16)
    rows = [row("i1", [[0, 0]] * 3, embeddings={"a": found}), row("i2", [[0, 0]]), row("i3")]
    table = through(votes_of(rows, DIMS), format_)
    assert table.schema.field("a.embedding").type == pa.list_(pa.float16(), 3)
    assert table.column("a.embedding").to_pylist() == [[0.5, 0.25, 0.0], None, None, None]


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_the_same_rows_give_the_same_bytes(format_: Any, compression: Any) -> None:
    def encode() -> tuple[bytes, bytes]:
        rows = [row(str(i), [[i / 9, math.nan]] * 3) for i in range(9)]
        config = OutputConfig(format=format_, compression=compression)
        return encode_table(votes_of(rows), config), encode_table(verdicts_table(rows, CHECKS, METADATA), config)

    assert encode() == encode()


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
@pytest.mark.parametrize("rows", [[], [row("skipped", judgement=None, status=Status.SKIPPED)]], ids=["none", "skipped"])
def test_tables_without_votes_have_the_same_schema(format_: Any, rows: list[ItemRow]) -> None:
    votes = through(votes_of(rows, DIMS), format_)
    assert votes.num_rows == 0
    assert_schema(votes, votes_schema(LABELS, BLOBS, DIMS, METADATA))
    assert through(verdicts_table(rows, CHECKS, METADATA), format_).num_rows == len(rows)


def test_a_row_without_judgement_has_nulls() -> None:
    (cells,) = verdicts_table([row("s", judgement=None, status=Status.SKIPPED)], CHECKS, METADATA).to_pylist()
    assert {cells[name] for name in ("verdict", "reason", "check", "score", "confidence", "score_hot")} == {None}
    assert cells["evidence"] == []


def test_a_score_that_is_no_number_is_null() -> None:
    judged = Judgement(
        verdict=Verdict.REVIEW,
        reason="r",
        check="hot",
        score=math.nan,
        confidence=math.nan,
        scores={"hot": math.nan, "calm": 0.0},
    )
    table = verdicts_table([row("a", judgement=judged)], CHECKS, METADATA)
    assert [table.column(c).null_count for c in ("score", "confidence", "score_hot", "score_calm")] == [1, 1, 1, 0]


def test_an_item_of_several_objects_has_no_etag_of_its_own() -> None:
    objects = tuple(MediaObject(uri=n, name=n, etag=n) for n in "ab")
    album = ItemRow(item=Item(item_id="x", uri="x", objects=objects), status=Status.OK, kind=Kind.ALBUM)
    assert verdicts_table([album], CHECKS, METADATA).column("etag").to_pylist() == [None]


def test_details_are_one_bounded_printable_line() -> None:
    bad = row("a", error_code=ErrorCode.CORRUPT, error_detail="\x1b[31m two\nlines \ud800" + "x" * 9999)
    (cells,) = verdicts_table([bad], CHECKS, METADATA).to_pylist()
    assert cells["error_code"] == "corrupt"
    assert cells["error_detail"].startswith("[31m two lines")
    assert cells["error_detail"].isprintable()
    assert len(cells["error_detail"]) <= DETAIL_LIMIT

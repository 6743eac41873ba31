"""Groups of copies: by content, by hash, with the largest as head, whatever the order; and the tables they end in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.analysis.duplicates import Nearness, as_table, group_pictures
from moderation.analysis.pictures import Pictures
from moderation.errors import UsageError
from moderation.hashes.embedding_pairs import HashConfirmation, alike_pairs


def turned(hash_: bytes, bits: int) -> bytes:
    """The hash with its first bits turned over."""
    return (int.from_bytes(hash_) ^ ((1 << bits) - 1)).to_bytes(32)


BASE = np.random.default_rng(0).bytes(32)
OTHER = np.random.default_rng(1).bytes(32)
ROW: dict[str, Any] = {
    "pixels": 100,
    "size": 0,
    "content": 0,
    "hash": BASE,
    "quality": 100,
    "run": None,
    "inner": bytes(32),
}


def pictures(rows: Sequence[dict[str, Any]]) -> Pictures:
    cells = [{**ROW, "id": f"item{i}", "verdict": "pass", **row} for i, row in enumerate(rows)]
    runs = pa.array([c["run"] for c in cells], pa.string()).dictionary_encode()
    return Pictures(
        items=pa.table(
            {
                "item_id": pa.array([c["id"] for c in cells], pa.large_string()),
                "run_out": runs.cast(pa.dictionary(pa.int32(), pa.string())),
                "verdict": pa.array([c["verdict"] for c in cells]).dictionary_encode(),
            }
        ),
        pixels=np.array([c["pixels"] for c in cells], np.int64),
        size_bytes=np.array([c["size"] for c in cells], np.int64),
        content=np.array([[c["content"], c["content"]] for c in cells], np.uint64).reshape(-1, 2),
        hashes=np.frombuffer(b"".join(c["hash"] for c in cells), np.uint8).reshape(-1, 32),
        inner=np.frombuffer(b"".join(c["inner"] for c in cells), np.uint8).reshape(-1, 32),
        quality=np.array([c["quality"] for c in cells], np.int16),
    )


def rows_of(given_: Sequence[dict[str, Any]], **nearness: Any) -> list[dict[str, Any]]:
    found = pictures(given_)
    table = as_table(found, group_pictures(found, Nearness(**nearness)))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def told(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, float]]:
    return [(r["item_id"], r["head_item_id"], r["relation"], r["distance"]) for r in rows]


def test_near_hashes_are_one_group_round_the_largest() -> None:
    found = rows_of([{"content": 1}, {"content": 2, "hash": turned(BASE, 9), "pixels": 900}, {"hash": OTHER}])
    assert told(found) == [("item1", "item1", "head", 0.0), ("item0", "item1", "pdq", 9.0)]
    assert found[0]["group_id"] == found[1]["group_id"]


def test_the_same_bytes_are_one_group_without_a_hash() -> None:
    found = rows_of([{"content": 5, "quality": -1}, {"content": 5, "quality": -1}, {"content": 6, "quality": -1}])
    assert told(found) == [("item0", "item0", "head", 0.0), ("item1", "item0", "exact", 0.0)]


def test_what_has_the_bytes_of_a_member_is_in_its_group() -> None:
    near = {"content": 7, "hash": turned(BASE, 12)}
    found = rows_of([{"content": 1, "pixels": 500}, near, {**near, "quality": -1}])
    assert told(found) == [
        ("item0", "item0", "head", 0.0),
        ("item1", "item0", "pdq", 12.0),
        ("item2", "item0", "pdq", 12.0),
    ]


def test_one_hash_and_other_bytes_is_a_near_copy_at_no_distance() -> None:
    assert told(rows_of([{"content": 1}, {"content": 2}]))[1][2:] == ("pdq", 0.0)


def test_a_chain_of_near_hashes_does_not_join_its_ends() -> None:
    chain = [{"content": i + 1, "hash": turned(BASE, 25 * i), "pixels": 900 - i} for i in range(3)]
    assert told(rows_of(chain)) == [("item0", "item0", "head", 0.0), ("item1", "item0", "pdq", 25.0)]


@pytest.mark.parametrize(("bits", "quality", "groups"), [(31, 50, 1), (32, 50, 0), (31, 49, 0)])
def test_distance_and_quality_are_bars(bits: int, quality: int, groups: int) -> None:
    rows = rows_of([{"content": 1}, {"content": 2, "hash": turned(BASE, bits), "quality": quality}])
    assert len({r["group_id"] for r in rows}) == groups


def test_unknown_content_is_nobody_s_copy() -> None:
    assert rows_of([{"quality": -1}, {"quality": -1}]) == []


def test_a_copy_of_an_earlier_picture_names_its_run_and_its_verdict() -> None:
    earlier = {"content": 1, "run": "s3://night/1", "verdict": "block", "pixels": 200}
    found = rows_of([{"content": 2}, earlier])
    assert [(r["item_id"], r["run_out"], r["head_run_out"], r["head_verdict"]) for r in found] == [
        ("item1", "s3://night/1", "s3://night/1", "block"),
        ("item0", None, "s3://night/1", "block"),
    ]


def test_of_the_same_bytes_the_one_judged_earlier_is_the_head() -> None:
    found = rows_of([{"content": 1}, {"content": 1, "run": "s3://night/1"}])
    assert found[0]["item_id"] == "item1"


def test_groups_of_earlier_pictures_alone_are_left_out() -> None:
    assert rows_of([{"content": 1, "run": "a"}, {"content": 1, "run": "b"}, {"content": 3, "hash": OTHER}]) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60), st.integers(1, 3)), max_size=12), st.randoms())
def test_the_order_of_items_makes_no_difference(drawn: list[tuple[int, int, int]], chance: Any) -> None:
    rows = [
        {"id": f"i{n}", "content": c, "hash": turned(BASE, bits), "pixels": p} for n, (c, bits, p) in enumerate(drawn)
    ]
    shuffled = list(rows)
    chance.shuffle(shuffled)

    def by_id(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(found, key=lambda r: str(r["item_id"]))

    assert by_id(rows_of(rows)) == by_id(rows_of(shuffled))


@pytest.mark.parametrize("wrong", [{"distance": 48}, {"distance": -1}, {"quality": 101}, {"similarity": 0.0}])
def test_bars_out_of_reach_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(wrong))}"):
        Nearness(**wrong)


@pytest.mark.parametrize("exact_up_to", [1000, 0])
def test_alike_embeddings_need_hashes_that_agree(exact_up_to: int) -> None:
    chance = np.random.default_rng(3)
    vectors = chance.normal(size=(40, 64)).astype(np.float32)
    vectors[1:3] = vectors[0] + 0.1 * chance.normal(size=(2, 64))
    vectors[5] = np.nan
    hashes = np.frombuffer(chance.bytes(40 * 32), np.uint8).reshape(-1, 32).copy()
    hashes[1] = np.frombuffer(turned(hashes[0].tobytes(), 80), np.uint8)
    left, right, apart = alike_pairs(
        vectors, 0.9, HashConfirmation(hashes=hashes, distance=90), exact_up_to=exact_up_to
    )
    assert (left.tolist(), right.tolist()) == ([0], [1])
    assert 0 < apart[0] < 0.1


def test_a_copy_with_bars_joins_the_picture_by_what_lies_within_them() -> None:
    found = rows_of([{"content": 1, "pixels": 900}, {"content": 2, "hash": OTHER, "inner": turned(BASE, 6)}])
    assert told(found) == [("item0", "item0", "head", 0.0), ("item1", "item0", "pdq", 6.0)]

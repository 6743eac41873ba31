from __future__ import annotations

import io

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.planning.plan import decode_shards, encode_shards
from moderation.planning.spool import PlanSpool
from tests.fake_pool import numbered_shards


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), max_size=8))
def test_the_merged_plan_has_the_shards_of_all_chunks_in_order(sizes: list[int]) -> None:
    shards = numbered_shards(sum(sizes))
    spool, start = PlanSpool(), 0
    for size in sizes:
        spool.add(encode_shards(shards[start : start + size]))
        start += size
    merged = io.BytesIO()
    spool.merge_into(merged)
    assert list(decode_shards(merged.getvalue())) == shards
    assert len(list(spool.pieces())) == len(sizes)


def test_small_chunks_share_a_row_group() -> None:
    spool = PlanSpool()
    chunk = encode_shards(numbered_shards(64))
    for _ in range(40):
        spool.add(chunk)
    merged = io.BytesIO()
    spool.merge_into(merged)
    assert pq.ParquetFile(merged).num_row_groups == 2  # 5,120 rows


def test_chunks_may_be_added_while_others_are_read() -> None:
    spool = PlanSpool()
    spool.add(b"one")
    spool.add(b"two")
    read = []
    for piece in spool.pieces():
        spool.add(b"more")
        read.append(piece)
    assert read == [b"one", b"two"]
    assert len(spool) == 4

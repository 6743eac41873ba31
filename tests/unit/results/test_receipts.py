"""Commit: parts, then the receipt; what counts as done; what cannot be written stops the run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from moderation import storage
from moderation.errors import FatalError, ShardError
from moderation.planning.shards import make_shard
from moderation.results.layout import part_name
from moderation.results.receipts import Receipt, commit_shard, committed_ids, read_receipts
from moderation.types import Item, Shard

PARTS = {"votes": b"votes of it", "verdicts": b"verdicts of it"}


def shard_of(*names: str) -> Shard:
    return make_shard([Item(item_id=name, uri=name, objects=()) for name in names])


def commit(out: str, shard: Shard, rows: int | None = None) -> Receipt:
    counts = {"votes": 7, "verdicts": len(shard.items) if rows is None else rows}
    return commit_shard(out, shard, parts=PARTS, rows=counts, format_="parquet", facts={"bytes_read": 5})


@pytest.fixture(params=["local", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://commit-{tmp_path.name}"


def test_a_commit_is_its_parts_and_a_receipt_that_describes_them(out: str) -> None:
    shard = shard_of("a", "b")
    receipt = commit(out, shard)
    for table, data in PARTS.items():
        assert storage.read_bytes(storage.join(out, table, f"part-{shard.shard_id}.parquet")) == data
        assert receipt.sha256[table] == hashlib.sha256(data).hexdigest()
    assert (receipt.rows_in, receipt.rows, receipt.bytes_read) == (2, {"votes": 7, "verdicts": 2}, 5)
    assert list(read_receipts(out, {shard.shard_id})) == [receipt]


def test_what_is_committed_is_known_by_its_receipts_alone(out: str) -> None:
    assert committed_ids(out) == set()
    one, two = shard_of("a"), shard_of("b")
    commit(out, one)
    storage.publish(storage.join(out, "verdicts", part_name(two.shard_id, "parquet")), b"no receipt yet")
    storage.publish(storage.join(out, "receipts", ".hidden.json.123"), b"{")
    assert committed_ids(out) == {one.shard_id}


def test_the_receipt_is_written_last(tmp_path: Path) -> None:
    # The table's folder cannot be made, so its part cannot be written: there must be no receipt.
    for blocked in PARTS:
        out = tmp_path / blocked
        out.mkdir()
        (out / blocked).write_bytes(b"a file in the way")
        with pytest.raises(FatalError, match="cannot write"):
            commit(str(out), shard_of("a"))
        assert committed_ids(str(out)) == set()


def test_rows_in_that_are_not_rows_out_commit_nothing(out: str) -> None:
    with pytest.raises(ShardError, match="2 items in, 1 rows out"):
        commit(out, shard_of("a", "b"), rows=1)
    assert committed_ids(out) == set()
    assert not storage.is_folder(storage.join(out, "votes"))


def test_a_commit_again_leaves_the_same_parts(out: str) -> None:
    shard = shard_of("a")
    assert commit(out, shard) == commit(out, shard)
    assert [o.size_bytes for o in storage.list_objects(storage.join(out, "verdicts"))] == [len(PARTS["verdicts"])]


def test_an_out_below_a_file_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FatalError, match="cannot write"):
        commit(str(tmp_path / "file" / "out"), shard_of("a"))


def test_a_name_that_the_disk_refuses_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="cannot write"):
        commit(str(tmp_path / ("x" * 300)), shard_of("a"))


def test_a_receipt_is_plain_json(out: str) -> None:
    shard = shard_of("a")
    commit(out, shard)
    text = storage.read_bytes(storage.join(out, "receipts", f"{shard.shard_id}.json"))
    assert json.loads(text)["shard_id"] == shard.shard_id


@pytest.mark.parametrize("slowest", [{"a": "long"}, ["a"], {"a": None}])
def test_a_receipt_whose_slowest_items_are_no_numbers_counts_as_none(out: str, slowest: object) -> None:
    shard = shard_of("a")
    commit(out, shard)
    uri = storage.join(out, "receipts", f"{shard.shard_id}.json")
    record = json.loads(storage.read_bytes(uri))
    del record["slowest"]  # as of an earlier version
    storage.publish(uri, json.dumps(record).encode())
    assert [receipt.slowest for receipt in read_receipts(out, {shard.shard_id})] == [{}]
    storage.publish(uri, json.dumps({**record, "slowest": slowest}).encode())
    assert list(read_receipts(out, {shard.shard_id})) == []

"""Encoded bytes of items: in order, by several threads, an ItemError where there are none."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation import storage
from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import ItemError
from moderation.sources import fetch as fetch_module
from moderation.sources import open_source
from moderation.sources.cells import Cell as Place
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode, Item, MediaObject

Cell = bytes | ErrorCode


def body(number: int) -> bytes:
    return f"picture {number}".encode() * 3


def outcome(payloads: list[bytes | ItemError]) -> list[Cell]:
    return [p.code if isinstance(p, ItemError) else p for p in payloads]


def fetch_all(items: list[Item], threads: int = 1, **limits: int) -> list[list[Cell]]:
    fetcher = Fetcher(items, MediaConfig(**limits))
    with ThreadPoolExecutor(threads) as pool:
        return [outcome(p) for p in pool.map(fetcher, items)]


def item_of(*objects: MediaObject, name: str = "i") -> Item:
    return Item(item_id=name, uri=name, objects=objects)


def cell(path: Path, row: int, group: int = 0, column: str = "img") -> MediaObject:
    return MediaObject(uri=str(path), name="", row_group=group, row=row, column=column)


def write_table(path: Path, cells: list[bytes | None], rows: int = 50) -> Path:
    table = pa.table({"img": pa.array(cells, pa.binary())})
    if path.suffix == ".arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    else:
        pq.write_table(table, path, row_group_size=rows, data_page_size=256, use_dictionary=False)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("threads", [1, 8])
def test_cells_come_back_with_their_items(tmp_path: Path, suffix: str, threads: int) -> None:
    path = write_table(tmp_path / f"t.{suffix}", [body(i) for i in range(170)])
    items = list(open_source(str(path), SourceConfig()))
    assert fetch_all(items, threads) == [[body(i)] for i in range(170)]


@pytest.mark.parametrize("threads", [1, 8])
def test_cells_may_be_asked_for_in_any_order(tmp_path: Path, threads: int) -> None:
    path = write_table(tmp_path / "t.parquet", [body(i) for i in range(170)])
    numbered = list(enumerate(open_source(str(path), SourceConfig())))
    random.Random(3).shuffle(numbered)
    assert fetch_all([item for _, item in numbered], threads) == [[body(i)] for i, _ in numbered]


def test_a_shard_reads_only_its_own_rows_of_a_group(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", [body(i) for i in range(100)], rows=100)
    items = list(open_source(str(path), SourceConfig()))[40:45]
    assert fetch_all(items) == [[body(i)] for i in range(40, 45)]


def test_a_null_is_empty_and_its_neighbours_are_read(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", [body(0), None, body(2)])
    items = [item_of(cell(path, row)) for row in range(3)]
    assert fetch_all(items, 3) == [[body(0)], [ErrorCode.EMPTY], [body(2)]]


def test_a_row_group_or_column_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", [body(0), body(1)])
    objects = [cell(path, 1), cell(path, 7), cell(path, 0, group=3), cell(path, 0, column="gone"), cell(path, 0)]
    missing = [ErrorCode.NOT_FOUND]
    assert fetch_all([item_of(o) for o in objects]) == [[body(1)], missing, missing, missing, [body(0)]]


def test_a_cell_that_is_asked_for_twice_is_an_item_error(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", [body(0), body(1)])
    item = item_of(cell(path, 0))
    fetcher = Fetcher([item], MediaConfig())
    assert outcome(fetcher(item)) == [body(0)]
    assert outcome(fetcher(item)) == [ErrorCode.NOT_FOUND]


def test_damage_costs_the_rows_that_it_hits(tmp_path: Path) -> None:
    cells: list[bytes | None] = [random.Random(i).randbytes(4000) for i in range(100)]
    path = write_table(tmp_path / "t.parquet", cells, rows=50)
    items = list(open_source(str(path), SourceConfig()))
    data = bytearray(path.read_bytes())
    begin = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[begin : begin + 40_000] = b"\xff" * 40_000
    listed_ns = path.stat().st_mtime_ns
    path.write_bytes(bytes(data))
    # A disk that rots does not tell.
    os.utime(path, ns=(listed_ns, listed_ns))
    found = fetch_all(items, 4)
    assert found[:50] == [[c] for c in cells[:50]]
    assert {codes[0] for codes in found[50:] if not isinstance(codes[0], bytes)} == {ErrorCode.CORRUPT}
    assert found[50] == [ErrorCode.CORRUPT]
    assert len(found) == 100


def test_a_table_that_is_none_or_gone_is_an_error_of_each_of_its_items(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 no")
    items = [item_of(cell(path, row)) for row in range(3)] + [item_of(cell(tmp_path / "gone.parquet", 0))]
    assert fetch_all(items, 4) == [[ErrorCode.CORRUPT]] * 3 + [[ErrorCode.NOT_FOUND]]


class FailsAfter:
    """`read_pictures` whose storage fails after some rows."""

    def __init__(self, rows: int, error: Exception) -> None:
        self.rows = rows
        self.error = error

    def __call__(
        self, uri: str, group: int, leaf: str, wanted: frozenset[Place], *, etag: str | None
    ) -> Iterator[tuple[Place, bytes]]:
        for row, nth in sorted(wanted)[: self.rows]:
            yield (row, nth), body(row)
        raise self.error


@pytest.mark.parametrize("threads", [1, 6])
def test_storage_that_fails_in_the_middle_costs_the_rows_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    # A store that fails at the third row cannot be had for real.
    monkeypatch.setattr(fetch_module, "read_pictures", FailsAfter(3, storage.StorageError("still failing")))
    items = [item_of(cell(tmp_path / "t.parquet", row)) for row in range(6)]
    assert fetch_all(items, threads) == [[body(0)], [body(1)], [body(2)]] + [[ErrorCode.FETCH_FAILED]] * 3


def test_unknown_credentials_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "read_pictures", FailsAfter(1, storage.CredentialsError("expired")))
    with pytest.raises(storage.CredentialsError):
        fetch_all([item_of(cell(tmp_path / "t.parquet", row)) for row in range(3)])


def test_whole_objects_and_ranges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"0123456789")
    whole = MediaObject(uri=str(path), name="a", size_bytes=10)
    member = MediaObject(uri=str(path), name="b", offset=3, size_bytes=4)
    empty = MediaObject(uri=str(path), name="c", offset=3, size_bytes=0)
    unknown = MediaObject(uri=str(path), name="d")
    gone = MediaObject(uri=str(tmp_path / "gone"), name="e", size_bytes=1)
    folder = MediaObject(uri=str(tmp_path), name="f", size_bytes=1)
    foreign = MediaObject(uri="htps://a/b", name="g")
    (found,) = fetch_all([item_of(whole, member, empty, unknown, gone, folder, foreign)])
    assert found == [
        b"0123456789",
        b"3456",
        b"",
        b"0123456789",
        ErrorCode.NOT_FOUND,
        ErrorCode.NOT_FOUND,
        ErrorCode.FETCH_FAILED,
    ]


def test_more_bytes_than_allowed_are_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(11))
    table = write_table(tmp_path / "t.parquet", [bytes(11), bytes(10)])
    objects = [
        MediaObject(uri=str(path), name="a", size_bytes=11),
        MediaObject(uri=str(path), name="a"),
        MediaObject(uri=str(path), name="a", size_bytes=5),  # it has grown since it was listed
        MediaObject(uri=str(path), name="a", offset=0, size_bytes=11),
        cell(table, 0),
        cell(table, 1),
    ]
    assert fetch_all([item_of(o) for o in objects], max_bytes=10) == [[ErrorCode.TOO_LARGE]] * 5 + [[bytes(10)]]


def test_an_object_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    claims = MediaObject(uri=str(tmp_path / "not even there"), name="a", size_bytes=11)
    assert fetch_all([item_of(claims)], max_bytes=10) == [[ErrorCode.TOO_LARGE]]


def test_of_an_item_that_is_an_error_already_nothing_is_read(tmp_path: Path) -> None:
    source = MediaObject(uri=str(tmp_path / "not even there"), name="a")
    item = Item(item_id="i", uri="i", objects=(source, source), error=ErrorCode.FORBIDDEN, error_detail="why")
    assert fetch_all([item]) == [[ErrorCode.FORBIDDEN] * 2]

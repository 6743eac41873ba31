"""Tables with a bytes column: a row is an item, and no picture is read to list it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources import open_source, read_cells, source_type
from moderation.sources.kinds import kind_by_name
from moderation.types import ErrorCode, Item


def items_of(path: Path, **options: Any) -> list[Item]:
    return list(open_source(str(path), SourceConfig(**options)))


def cells_of(path: Path, group: int, column: str, rows: int = 3) -> list[bytes | ErrorCode]:
    """What is read of a row group's first rows: bytes, or the code of what is wrong."""
    read = dict(read_cells(str(path), group, column, range(rows)))
    return [cell.code if isinstance(cell, ItemError) else cell for cell in map(read.__getitem__, range(rows))]


def write_arrow(path: Path, table: pa.Table, rows: int = 2) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def test_cells_are_named_by_row_group_and_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"img": [b"0", b"1", b"2"], "item_id": ["x", "y", None], "n": [1, 2, None]}), path,
                   row_group_size=2)  # fmt: skip
    x, y, z = items_of(path)
    assert (x.item_id, x.attributes, x.uri) == ("x", {"n": "1"}, f"{path}#row=0")
    assert [(i.objects[0].row_group, i.objects[0].row) for i in (x, y, z)] == [(0, 0), (0, 1), (1, 0)]
    assert z.uri == f"{path}#row=2"
    assert len(z.item_id) == 32
    assert cells_of(path, 1, "img", 1) == [b"2"]


class CountingFile(io.RawIOBase):
    """A file that tells how many bytes were read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file
        self.total = 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.total += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_listing_reads_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / f"t.{kind}"
    table = pa.table({"img": [bytes([n]) * 500_000 for n in range(20)], "n": list(range(20))})
    if kind == "parquet":
        pq.write_table(table, path, compression="none", use_dictionary=False)
    else:
        write_arrow(path, table)
    opened: list[CountingFile] = []
    real = storage.open_input

    def counting(uri: str, *, etag: str | None = None) -> CountingFile:
        opened.append(CountingFile(real(uri, etag=etag)))
        return opened[-1]

    monkeypatch.setattr(storage, "open_input", counting)
    assert len(items_of(path)) == 20
    assert 0 < sum(file.total for file in opened) < 500_000


def test_a_null_cell_is_an_empty_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    cells = [b"0", None, b"2", b"3", None, None]
    pq.write_table(pa.table({"img": pa.array(cells, pa.binary())}), path, row_group_size=2)
    items = items_of(path)
    assert [i.error for i in items] == [None if c is not None else ErrorCode.EMPTY for c in cells]
    assert len({i.item_id for i in items}) == 6


def test_a_null_struct_is_an_empty_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"image": [{"bytes": b"0", "path": "a.jpg"}, None, {"bytes": None, "path": "c.jpg"}]}), path
    )
    a, b, c = items_of(path)
    assert (a.error, a.objects[0].column, a.objects[0].name) == (None, "image.bytes", "a.jpg")
    assert (b.error, b.attributes) == (ErrorCode.EMPTY, {})
    assert (c.error, c.attributes) == (ErrorCode.EMPTY, {"image.path": "c.jpg"})
    assert cells_of(path, 0, "image.bytes") == [b"0", ErrorCode.EMPTY, ErrorCode.EMPTY]


def test_arrow_batches_are_read_as_groups(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    write_arrow(path, pa.table({"img": [b"0", b"1", b"2"], "k": ["a", "b", "c"]}))
    items = items_of(path)
    assert [(i.objects[0].row_group, i.objects[0].row, i.attributes["k"]) for i in items] == [
        (0, 0, "a"),
        (0, 1, "b"),
        (1, 0, "c"),
    ]
    assert cells_of(path, 1, "img", 1) == [b"2"]


def test_an_arrow_file_of_bytes_alone_is_listed(tmp_path: Path) -> None:
    write_arrow(tmp_path / "t.arrow", pa.table({"img": [b"0", b"1", b"2"]}))
    assert len(items_of(tmp_path / "t.arrow")) == 3


def test_an_arrow_stream_is_a_usage_error(tmp_path: Path) -> None:
    table = pa.table({"img": [b"0"]})
    with pa.ipc.new_stream(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UsageError, match="an Arrow stream has no index"):
        items_of(tmp_path / "t.arrow")


def test_repeated_ids_stay_unique(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": [b"0", b"1"], "item_id": ["x", "x"]}), tmp_path / "t.parquet")
    first, second = items_of(tmp_path / "t.parquet")
    assert (first.item_id, first.attributes) == ("x", {})
    assert second.item_id.startswith("x~")
    assert second.attributes == {"item_id": "x"}


@pytest.mark.parametrize(
    ("columns", "options", "says"),
    [
        ({"a": [b"0"], "b": [b"0"]}, {}, "several bytes columns .a, b.: name one by source.bytes_column"),
        ({"a": [b"0"]}, {"bytes_column": "b"}, "no bytes column 'b'; it has: a"),
        ({"a": ["x"]}, {"type": "parquet"}, "no bytes column; its columns are: a"),
        ({"a": ["x"]}, {}, "neither a column `uri` .a manifest. nor a column of bytes"),
        ({"uri": ["x"], "a": [b"0"]}, {}, "has both a column `uri` and a column of bytes"),
    ],
)
def test_a_table_that_does_not_say_which_column_is_a_usage_error(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=says):
        items_of(tmp_path / "t.parquet", **options)


def test_a_named_column_is_taken(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [b"0"], "b": [b"1"]}), tmp_path / "t.parquet")
    (item,) = items_of(tmp_path / "t.parquet", bytes_column="b")
    assert item.objects[0].column == "b"


def test_a_folder_of_tables_goes_on_after_one_that_is_not(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": [b"0"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "c.txt").write_bytes(b"x")
    pq.write_table(pa.table({"img": [b"0"]}), tmp_path / "d.parquet")
    items = items_of(tmp_path, type="parquet")
    assert [i.error for i in items] == [None, ErrorCode.CORRUPT, None]


@pytest.mark.parametrize(
    ("columns", "kind"), [({"uri": ["x"]}, "manifest"), ({"img": [b"0"]}, "parquet"), ({"uri": [b"0"]}, "parquet")]
)
def test_auto_tells_a_manifest_from_a_table_by_its_columns(tmp_path: Path, columns: dict[str, Any], kind: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert source_type(str(tmp_path / "t.parquet"), SourceConfig()) == kind


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("s3://b/x.csv", "manifest"),
        ("x.NDJSON", "manifest"),
        ("s3://b/*.tar", "webdataset"),
        ("x.tar.gz", "webdataset"),
        ("s3://b/photos/", "prefix"),
        ("s3://b/**/*.jpg", "prefix"),
    ],
)
def test_auto_goes_by_name(source: str, kind: str) -> None:
    assert kind_by_name(source) == kind


def test_a_cell_that_is_gone_or_damaged_is_an_item_error(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"img": [b"0"]}), path)
    for group, column in ((1, "img"), (0, "gone")):
        assert cells_of(path, group, column, 1) == [ErrorCode.NOT_FOUND]
    path.write_bytes(b"PAR1 no")
    assert cells_of(path, 0, "img", 2) == [ErrorCode.CORRUPT] * 2

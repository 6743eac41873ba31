"""A listing takes bounded memory, whatever a small file unpacks to."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import open_source
from moderation.sources.ipc_sizes import read_blocks, refuse_bombs
from moderation.sources.items import MAX_ATTRIBUTE, MAX_ATTRIBUTES
from moderation.types import ErrorCode, Item

ROWS = 6000
MEGABYTE = "x" * 1_000_000
# Besides what the interpreter and its libraries take before anything is read. Of addresses, not of memory: what is
# held at once is 30 to 200 MB.
LIMIT_BYTES = 1 << 30

SCRIPT = """
import json, resource, sys
from moderation.config.model import SourceConfig
from moderation.sources import open_source
from moderation.sources.cells import read_pictures
baseline = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (baseline + int(sys.argv[2]),) * 2)
items = list(open_source(sys.argv[1], SourceConfig()))
lengths = [len(value) for item in items for value in item.attributes.values()]
errors = sorted({str(item.error) for item in items})
read = 0
for row, item in enumerate(items[:40]):
    for source in item.objects[:1] if item.objects and item.objects[0].column else ():
        leaf = source.column.partition("#")[0]
        for _, payload in read_pictures(source.uri, source.row_group, leaf, [(source.row, 0)]):
            read += isinstance(payload, bytes)
print(json.dumps({"items": len(items), "longest": max(lengths, default=0), "errors": errors, "read": read}))
"""


def repeated(value: Any, kind: pa.DataType | None = None) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array([value], kind))


def uris() -> list[str]:
    return [f"{n}.jpg" for n in range(ROWS)]


def one_long_attribute(path: Path) -> None:
    pq.write_table(pa.table({"uri": uris(), "note": repeated(MEGABYTE)}), path, compression="zstd", store_schema=False)


def one_long_attribute_as_dictionary(path: Path) -> None:
    pq.write_table(pa.table({"uri": uris(), "note": repeated(MEGABYTE)}), path, compression="zstd")


def plain_long_attributes(path: Path) -> None:
    note = pa.chunked_array([pa.array([MEGABYTE]) for _ in range(ROWS)])
    table = pa.table({"uri": uris(), "note": note})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_batch_size=16)


def long_elements(path: Path) -> None:
    elements = pa.DictionaryArray.from_arrays(pa.array([0] * (ROWS * 2), pa.int32()), pa.array([MEGABYTE]))
    lists = pa.ListArray.from_arrays(pa.array(range(0, ROWS * 2 + 1, 2), pa.int32()), elements)
    pq.write_table(pa.table({"uri": uris(), "tags": lists}), path, compression="zstd")


def long_group(path: Path) -> None:
    table = {"uri": uris(), "group": [str(n // 2) for n in range(ROWS)], "note": repeated(MEGABYTE)}
    pq.write_table(pa.table(table), path, compression="zstd")


def one_long_uri(path: Path) -> None:
    pq.write_table(pa.table({"uri": repeated(MEGABYTE)}), path, compression="zstd", store_schema=False)


def one_long_picture(path: Path) -> None:
    table = {"image": repeated(MEGABYTE.encode(), pa.binary()), "note": repeated(MEGABYTE)}
    pq.write_table(pa.table(table), path, compression="zstd", store_schema=False)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("write", "error"),
    [
        (one_long_attribute, "None"),
        (one_long_attribute_as_dictionary, "None"),
        (plain_long_attributes, "None"),
        (long_elements, "None"),
        (long_group, "None"),
        (one_long_uri, "corrupt"),
        (one_long_picture, "None"),
    ],
)
def test_six_gigabytes_in_a_small_table_are_listed_in_one(
    tmp_path: Path, write: Callable[[Path], None], error: str
) -> None:
    path = tmp_path / "m.parquet"
    write(path)
    assert path.stat().st_size < 2_000_000
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(LIMIT_BYTES)],
        capture_output=True, text=True, check=False, env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["items"] == (ROWS // 2 if write is long_group else ROWS)
    assert told["errors"] == [error]
    assert told["longest"] <= MAX_ATTRIBUTE + 40
    assert told["read"] == (40 if write is one_long_picture else 0)


def write_bomb(path: Path, codec: str, *, dictionary: bool = False) -> None:
    """A small file of two batches, of which the second, or what both share, unpacks to more than half a gigabyte."""
    texts = pa.array(["x" * (1 << 26)] * 9, pa.large_string())
    column = pa.DictionaryArray.from_arrays(pa.array(range(9), pa.int32()), texts) if dictionary else texts
    table = pa.table({"uri": [f"{n}.jpg" for n in range(9)], "note": column})
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table.slice(0, 1))
        writer.write_table(table)


@pytest.mark.parametrize("dictionary", [False, True], ids=["batch", "dictionary"])
def test_a_batch_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path, dictionary: bool) -> None:
    path = tmp_path / "bomb.arrow"
    write_bomb(path, "zstd", dictionary=dictionary)
    assert path.stat().st_size < 2_000_000
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(LIMIT_BYTES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    # The first batch of one row is within the bounds; of one that is not read, the rows are not known.
    assert told["errors"] == (["too_large"] if dictionary else ["None", "too_large"])
    assert told["items"] == 2


@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_batches_within_the_bounds_are_read_whatever_their_types(tmp_path: Path, codec: str | None) -> None:
    columns = {
        "uri": [f"{n}.jpg" for n in range(3)],
        "tags": [["a", "b"], [], None],
        "size": pa.array([{"w": 1, "h": None}] * 3),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "seen": pa.array([True, None, False]),
        "view": pa.array(["a" * 40, "b", None], pa.string_view()),
        "nothing": pa.nulls(3),
    }
    table = pa.table(columns)
    with pa.ipc.new_file(tmp_path / "m.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as file:
        file.write_table(table)
        file.write_table(table.slice(1))
    items = items_of(tmp_path / "m.arrow")
    assert [item.error for item in items] == [None] * 5
    with pa.OSFile(str(tmp_path / "m.arrow")) as opened:
        blocks = read_blocks(opened)
        assert (len(blocks.dictionaries), len(blocks.batches)) == (1, 2)
        refuse_bombs(opened, blocks, 1)


@given(st.data())
def test_a_harmed_index_of_batches_is_damage_and_nothing_else(data: st.DataObject) -> None:
    sink = io.BytesIO()
    table = pa.table({"uri": ["a.jpg"] * 9, "note": ["x" * 999] * 9})
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    harmed = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        harmed[data.draw(st.integers(8, len(harmed) - 1))] = data.draw(st.integers(0, 255))
    file = io.BytesIO(bytes(harmed))
    with contextlib.suppress(pa.ArrowInvalid, pa.ArrowCapacityError):
        blocks = read_blocks(file)
        for batch in range(min(3, len(blocks.batches))):
            refuse_bombs(file, blocks, batch)


def test_the_index_of_a_tar_is_bounded_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "many.tar"
    with tarfile.open(path, "w") as tar:
        for n in range(60):
            for suffix, content in (("jpg", b"x"), ("json", json.dumps({"note": "n" * 50_000}).encode())):
                member = tarfile.TarInfo(f"{n:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert len(items_of(path)) == 60
    items = items_of(path, max_grouped_bytes=4 << 20)
    assert 15 < len(items) < 25
    assert items[-1].error is ErrorCode.TOO_LARGE and "max_grouped_bytes" in items[-1].error_detail
    assert all(item.error is None for item in items[:-1])


def items_of(path: Path, **options: Any) -> list[Item]:
    return list(open_source(str(path), SourceConfig(**options)))


def test_a_long_attribute_is_cut_and_marked(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"uri": "a.jpg", "note": "é" * 20_000, "short": "s"}))
    pq.write_table(pa.table({"uri": ["a.jpg"], "note": ["é" * 20_000], "short": ["s"]}), tmp_path / "m.parquet")
    for name, length in (("m.jsonl", "20,000"), ("m.parquet", "40,000")):
        (item,) = items_of(tmp_path / name)
        assert item.attributes["short"] == "s"
        assert item.attributes["note"].startswith("é" * MAX_ATTRIBUTE + "... [cut:")
        assert length in item.attributes["note"]


def test_many_attributes_are_cut_in_all(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"uri": "a.jpg"} | {f"c{n}": "x" * 1000 for n in range(500)}))
    (item,) = items_of(tmp_path / "m.jsonl")
    assert "left out" in item.attributes["attributes_cut"]
    assert sum(map(len, item.attributes.values())) < MAX_ATTRIBUTES + 100


def test_a_long_id_is_shortened_and_stays_its_own(tmp_path: Path) -> None:
    rows = [{"uri": f"{n}.jpg", "item_id": "x" * 5000 + str(n)} for n in range(2)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = items_of(tmp_path / "m.jsonl")
    assert first.item_id != second.item_id
    assert len(first.item_id) < 200


def test_limits_in_bytes_are_usage_errors(tmp_path: Path) -> None:
    rows = [{"uri": f"{n}.jpg", "note": "x" * 8000} for n in range(300)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match="max_manifest_bytes"):
        items_of(tmp_path / "m.jsonl", max_manifest_bytes=1 << 20)
    (tmp_path / "g.jsonl").write_text("\n".join(json.dumps({**row, "group": "g"}) for row in rows))
    with pytest.raises(UsageError, match="max_grouped_bytes"):
        items_of(tmp_path / "g.jsonl", max_grouped_bytes=1 << 20)


def test_a_table_of_more_rows_than_allowed_is_a_usage_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"] * 20}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="max_manifest_rows"):
        items_of(tmp_path / "t.parquet", max_manifest_rows=10)


def test_null_rows_are_not_gathered(tmp_path: Path) -> None:
    rows = 50_000
    pq.write_table(pa.table({"image": pa.nulls(rows, pa.binary())}), tmp_path / "t.parquet")
    assert {item.error for item in open_source(str(tmp_path / "t.parquet"), SourceConfig())} == {ErrorCode.EMPTY}

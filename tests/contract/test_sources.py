"""What every source promises, on local files and in memory: each kind is built from the same pictures."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation import storage
from moderation.config.model import ShardConfig, SourceConfig
from moderation.errors import UsageError
from moderation.planning.shards import make_shards, shards_from_table, shards_to_table
from moderation.sources import open_source, read_cells
from moderation.types import Item, MediaObject

PICTURES = {f"{folder}/{n:03}.jpg": bytes([n]) * (100 + 700 * n) for n in range(7) for folder in ("a", "b")}


def write_files(root: str) -> str:
    for name, data in PICTURES.items():
        storage.publish(f"{root}/{name}", data)
    return root


def write_glob(root: str) -> str:
    return f"{write_files(root)}/*/*.jpg"


def _rows() -> list[dict[str, str]]:
    return [{"uri": name, "label": name[0]} for name in PICTURES]


def write_csv(root: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["uri", "label"])
    writer.writeheader()
    writer.writerows(_rows())
    storage.publish(f"{write_files(root)}/m.csv", text.getvalue().encode())
    return f"{root}/m.csv"


def write_jsonl(root: str) -> str:
    storage.publish(f"{write_files(root)}/m.jsonl", "\n".join(map(json.dumps, _rows())).encode())
    return f"{root}/m.jsonl"


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=5)
    return out.getvalue()


def _arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return out.getvalue()


def write_manifest_parquet(root: str) -> str:
    storage.publish(f"{write_files(root)}/m.parquet", _parquet(pa.Table.from_pylist(_rows())))
    return f"{root}/m.parquet"


def tar_of(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def write_tars(root: str) -> str:
    for folder in ("a", "b"):
        files = {name: data for name, data in PICTURES.items() if name.startswith(folder)}
        storage.publish(f"{root}/{folder}.tar", tar_of(files))
    return f"{root}/*.tar"


def _cells() -> pa.Table:
    return pa.table({"image": list(PICTURES.values()), "name": list(PICTURES), "n": list(range(len(PICTURES)))})


def write_parquet(root: str) -> str:
    storage.publish(f"{root}/t.parquet", _parquet(_cells()))
    return f"{root}/t.parquet"


def write_arrow(root: str) -> str:
    storage.publish(f"{root}/t.arrow", _arrow(_cells()))
    return f"{root}/t.arrow"


def write_nested_parquet(root: str) -> str:
    cells = [{"bytes": data, "path": name} for name, data in PICTURES.items()]
    storage.publish(f"{root}/t.parquet", _parquet(pa.table({"image": cells})))
    return f"{root}/t.parquet"


WRITERS: dict[str, Callable[[str], str]] = {
    "prefix": write_files,
    "glob": write_glob,
    "csv": write_csv,
    "jsonl": write_jsonl,
    "manifest-parquet": write_manifest_parquet,
    "tars": write_tars,
    "parquet": write_parquet,
    "nested-parquet": write_nested_parquet,
    "arrow": write_arrow,
}


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "data")
        return
    name = f"memory://{uuid.uuid4().hex}"
    yield name
    memory = fsspec.filesystem("memory")
    if memory.exists(name):
        memory.rm(name, recursive=True)


@pytest.fixture(params=list(WRITERS))
def source(request: pytest.FixtureRequest, root: str) -> str:
    return WRITERS[request.param](root)


def read(media: MediaObject) -> bytes:
    if media.column is not None:
        assert media.row_group is not None and media.row is not None
        ((_, cell),) = read_cells(media.uri, media.row_group, media.column, [media.row])
        assert isinstance(cell, bytes)
        return cell
    return storage.read_bytes(media.uri, offset=media.offset, length=media.size_bytes)


def items_of(source: str) -> list[Item]:
    return list(open_source(source, SourceConfig()))


def test_every_picture_is_one_item_with_its_own_bytes(source: str) -> None:
    items = items_of(source)
    assert all(item.error is None and len(item.objects) == 1 for item in items)
    assert sorted(read(item.objects[0]) for item in items) == sorted(PICTURES.values())


def test_names_end_as_the_pictures_do(source: str) -> None:
    assert all(item.objects[0].name.endswith(".jpg") for item in items_of(source))


def test_ids_are_unique_and_a_second_listing_is_equal(source: str) -> None:
    items = items_of(source)
    assert len({item.item_id for item in items}) == len(items) == len(PICTURES)
    assert items_of(source) == items


def test_attributes_are_text(source: str) -> None:
    assert all(isinstance(v, str) for item in items_of(source) for v in item.attributes.values())


def test_items_survive_the_plan(source: str) -> None:
    shards = list(make_shards(open_source(source, SourceConfig()), ShardConfig(max_items=4)))
    assert list(shards_from_table(shards_to_table(shards))) == shards
    assert [item for shard in shards for item in shard.items] == items_of(source)


@pytest.mark.parametrize("name", ["gone", "gone.csv", "gone.parquet", "gone.tar", "gone/*.jpg"])
def test_a_missing_source_is_a_usage_error(root: str, name: str) -> None:
    with pytest.raises(UsageError, match="nothing there"):
        open_source(f"{root}/{name}", SourceConfig())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.csv", b""),
        ("m.csv", b"uri,label\n"),
        ("m.jsonl", b"\n\n"),
        ("m.parquet", _parquet(pa.table({"uri": pa.array([], pa.string())}))),
        ("t.parquet", _parquet(pa.table({"image": pa.array([], pa.binary())}))),
        ("t.tar", tar_of({})),
    ],
)
def test_an_empty_source_is_a_usage_error(root: str, name: str, data: bytes) -> None:
    storage.publish(f"{root}/{name}", data)
    with pytest.raises(UsageError, match="empty"):
        open_source(f"{root}/{name}", SourceConfig())

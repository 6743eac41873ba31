"""A list is read in pieces of one version, and an object of which fewer bytes come than were listed is not judged."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation import storage
from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import ItemError
from moderation.sources import open_source, unpack
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode, Item, MediaObject

OLD = "".join(f"old/{n:05d}.jpg\n" for n in range(300)).encode()
NEW = "".join(f"new/picture/{n:05d}.jpg\n" for n in range(300)).encode()


def test_a_local_list_that_is_replaced_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "CHUNK", 1000)
    (tmp_path / "m.txt").write_bytes(OLD)
    items = open_source(str(tmp_path / "m.txt"), SourceConfig(type="manifest"))
    first = next(items)
    storage.publish(str(tmp_path / "m.txt"), NEW)
    rest = [item.uri for item in items]
    assert [first.uri, *rest] == [str(tmp_path / line.decode()) for line in OLD.split()]


@pytest.mark.parametrize("name", ["m.txt", "m.parquet"])
def test_a_stored_list_that_is_replaced_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "CHUNK", 1000)
    uri = f"memory://lists/{name}"
    for data in (OLD, NEW):
        pq.write_table(pa.table({"uri": data.decode().split()}), tmp_path / "x.parquet", row_group_size=50)
        content = data if name == "m.txt" else (tmp_path / "x.parquet").read_bytes()
        with fsspec.open(uri, "wb") as file:
            file.write(content)
        if data is OLD:
            items = open_source(uri, SourceConfig(type="manifest", allow=("memory://lists/",)))
            next(items)
    with pytest.raises(storage.ChangedError):
        list(items)


def test_fewer_bytes_than_were_listed_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    media = [
        MediaObject(uri="memory://b/a.jpg", name="a.jpg", size_bytes=10),
        MediaObject(uri="memory://b/a.jpg", name="b.jpg", size_bytes=6, offset=4),
        MediaObject(uri="memory://b/a.jpg", name="c.jpg", size_bytes=4),
        MediaObject(uri="memory://b/a.jpg", name="d.jpg"),
    ]
    with fsspec.open("memory://b/a.jpg", "wb") as file:
        file.write(b"12345")
    items = [Item(item_id=m.name, uri=m.uri, objects=(m,)) for m in media]
    fetch = Fetcher(items, MediaConfig())
    found = [payload.code if isinstance(payload, ItemError) else payload for i in items for payload in fetch(i)]
    assert found == [ErrorCode.CHANGED, ErrorCode.CHANGED, b"12345", b"12345"]


def test_a_local_list_that_becomes_shorter_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "CHUNK", 1000)
    (tmp_path / "m.txt").write_bytes(OLD)
    items = open_source(str(tmp_path / "m.txt"), SourceConfig(type="manifest"))
    next(items)
    os.truncate(tmp_path / "m.txt", 2500)
    with pytest.raises(storage.ChangedError, match="became shorter"):
        list(items)

"""The bytes that are judged are the bytes that were listed, or that the manifest named: else the item is an error."""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation import storage
from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import ItemError
from moderation.sources import open_source
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode, Item, MediaObject

ONE, TWO = b"\x89PNG one", b"\x89PNG two"  # of the same size


def fetched(item: Item) -> bytes | ErrorCode:
    (payload,) = Fetcher([item], MediaConfig())(item)
    return payload.code if isinstance(payload, ItemError) else payload


def the_item(source: str) -> Item:
    (item,) = open_source(source, SourceConfig())
    return item


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "in") if request.param == "local" else f"memory://changed-{tmp_path.name}"


@pytest.mark.parametrize("after", [TWO, ONE + b"more", b""])
def test_an_object_that_changed_after_it_was_listed_is_an_error(folder: str, after: bytes) -> None:
    uri = storage.join(folder, "a.png")
    storage.publish(uri, ONE)
    item = the_item(folder)
    assert fetched(item) == ONE
    storage.publish(uri, after)
    assert fetched(item) == ErrorCode.CHANGED
    assert fetched(the_item(folder)) in (after, ErrorCode.EMPTY)


def test_a_file_that_was_only_touched_has_changed_as_far_as_anybody_can_tell(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(ONE)
    item = the_item(str(tmp_path))
    os.utime(path, ns=(1, 1))
    assert fetched(item) == ErrorCode.CHANGED


def test_members_of_a_container_that_changed_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"0" * 512 + ONE)
    info = storage.info(str(path))
    member = MediaObject(uri=str(path), name="a.png", size_bytes=len(ONE), etag=info.etag, offset=512)
    item = Item(item_id="a", uri=f"{path}#a.png", objects=(member,))
    assert fetched(item) == ONE
    path.write_bytes(ONE + b"0" * 512)
    assert fetched(item) == ErrorCode.CHANGED


def test_cells_of_a_table_that_was_written_anew_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for content in (ONE, TWO):
        pq.write_table(pa.table({"img": pa.array([content], pa.binary())}), path)
        item = the_item(str(path))
        assert fetched(item) == content
        if content == ONE:
            before = item
    os.utime(path, ns=(1, 1))
    assert fetched(before) == ErrorCode.CHANGED


def test_the_sha256_of_a_manifest_names_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(ONE)
    media = MediaObject(uri=str(tmp_path / "a.png"), name="a.png")
    named = Item(item_id="a", uri=media.uri, objects=(media,), attributes={"content_hash": sha256(ONE).hexdigest()})
    assert fetched(named) == ONE
    lie = replace(named, attributes={"content_hash": sha256(TWO).hexdigest().upper()})
    assert fetched(lie) == ErrorCode.CHANGED
    # A hash of another kind says nothing.
    assert fetched(replace(named, attributes={"content_hash": "1234"})) == ONE

"""A prefix: every file is an item."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import open_source
from moderation.types import ErrorCode

SHARED = Path(__file__).parents[4] / "shared" / "data"


def test_every_file_is_an_item_whatever_its_name(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/README", "a/empty.png", "._x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"" if "empty" in name else b"x")
    items = list(open_source(str(tmp_path), SourceConfig()))
    assert sorted(i.objects[0].name for i in items) == ["._x", "README", "b.jpg", "empty.png"]
    assert all(i.error is None and i.kind is None and i.objects[0].etag for i in items)


def test_a_file_changed_in_place_has_another_etag_and_the_same_id(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    (before,) = open_source(str(path), SourceConfig())
    path.write_bytes(b"xy")
    (after,) = open_source(str(path), SourceConfig())
    assert before.item_id == after.item_id
    assert before.objects[0].etag != after.objects[0].etag


def test_a_name_that_is_not_utf8_is_an_error_row(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (item,) = open_source(str(tmp_path), SourceConfig())
    assert item.error is ErrorCode.NOT_FOUND
    assert item.uri.endswith("odd-\\udcff.jpg")


def test_an_empty_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty: holds no files"):
        open_source(str(tmp_path), SourceConfig())


def test_an_unknown_scheme_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown scheme"):
        open_source("nowhere://x", SourceConfig())


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_the_sample_data_is_listed_whole() -> None:
    items = list(open_source(str(SHARED), SourceConfig()))
    folders = [Path(i.uri).parent.name for i in items]
    assert {name: folders.count(name) for name in ("images", "videos", "faces")} == {
        "images": 200,
        "videos": 6,
        "faces": 6,
    }
    assert all(Path(i.uri).stat().st_size == i.size_bytes for i in items)

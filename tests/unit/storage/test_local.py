"""Local files: names that look like patterns, links, atomic writes; spelling of URIs."""

from __future__ import annotations

import os
import threading
from itertools import islice
from pathlib import Path

import pytest

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import FatalError, UsageError
from moderation.sources import open_source


def listed(uri: Path | str) -> list[str]:
    return [o.uri for o in storage.list_objects(str(uri))]


@pytest.mark.parametrize("name", ["holiday [2024]", "all*", "what?", "[a]"])
def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "x [1].jpg").write_bytes(b"x")
    (tmp_path / "all of it").mkdir()
    (tmp_path / "all of it" / "y.jpg").write_bytes(b"y")
    assert listed(tmp_path / name) == [str(tmp_path / name / "x [1].jpg")]
    assert listed(tmp_path / name / "x [1].jpg") == [str(tmp_path / name / "x [1].jpg")]
    assert [i.uri for i in open_source(str(tmp_path / name), SourceConfig())] == listed(tmp_path / name)


def test_a_folder_of_tars_whose_name_looks_like_a_pattern_is_filtered_by_suffix(tmp_path: Path) -> None:
    folder = tmp_path / "tables [1]"
    folder.mkdir()
    (folder / "readme.txt").write_bytes(b"x")
    with pytest.raises(UsageError, match="empty"):
        list(open_source(str(folder), SourceConfig(type="webdataset")))


def test_a_pattern_stays_one_where_nothing_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "a.jpg").write_bytes(b"x")
    assert storage.is_glob(str(tmp_path / "[1]" / "*.jpg"))
    assert not storage.is_glob(str(tmp_path))
    assert listed(tmp_path / "[1]" / "*.jpg") == [str(tmp_path / "1" / "a.jpg")]


def test_a_dangling_link_is_listed(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    for uri in (tmp_path, tmp_path / "*.jpg"):
        (found,) = storage.list_objects(str(uri))
        assert (found.uri, found.size_bytes, found.etag) == (str(tmp_path / "gone.jpg"), 0, None)


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert listed(tmp_path) == [str(tmp_path / "a.jpg")]


def test_the_first_object_comes_before_the_listing_has_ended(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"x")
    for uri in (tmp_path, tmp_path / "**" / "*.jpg"):
        objects = storage.list_objects(str(uri))
        assert [o.uri for o in islice(objects, 1)] == [str(tmp_path / "a" / "x.jpg")]
        (tmp_path / "b" / "late.jpg").write_bytes(b"x")
        assert str(tmp_path / "b" / "late.jpg") in [o.uri for o in objects]
        (tmp_path / "b" / "late.jpg").unlink()


def test_a_pattern_without_two_stars_looks_no_deeper_than_it_must(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"x")
    (tmp_path / "y.jpg").write_bytes(b"x")
    deep = tmp_path / "a" / "deep"
    deep.mkdir()
    # A loop of names that would make a full walk fail.
    (deep / ("n" * 200)).mkdir()
    assert listed(tmp_path / "*.jpg") == [str(tmp_path / "y.jpg")]
    assert listed(tmp_path / "*" / "*.jpg") == [str(tmp_path / "a" / "x.jpg")]


def test_a_reader_sees_all_of_a_write_or_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.bin")
    bodies = {bytes([n]) * 300_000 for n in range(4)}
    storage.publish(uri, bytes(300_000))
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(storage.read_bytes(uri))

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=storage.publish, args=(uri, body)) for body in bodies]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert seen <= bodies
    assert os.listdir(tmp_path) == ["a.bin"]  # noqa: PTH208 - hidden leftovers count too


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FatalError, match="cannot write"):
        storage.publish(str(tmp_path / "folder"), b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_permission_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0)
    with pytest.raises(PermissionError):
        storage.read_bytes(str(tmp_path / "a"))


def test_below_a_file_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert storage.read_optional(str(tmp_path / "a" / "b")) is None


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///a/./b/../c", "/a/c"),
        ("/a//b/", "/a/b"),
        ("memory:///a/b", "memory://a/b"),
        ("s3://bucket/a/../b", "s3://bucket/a/../b"),
    ],
)
def test_an_object_has_one_spelling(uri: str, expected: str) -> None:
    assert storage.canonical(uri) == expected
    assert storage.canonical(expected) == expected


def test_an_unknown_scheme_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown scheme 'htps'"):
        storage.canonical("htps://a/b")

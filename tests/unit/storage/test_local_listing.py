"""Folders that are not as they should be: each fault costs its own entry, and the listing goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from moderation import storage
from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources import open_source
from moderation.sources.fetch import Fetcher
from moderation.storage import local_listing
from moderation.types import ErrorCode, Item, MediaObject


def errors_of(folder: Path, **options: object) -> dict[str, ErrorCode | None]:
    items = open_source(str(folder), SourceConfig.model_validate(options))
    return {item.uri.removeprefix(f"{folder}/"): item.error for item in items}


def test_loops_dangling_links_and_what_lies_below_a_file_cost_their_row(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "below.jpg").symlink_to("a.jpg/b")
    (tmp_path / "long.jpg").symlink_to("n" * 300)
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "z.jpg").write_bytes(b"x")
    errors = errors_of(tmp_path)
    assert (errors.pop("a.jpg"), errors.pop("z.jpg"), errors.pop("long.jpg")) == (None, None, ErrorCode.FETCH_FAILED)
    assert errors == dict.fromkeys(("loop.jpg", "one", "two", "below.jpg", "gone.jpg"), ErrorCode.NOT_FOUND)


def test_pipes_sockets_and_devices_are_rows_and_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "socket.jpg"))
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert errors_of(tmp_path) == {
        "a.jpg": None,
        "pipe.jpg": ErrorCode.UNSUPPORTED_TYPE,
        "socket.jpg": ErrorCode.UNSUPPORTED_TYPE,
        "zero.jpg": ErrorCode.UNSUPPORTED_TYPE,
    }
    bound.close()


@pytest.mark.timeout(30)
def test_a_pipe_or_a_device_that_a_manifest_names_does_not_hang_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/zero"):
        source = MediaObject(uri=name, name="x.jpg")
        (payload,) = Fetcher([], MediaConfig())(Item(item_id="x", uri=name, objects=(source,)))
        assert isinstance(payload, ItemError) and payload.code is ErrorCode.UNSUPPORTED_TYPE


def test_a_pipe_as_source_is_a_usage_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="a named pipe; only regular files"):
        open_source(str(tmp_path / "pipe"), SourceConfig())


def test_a_file_that_has_grown_is_read_to_the_limit_and_one_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(5000))
    # As listed when it had 10 bytes.
    source = MediaObject(uri=str(path), name="a.jpg", size_bytes=10)
    (payload,) = Fetcher([], MediaConfig(max_bytes=1000))(Item(item_id="x", uri=str(path), objects=(source,)))
    assert isinstance(payload, ItemError) and payload.code is ErrorCode.TOO_LARGE
    assert "1001 bytes" in payload.detail


def test_links_out_of_the_source_are_forbidden_unless_allowed(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    for folder in (source / "sub", elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "secret.jpg").write_bytes(b"x")
    (source / "own.jpg").write_bytes(b"x")
    (source / "sub" / "inner.jpg").symlink_to(source / "own.jpg")
    (source / "out.jpg").symlink_to(elsewhere / "secret.jpg")
    (source / "folder").symlink_to(elsewhere)
    expected = {"own.jpg": None, "sub/inner.jpg": None, "out.jpg": ErrorCode.FORBIDDEN, "folder": ErrorCode.FORBIDDEN}
    assert errors_of(source) == expected
    assert errors_of(source, allow=(str(elsewhere),)) == {**expected, "out.jpg": None}
    # The source itself may be a link: whoever calls has named it.
    (tmp_path / "link").symlink_to(source)
    assert {k: v for k, v in errors_of(tmp_path / "link").items() if v} == {
        "out.jpg": ErrorCode.FORBIDDEN, "folder": ErrorCode.FORBIDDEN,
    }  # fmt: skip
    with_pattern = open_source(f"{source}/*.jpg", SourceConfig())
    assert {Path(i.uri).name: i.error for i in with_pattern} == {"own.jpg": None, "out.jpg": ErrorCode.FORBIDDEN}


def test_a_folder_that_may_not_be_listed_costs_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"x")
    scandir = os.scandir

    def refuse(path: str) -> object:
        # As root, whom no permission stops, it cannot be had for real.
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(local_listing.os, "scandir", refuse)
    assert errors_of(tmp_path) == {"a/x.jpg": None, "b/": ErrorCode.FORBIDDEN, "c/x.jpg": None}


def test_folders_nested_deeper_than_calls_and_paths_may_be(tmp_path: Path) -> None:
    deep = 2200  # past Python's limit of calls, and past the 4096 bytes of a path
    script = f"import os\nfor _ in range({deep}):\n    os.mkdir('d'); os.chdir('d')\n"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    (tmp_path / "z.jpg").write_bytes(b"x")
    first, *_, last = storage.list_objects(str(tmp_path))
    assert first.error is ErrorCode.FETCH_FAILED and first.uri.endswith("/d/")
    assert (last.uri, last.error) == (str(tmp_path / "z.jpg"), None)
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


@pytest.mark.parametrize("name", ["n" * 300, "a.jpg/below", "loop"])
def test_a_source_that_the_system_refuses_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError):
        open_source(str(tmp_path / name), SourceConfig())


def test_names_in_a_manifest_that_the_system_refuses_are_rows(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "a.jpg").write_bytes(b"x")
    names = ["n" * 300 + ".jpg", "a.jpg/below.jpg", "loop.jpg", "/".join(["d" * 200] * 30) + "/a.jpg"]
    (tmp_path / "m.csv").write_text("uri\n" + "\n".join(names) + "\n")
    items = list(open_source(str(tmp_path / "m.csv"), SourceConfig()))
    fetch = Fetcher(items, MediaConfig())
    codes = [item.error or payload.code for item in items for payload in fetch(item) or [ItemError(item.error)]]  # type: ignore[union-attr, arg-type]  # all are errors
    assert set(codes) <= {ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN} and len(codes) == 4


def test_nothing_is_there_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError):
        list(storage.list_objects(str(tmp_path / "file" / "receipts")))

"""A manifest may name parts of tars and tables as a run's own tables do, and gets what the packed source would give."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from moderation.config.model import MediaConfig, SourceConfig
from moderation.sources import open_source
from moderation.sources.fetch import Fetcher
from moderation.sources.packed import split_packed
from moderation.types import ErrorCode, Item


def write_tar(folder: Path) -> Path:
    with tarfile.open(folder / "x.tar", "w") as tar:
        for name in ("a/1.jpg", "a/1.json", "b/2.jpg", "c.1.jpg", "c.2.jpg"):
            data = b"{}" if name.endswith("json") else name.encode() * 50
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return folder / "x.tar"


def write_parquet(folder: Path) -> Path:
    table = pa.table({"image": [b"one" * 9, b"two" * 9, b"three" * 9, b"four" * 9, b"five" * 9]})
    pq.write_table(table, folder / "x.parquet", row_group_size=2)
    return folder / "x.parquet"


def write_lists(folder: Path) -> Path:
    rows = [[b"one" * 9], [b"two" * 9, b"three" * 9], [b"four" * 9]]
    pq.write_table(pa.table({"images": pa.array(rows, pa.list_(pa.binary()))}), folder / "x.parquet", row_group_size=2)
    return folder / "x.parquet"


def write_arrow(folder: Path) -> Path:
    table = pa.table({"image": [b"one" * 9, b"two" * 9, b"three" * 9]})
    with pa.ipc.new_file(folder / "x.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return folder / "x.arrow"


def write_manifest(folder: Path, *uris: str) -> str:
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in uris))
    return str(path)


def payloads(items: list[Item]) -> list[list[object]]:
    fetch = Fetcher(items, MediaConfig())
    return [fetch(item) for item in items]


@pytest.mark.parametrize("write", [write_tar, write_parquet, write_lists, write_arrow])
def test_what_a_run_calls_an_item_is_that_item(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    packed = list(open_source(str(write(tmp_path)), SourceConfig()))
    assert len(packed) >= 3
    # In another order, so that an index is asked for what lies behind and before.
    uris = [item.uri for item in reversed(packed)]
    named = list(open_source(write_manifest(tmp_path, *uris), SourceConfig()))
    assert [(i.item_id, i.uri, i.objects, i.kind) for i in reversed(named)] == [
        (i.item_id, i.uri, i.objects, i.kind) for i in packed
    ]
    assert payloads(list(reversed(named))) == payloads(packed)


def test_the_verdicts_of_a_run_over_packed_data_are_a_manifest(tmp_path: Path) -> None:
    items = list(open_source(str(write_parquet(tmp_path)), SourceConfig()))
    rows = [{"item_id": i.item_id, "uri": i.uri, "verdict": "review", "etag": None} for i in items[1:3]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "reviews.parquet")
    named = list(open_source(str(tmp_path / "reviews.parquet"), SourceConfig()))
    assert [(i.item_id, i.objects) for i in named] == [(i.item_id, i.objects) for i in items[1:3]]
    assert named[0].attributes["verdict"] == "review"


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("x.tar#nosuch.jpg", ErrorCode.NOT_FOUND),
        ("x.parquet#row=5", ErrorCode.NOT_FOUND),
        ("x.parquet#row=-1", ErrorCode.NOT_FOUND),
        ("x.parquet#7", ErrorCode.NOT_FOUND),
        ("x.parquet#row=99999999999999999999", ErrorCode.NOT_FOUND),
        ("gone.tar#a.jpg", ErrorCode.NOT_FOUND),
        ("gone.parquet#row=0", ErrorCode.NOT_FOUND),
        ("broken.parquet#row=0", ErrorCode.CORRUPT),
        ("../out/x.tar#a.jpg", ErrorCode.FORBIDDEN),
        ("/etc/x.parquet#row=0", ErrorCode.FORBIDDEN),
    ],
)
def test_what_is_not_there_or_not_allowed_is_a_row(tmp_path: Path, uri: str, code: ErrorCode) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    write_tar(inside)
    write_parquet(inside)
    (inside / "broken.parquet").write_bytes(b"PAR1 no")
    good, bad = open_source(write_manifest(inside, "x.tar#b/2.jpg", uri), SourceConfig())
    assert good.error is None
    assert bad.error is code
    assert bad.uri == uri


def test_a_link_to_a_container_elsewhere_is_forbidden(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.tar").symlink_to(write_tar(tmp_path))
    (item,) = open_source(write_manifest(tmp_path / "in", "x.tar#b/2.jpg"), SourceConfig())
    assert item.error is ErrorCode.FORBIDDEN


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://b/x.tar#a#b.jpg", ("s3://b/x.tar", "a#b.jpg")),
        ("s3://b/X.PARQUET#row=1", ("s3://b/X.PARQUET", "row=1")),
        ("s3://b/photo#1.jpg", None),
        ("s3://b/x.tar", None),
        ("s3://b/x.tar#", None),
        ("x.tarp#a", None),
    ],
)
def test_a_part_is_told_from_a_name(uri: str, parts: tuple[str, str] | None) -> None:
    assert split_packed(uri) == parts


@pytest.mark.parametrize("uris", [("x.tar#a/1.jpg", "x.tar#b/2.jpg"), ("x.parquet#row=0", "x.parquet#row=1")])
def test_keyframes_in_a_container_have_the_frames_and_times_of_their_rows(
    tmp_path: Path, uris: tuple[str, str]
) -> None:
    write_tar(tmp_path)
    write_parquet(tmp_path)
    rows = [{"uri": uri, "item_id": "v", "frame": 7 * n, "time_s": 90.0 * n} for n, uri in enumerate(uris)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (item,) = open_source(str(tmp_path / "m.jsonl"), SourceConfig())
    assert [(o.frame, o.time_s) for o in item.objects] == [(0, 0.0), (7, 90.0)]


def test_a_name_that_several_items_of_a_tar_have_is_an_error_row(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in (("a.mp4", b"one"), ("b.jpg", b"two"), ("a.mp4", b"three")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    twice, once = open_source(write_manifest(tmp_path, "x.tar#a.mp4", "x.tar#b.jpg"), SourceConfig())
    assert (twice.error, once.error) == (ErrorCode.CORRUPT, None)

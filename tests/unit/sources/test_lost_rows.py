"""Albums and keyframes of which rows or members could not be read are error rows: what came of them is not all."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation.config.model import MediaConfig, SourceConfig
from moderation.sources import open_source, webdataset
from moderation.sources.fetch import Fetcher
from moderation.sources.items import make_id
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item, Kind

Fact = tuple[str, ErrorCode | None, int]


def facts(items: list[Item]) -> list[Fact]:
    return [(item.item_id, item.error, len(item.objects)) for item in items]


def read(path: Path, **options: object) -> list[Item]:
    return list(open_source(str(path), SourceConfig.model_validate(options)))


def write_tar(path: Path, members: dict[str, bytes], cut: int | None = None) -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    path.write_bytes(out.getvalue()[:cut])
    return path


def test_the_albums_beside_an_unreadable_row_are_error_rows_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri,group\n0.jpg,far\na.jpg,left\nb.jpg,stray,left\nc.jpg,right\nd.jpg,right\ne.jpg,after\n")
    found = {item.item_id: item for item in read(path) if item.item_id in ("far", "left", "right", "after")}
    assert {name: item.error for name, item in found.items()} == {
        "far": None, "left": ErrorCode.CORRUPT, "right": ErrorCode.CORRUPT, "after": None,
    }  # fmt: skip
    assert "may belong to this item" in found["left"].error_detail and "line 4" in found["right"].error_detail


def test_keyframes_with_a_broken_line_among_them_are_one_error_row(tmp_path: Path) -> None:
    lines = [json.dumps({"uri": f"{n}.jpg", "item_id": "v", "frame": n}) for n in range(3)]
    lines[1] = lines[1][:-1]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    whole, line = read(tmp_path / "m.jsonl")
    assert (whole.item_id, whole.error, line.error) == ("v", ErrorCode.CORRUPT, ErrorCode.CORRUPT)


def test_an_album_at_which_a_packed_list_is_cut_is_an_error_row(tmp_path: Path) -> None:
    text = "".join(
        json.dumps({"uri": f"{n}.jpg", "group": f"g{n // 40}", "n": f"{n * 7919}"}) + "\n" for n in range(99)
    )
    data = gzip.compress(text.encode())
    (tmp_path / "m.jsonl.gz").write_bytes(data[: len(data) // 2])
    *albums, lost = read(tmp_path / "m.jsonl.gz")
    assert [a.error for a in albums] == [None] * (len(albums) - 1) + [ErrorCode.CORRUPT]
    assert lost.error is ErrorCode.CORRUPT


def test_rows_that_stand_alone_are_judged_beside_an_unreadable_one(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,group\na.jpg,\nb.jpg,x,y\n,\nc.jpg,\nd.jpg,g\n")
    assert [item.error for item in read(tmp_path / "m.csv")] == [
        None, ErrorCode.CORRUPT, ErrorCode.NOT_FOUND, None, None,
    ]  # fmt: skip


MEMBERS = {"a.1.jpg": b"1", "a.2.jpg": b"2", "b.jpg": b"3", "c.1.jpg": b"4", "c.2.jpg": b"5", "c.3.jpg": b"6"}


@pytest.mark.parametrize("by_manifest", [False, True])
def test_an_album_at_which_a_tar_is_cut_is_an_error_row(tmp_path: Path, by_manifest: bool) -> None:
    path = write_tar(tmp_path / "x.tar", MEMBERS, cut=5 * 1024 + 100)
    if by_manifest:
        path = tmp_path / "m.csv"
        path.write_text("uri\nx.tar#a.1.jpg\nx.tar#b.jpg\nx.tar#c.1.jpg\n")
    album, picture, cut = read(path)[:3]
    assert (album.error, len(album.objects), picture.error) == (None, 2, None)
    assert cut.error is ErrorCode.TRUNCATED and "there may be more of it" in cut.error_detail


@pytest.mark.parametrize("last", ["v/2.jpg", "v/1.json", "v.json"])
def test_keyframes_at_which_a_tar_is_cut_are_an_error_row(tmp_path: Path, last: str) -> None:
    members = {"u/1.jpg": b"1", "v/1.jpg": b"2", last: b"{}"}
    path = write_tar(tmp_path / "x.tar", members, cut=3 * 1024)
    u, v, archive = read(path, keyframes=True)
    assert (u.kind, u.error, v.error, archive.error) == (
        Kind.KEYFRAMES, None, ErrorCode.TRUNCATED, ErrorCode.TRUNCATED,
    )  # fmt: skip


def test_keyframes_of_which_one_is_cut_are_found_by_their_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"v/1.jpg": b"1", "v/2.jpg": b"2" * 600}, cut=2 * 1024)
    (tmp_path / "m.csv").write_text("uri\nx.tar#v/\n")
    (named,), packed = read(tmp_path / "m.csv", keyframes=True), read(tmp_path / "x.tar", keyframes=True)[0]
    assert (named.error, packed.error, packed.uri[-8:]) == (ErrorCode.TRUNCATED, ErrorCode.TRUNCATED, "x.tar#v/")


def test_what_a_tar_says_of_keyframes_holds_where_a_list_names_them(tmp_path: Path) -> None:
    about = {"kind": "film", "cut_from": {"unseen": "track", "error_code": "truncated", "duration_s": 99}}
    write_tar(tmp_path / "x.tar", {"v/1.jpg": b"1", "v/item.json": json.dumps(about).encode()})
    (tmp_path / "m.jsonl").write_text(json.dumps({"uri": "x.tar#v/", "kind": "mine", "cut_from": {"unseen": ""}}))
    (item,) = read(tmp_path / "m.jsonl", keyframes=True)
    (packed,) = read(tmp_path / "x.tar", keyframes=True)
    assert item.attributes == {**packed.attributes, "kind": "mine"}


def test_long_attributes_push_out_no_short_ones(tmp_path: Path) -> None:
    row = {"uri": "a.jpg"} | {f"caption{n}": "x" * 8000 for n in range(9)} | {"line": "kids"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    (item,) = read(tmp_path / "m.jsonl")
    assert item.attributes["line"] == "kids" and item.attributes["attributes_cut"].startswith("5 left out")
    about = {f"a{n}": "x" * 200 for n in range(190)} | {"cut_from": {"unseen": "track", "error_detail": "e" * 1000}}
    write_tar(tmp_path / "x.tar", {"v/1.jpg": b"1", "v/item.json": json.dumps(about).encode()})
    (item,) = read(tmp_path / "x.tar", keyframes=True)
    assert item.attributes["cut_from.unseen"] == "track" and "attributes_cut" in item.attributes


@pytest.mark.parametrize(("etag", "code"), [(None, ErrorCode.NOT_FOUND), ("1-1", ErrorCode.CHANGED)])
def test_a_tar_that_is_gone_or_another_when_it_is_indexed_is_a_row(
    tmp_path: Path, etag: str | None, code: ErrorCode
) -> None:
    path = tmp_path / "x.tar"
    if etag is not None:
        write_tar(path, MEMBERS)
    info = ObjectInfo(uri=str(path), size_bytes=9216, etag=etag)
    assert facts(webdataset._index(info, SourceConfig(), first=False)) == [(make_id(str(path)), code, 0)]


def test_a_row_of_a_table_that_a_list_names_twice_is_read_twice(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"one", b"two"]}), tmp_path / "t.parquet")
    (tmp_path / "m.csv").write_text("uri\nt.parquet#row=1\nt.parquet#row=0\nt.parquet#row=1\n")
    items = read(tmp_path / "m.csv")
    fetch = Fetcher(items, MediaConfig())
    assert [fetch(item) for item in items] == [[b"two"], [b"one"], [b"two"]]


def test_an_album_that_begins_a_list_behind_an_unreadable_row_of_another_is_an_error_row(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("uri,group\na.jpg,f\nb.jpg,x,g\n")
    (tmp_path / "2.csv").write_text("uri,group\nc.jpg,g\nd.jpg,h\n")
    found = {item.item_id: item for item in read(tmp_path, type="manifest")}
    assert (found["f"].error, found["g"].error, found["h"].error) == (ErrorCode.CORRUPT, ErrorCode.CORRUPT, None)
    assert "line 3 of" in found["g"].error_detail and "1.csv" in found["g"].error_detail


def test_one_picture_of_several_at_which_a_tar_is_cut_is_an_error_row(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.0.jpg": b"1", "b.0.jpg": b"2", "b.1.jpg": b"3"}, cut=2 * 1024)
    assert [item.error for item in read(path)] == [None, ErrorCode.TRUNCATED, ErrorCode.TRUNCATED]
    path = write_tar(tmp_path / "x.tar", {"a.jpg": b"1", "b.jpg": b"2", "c.jpg": b"3"}, cut=2 * 1024)
    assert [item.error for item in read(path)] == [None, None, ErrorCode.TRUNCATED]


@pytest.mark.parametrize("columns", ["group", "item_id,frame"])
def test_keyframes_of_a_tar_are_no_part_of_another_item(tmp_path: Path, columns: str) -> None:
    about = json.dumps({"cut_from": {"unseen": "track", "error_code": "truncated"}}).encode()
    write_tar(tmp_path / "x.tar", {"v/1.jpg": b"1", "v/item.json": about, "w/1.jpg": b"2"})
    rows = [f"x.tar#{folder}/,{name},{n}" for n, (folder, name) in enumerate([("v", "g"), ("w", "g")])]
    rows += ["x.tar#v/,h,0"] if columns == "group" else []
    lines = [f"uri,{columns}", *(row if "frame" in columns else row.rpartition(",")[0] for row in rows)]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    found = read(tmp_path / "m.csv", keyframes=True)
    assert {item.item_id: item.error for item in found} == dict.fromkeys(
        ["g", "h"] if columns == "group" else ["g"], ErrorCode.UNSUPPORTED_TYPE
    )


def test_a_folder_of_keyframes_alone_may_have_an_id_and_a_frame(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"v/1.jpg": b"1", "v/2.jpg": b"2"})
    (tmp_path / "m.csv").write_text("uri,item_id,frame\nx.tar#v/,k,0\n")
    (item,) = read(tmp_path / "m.csv", keyframes=True)
    assert (item.kind, item.error, [o.frame for o in item.objects]) == (Kind.KEYFRAMES, None, [1, 2])


def test_a_video_of_which_no_frame_that_was_cut_came_is_an_error_row(tmp_path: Path) -> None:
    members = {
        f"{name}/item.json": json.dumps({"cut_from": {"frames": n}}).encode() for name, n in (("v", 3), ("w", 0))
    }
    v, w = read(write_tar(tmp_path / "x.tar", members), keyframes=True)
    assert (v.error, v.uri[-8:], w.error) == (ErrorCode.NO_FRAMES, "x.tar#v/", ErrorCode.NOT_MEDIA)
    assert v.error_detail == "3 were cut, and none came"

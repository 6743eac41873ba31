"""Manifests: rows become items, albums and keyframes, and no row is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import manifest as manifest_module
from moderation.sources import open_source
from moderation.types import ErrorCode, Item, Kind


def read(path: Path, **options: Any) -> list[Item]:
    return list(open_source(str(path), SourceConfig(**options)))


def from_text(tmp_path: Path, text: str, name: str = "m.csv") -> list[Item]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read(path)


def names(item: Item) -> list[str]:
    return [o.name for o in item.objects]


def write(tmp_path: Path, rows: list[dict[str, Any]], kind: str) -> Path:
    path = tmp_path / f"m.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif kind == "csv":
        columns = list(dict.fromkeys(k for row in rows for k in row))
        cells = [[row.get(c) for c in columns] for row in rows]
        lines = [",".join("" if v is None else str(v) for v in line) for line in [columns, *cells]]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    return path


KINDS = ["csv", "jsonl", "parquet", "arrow"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_carry_ids_and_attributes_without_nulls(tmp_path: Path, kind: str) -> None:
    rows = [{"uri": "a.jpg", "item_id": 7, "label": "x", "n": 3}, {"uri": "b.jpg", "item_id": 8, "label": None, "n": 4}]
    first, second = read(write(tmp_path, rows, kind))
    assert (first.item_id, first.attributes, first.kind) == ("7", {"label": "x", "n": "3"}, None)
    assert (second.item_id, second.attributes) == ("8", {"n": "4"})
    assert first.uri == first.objects[0].uri == str(tmp_path / "a.jpg")
    assert first.objects[0].size_bytes is None


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_group_are_one_album_wherever_they_stand(tmp_path: Path, kind: str) -> None:
    rows = [
        {"uri": "a1.jpg", "group": "a", "who": "me", "n": "1"},
        {"uri": "b1.jpg", "group": "b", "who": "you", "n": "2"},
        {"uri": "alone.jpg", "group": None, "who": "x", "n": "3"},
        {"uri": "a2.jpg", "group": "a", "who": "me", "n": "4"},
    ]
    a, b, alone = read(write(tmp_path, rows, kind))
    assert (a.item_id, a.kind, names(a)) == ("a", Kind.ALBUM, ["a1.jpg", "a2.jpg"])
    assert a.attributes == {"who": "me", "n": '["1", "4"]', "group": "a"}
    assert (b.item_id, names(b)) == ("b", ["b1.jpg"])
    assert (alone.kind, names(alone)) == (None, ["alone.jpg"])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_an_item_with_frames_are_its_keyframes_in_order(tmp_path: Path, kind: str) -> None:
    rows = [
        {"uri": "v/9.jpg", "item_id": "v", "frame": 9, "time_s": 0.9},
        {"uri": "w.jpg", "item_id": "w", "frame": None, "time_s": None},
        {"uri": "v/1.jpg", "item_id": "v", "frame": 1, "time_s": 0.1},
    ]
    v, w = read(write(tmp_path, rows, kind))
    assert (v.item_id, v.kind) == ("v", Kind.KEYFRAMES)
    assert [(o.name, o.frame, o.time_s) for o in v.objects] == [("1.jpg", 1, 0.1), ("9.jpg", 9, 0.9)]
    assert (w.kind, w.objects[0].frame) == (None, None)


def test_keyframes_may_have_times_alone(tmp_path: Path) -> None:
    (v,) = from_text(tmp_path, "item_id,uri,time_s\nv,b.jpg,2.5\nv,a.jpg,1e0\n")
    assert [(o.name, o.frame, o.time_s) for o in v.objects] == [("a.jpg", None, 1.0), ("b.jpg", None, 2.5)]


def test_an_album_takes_the_item_id_that_its_rows_share(tmp_path: Path) -> None:
    same, apart = from_text(tmp_path, "uri,item_id,group\na,7,g\nb,7,g\nc,8,h\nd,9,h\n")
    assert (same.item_id, same.attributes) == ("7", {"group": "g"})
    assert (apart.item_id, apart.attributes) == ("h", {"group": "h", "item_id": '["8", "9"]'})


def test_a_group_that_only_a_late_json_row_names_is_still_an_album(tmp_path: Path) -> None:
    rows = [{"uri": "a"}, *({"uri": f"{n}"} for n in range(50)), {"uri": "b", "group": "g"}, {"uri": "c", "group": "g"}]
    items = read(write(tmp_path, rows, "jsonl"))
    assert len(items) == 52
    assert names(items[-1]) == ["b", "c"]


def test_an_id_that_comes_again_keeps_its_row_and_stays_unique(tmp_path: Path) -> None:
    items = from_text(tmp_path, "uri,item_id\na.jpg,7\nb.jpg,7\nb.jpg,7\nc.jpg,\nc.jpg,\n")
    assert len({i.item_id for i in items}) == 5
    assert [i.item_id.split("~")[0] for i in items[:3]] == ["7", "7", "7"]
    assert items[0].item_id == "7"
    assert [i.attributes for i in items] == [{}, {"item_id": "7"}, {"item_id": "7"}, {}, {}]


def test_the_id_of_a_repeated_item_does_not_hang_on_its_place(tmp_path: Path) -> None:
    before = from_text(tmp_path, "uri,item_id\na.jpg,7\nb.jpg,7\n")
    after = from_text(tmp_path, "uri,item_id\nnew.jpg,1\na.jpg,7\nb.jpg,7\n")
    assert [i.item_id for i in after[1:]] == [i.item_id for i in before]


@pytest.mark.parametrize("group", ["", ",group"])
def test_bad_rows_are_error_rows_that_name_their_line(tmp_path: Path, group: str) -> None:
    end = "," if group else ""
    text = f"uri,label{group}\na.jpg,x{end}\n,y{end}\nshort\n/etc/passwd,z{end}\nb.jpg,w{end}\n"
    items = from_text(tmp_path, text)
    codes = [None, ErrorCode.NOT_FOUND, ErrorCode.CORRUPT, ErrorCode.FORBIDDEN, None]
    assert [i.error for i in items] == codes
    assert [i.error_detail.split(" of ")[0] for i in items] == ["", "line 3", "line 4", "line 5", ""]
    assert items[1].attributes == {"label": "y"}
    assert items[3].uri == "/etc/passwd"
    assert all(i.objects == () for i in items[1:4])
    assert len({i.item_id for i in items}) == 5


@pytest.mark.parametrize("written", ["s3://KEY:hunter2@bucket/a.jpg", "https://me:hunter2@host/a.jpg"])
def test_credentials_in_a_uri_reach_no_row(tmp_path: Path, written: str) -> None:
    [item] = from_text(tmp_path, f"uri\n{written}\n")
    assert item.error is ErrorCode.FORBIDDEN
    assert "hunter2" not in repr(item)
    assert "***@" in item.uri


def test_bad_json_lines_are_error_rows(tmp_path: Path) -> None:
    text = '{"uri": "a"}\n{"uri": \n[1]\n{"uri": 5}\n{"uri": null}\n' + "[" * 100_000 + '\n\n{"uri": "b"}\n'
    items = from_text(tmp_path, text, "m.jsonl")
    corrupt = ErrorCode.CORRUPT
    assert [i.error for i in items] == [None, corrupt, corrupt, corrupt, ErrorCode.NOT_FOUND, corrupt, None]
    assert "line 6" in items[5].error_detail


def test_an_album_with_a_row_that_can_not_be_used_is_an_error_as_a_whole(tmp_path: Path) -> None:
    (album,) = from_text(tmp_path, "uri,group\na.jpg,g\n../../x.jpg,g\n")
    assert (album.item_id, album.error, album.objects) == ("g", ErrorCode.FORBIDDEN, ())


@pytest.mark.parametrize(
    ("frame", "time_s"), [("x", ""), ("-1", ""), ("1.5", ""), ("", "nan"), ("", "-2"), ("9e99", "")]
)
def test_a_frame_or_time_that_is_none_makes_the_item_an_error(tmp_path: Path, frame: str, time_s: str) -> None:
    items = from_text(tmp_path, f"uri,item_id,frame,time_s\na.jpg,v,1,1\nb.jpg,v,{frame},{time_s}\n")
    assert [(i.item_id, i.error) for i in items] == [("v", ErrorCode.CORRUPT)]


def test_a_group_of_more_pictures_than_an_item_may_have_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "MAX_OBJECTS", 2)
    big, other = from_text(tmp_path, "uri,group\na,g\nb,g\nc,g\nd,g\ne,h\n")
    assert (big.error, big.objects) == (ErrorCode.TOO_LARGE, ())
    assert names(other) == ["e"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("m.csv", "url,label\na,b\n", "no column `uri`; it has: url, label"),
        ("m.jsonl", '{"url": 1}\n', "no column `uri`; it has: url"),
        ("m.csv", "uri,frame\na,1\n", "`frame` but no column `item_id`"),
        ("m.csv", "uri,x,x\na,1,2\n", "column `x` twice"),
        ("m.jsonl", "hello\nworld\n", "no line of it is a JSON object"),
        ("m.parquet", "uri\n", "neither a Parquet nor an Arrow file"),
        ("m.arrow", "\ufeff", "neither a Parquet nor an Arrow file"),
    ],
)
def test_a_manifest_that_can_not_be_one_is_a_usage_error(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        from_text(tmp_path, text, name)


def test_a_csv_that_is_not_utf8_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("uri,café\na,b\n".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        read(tmp_path / "m.csv")


def test_a_uri_column_of_numbers_is_a_usage_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [1, 2]}), tmp_path / "m.parquet")
    with pytest.raises(UsageError, match="holds int64, not text"):
        read(tmp_path / "m.parquet", type="manifest")


def test_a_manifest_of_an_unknown_type_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "m.xls").write_text("uri\na\n")
    with pytest.raises(UsageError, match="not a known type of manifest"):
        read(tmp_path / "m.xls", type="manifest")


def test_too_many_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri\na\nb\nc\n")
    with pytest.raises(UsageError, match="max_manifest_rows = 2"):
        read(tmp_path / "m.csv", max_manifest_rows=2)


def test_several_manifests_are_read_in_order_each_relative_to_itself(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.csv").write_text("uri,group\na.jpg,g\nb.jpg,\n")
    items = read(tmp_path, type="manifest")
    assert [i.uri.removeprefix(str(tmp_path)) for i in items] == ["/x/a.jpg", "/x/b.jpg", "/y/b.jpg"]


def test_an_album_across_manifests_reads_each_row_beside_its_own_manifest(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.csv").write_text("uri,group\na.jpg,g\n")
    (album,) = read(tmp_path, type="manifest")
    assert [o.uri.removeprefix(str(tmp_path)) for o in album.objects] == ["/x/a.jpg", "/y/a.jpg"]


def test_structs_times_and_bytes_of_a_parquet_manifest(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uri": pa.array(["a"]).dictionary_encode(),
            "at": pa.array([0], pa.timestamp("ms")),
            "meta": [{"k": 1, "deep": {"x": None}}],
            "tags": [["p", "q"]],
            "raw": [b"\xff"],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    (item,) = read(tmp_path / "m.parquet", type="manifest")
    assert item.attributes == {
        "at": "1970-01-01 00:00:00.000",
        "meta.k": "1",
        "meta.deep": '{"x":null}',
        "tags": '["p","q"]',
    }


def test_a_damaged_page_of_a_parquet_manifest_costs_its_row_group_only(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    uris = [f"{n:04}.jpg" for n in range(300)]
    pq.write_table(pa.table({"uri": uris}), path, row_group_size=100, use_dictionary=False, compression="snappy")
    meta = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    middle = meta.data_page_offset + meta.total_compressed_size // 2
    data[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(data)
    items = read(path)
    assert len(items) == 300
    assert [i.objects[0].name for i in items if i.error is None] == uris[:100] + uris[200:]
    assert {i.error for i in items[100:200]} == {ErrorCode.CORRUPT}


def test_a_large_manifest_streams(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri\n" + "\n".join(map(str, range(5_000))))
    items = open_source(str(path), SourceConfig(max_manifest_rows=10))
    # The row beyond the limit is met only when it is asked for: nothing was read ahead.
    assert [next(items).objects[0].name for _ in range(10)] == [str(n) for n in range(10)]
    with pytest.raises(UsageError):
        next(items)


groups = st.lists(st.tuples(st.sampled_from(["g", "h", None]), st.sampled_from(["a.jpg", "../x", ""])), max_size=20)


@given(groups)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_in_exactly_one_item(tmp_path: Path, rows: list[tuple[str | None, str]]) -> None:
    written = [{"uri": uri, "group": group} for group, uri in rows] or [{"uri": "a", "group": None}]
    path = write(tmp_path, written, "jsonl")
    items = read(path)
    loose = sum(row["group"] is None for row in written)
    in_groups = {row["group"] for row in written} - {None}
    assert len(items) == loose + len(in_groups)
    assert len({i.item_id for i in items}) == len(items)
    for group in in_groups:
        members = [row["uri"] for row in written if row["group"] == group]
        (album,) = [i for i in items if i.item_id == group]
        assert (album.error is None) == (set(members) == {"a.jpg"})
        assert album.error is not None or len(album.objects) == len(members)


def test_grouping_holds_across_batches(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(20_000)
    rows = "\n".join(f"{n}.jpg,{n % 500}" for n in order)
    items = from_text(tmp_path, f"uri,group\n{rows}\n")
    assert [len(i.objects) for i in items] == [40] * 500
    assert [i.item_id for i in items] == list(dict.fromkeys(str(n % 500) for n in order))
    for item in items[::50]:
        assert names(item) == [f"{n}.jpg" for n in order if n % 500 == int(item.item_id)]

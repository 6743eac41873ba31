"""Lists as other programs write them: read, or refused with what to do."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.results.paths import check_paths
from moderation.sources import open_source
from moderation.types import ErrorCode

ROWS = "uri,x\na.png,1\nb.png,2\n"
CSV = {
    "utf-16 with a mark": ROWS.encode("utf-16"),
    "utf-16, big end first": "\ufeff".encode("utf-16-be") + ROWS.encode("utf-16-be"),
    "utf-16 without a mark": ROWS.encode("utf-16-le"),
    "utf-32": ROWS.encode("utf-32"),
    "two marks": "\ufeff\ufeff".encode() + ROWS.encode(),
    "lines of old Macs": ROWS.replace("\n", "\r").encode(),
    "lines of Windows": ROWS.replace("\n", "\r\n").encode(),
}


def names(path: Path) -> list[str]:
    return [item.uri.rpartition("/")[2] for item in open_source(str(path), SourceConfig()) if item.error is None]


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as refused:
        open_source(str(path), SourceConfig())
    return str(refused.value)


@pytest.mark.parametrize("how", CSV)
def test_a_csv_in_any_usual_encoding_is_read(tmp_path: Path, how: str) -> None:
    (tmp_path / "l.csv").write_bytes(CSV[how])
    assert names(tmp_path / "l.csv") == ["a.png", "b.png"]


def test_json_lines_in_utf16_are_grouped(tmp_path: Path) -> None:
    rows = [{"uri": "a.png", "group": "g"}, {"uri": "b.png", "group": "g"}]
    (tmp_path / "l.jsonl").write_bytes("\n".join(map(json.dumps, rows)).encode("utf-16"))
    (album,) = open_source(str(tmp_path / "l.jsonl"), SourceConfig())
    assert len(album.objects) == 2


def test_half_a_character_at_the_end_is_one_bad_line(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(ROWS.encode("utf-16")[:-3])
    items = list(open_source(str(tmp_path / "l.csv"), SourceConfig()))
    assert [item.error for item in items] == [None, ErrorCode.CORRUPT]


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_what_came_before_the_damage_of_a_packed_list_is_read(tmp_path: Path, end: str) -> None:
    text = end.join(f"{name}.png" for name in "abc") + end
    packed = gzip.compress(text.encode() + random.Random(1).randbytes(9000).hex().encode())
    (tmp_path / "l.txt.gz").write_bytes(packed[:-2000])
    items = list(open_source(str(tmp_path / "l.txt.gz"), SourceConfig()))
    assert [item.uri.rpartition("/")[2] for item in items][:3] == ["a.png", "b.png", "c.png"]
    assert items[-1].error is ErrorCode.CORRUPT


def test_a_number_that_is_no_character_spoils_its_line_alone(tmp_path: Path) -> None:
    bad = "\ufeff".encode("utf-32-le") + "a.png\n".encode("utf-32-le") + b"\0\0\x22\0" + "\nb.png\n".encode("utf-32-le")
    (tmp_path / "l.txt").write_bytes(bad)
    assert {"a.png", "b.png"} <= set(names(tmp_path / "l.txt"))


@pytest.mark.parametrize(
    "line", ['{"uri": "a.png", "\\u0075ri": "b.png"}', '{"source-ref": "a.png", "source-ref": "b.png"}']
)
def test_two_uris_of_one_object_are_told_however_they_are_written(tmp_path: Path, line: str) -> None:
    (tmp_path / "l.jsonl").write_text(f'{line}\n{{"uri": "c.png"}}')
    item, _ = open_source(str(tmp_path / "l.jsonl"), SourceConfig())
    assert item.error is ErrorCode.CORRUPT


def test_lines_of_json_may_be_uris_and_an_object_names_one(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text('"a.png"\n{"uri": "b.png", "uri": "c.png"}\n{"uri": "d.png", "m": {"uri": "x"}}')
    items = list(open_source(str(tmp_path / "l.jsonl"), SourceConfig()))
    assert [item.error for item in items] == [None, ErrorCode.CORRUPT, None]
    (tmp_path / "l.json").write_text('[{"uri": "b.png", "uri": "c.png"}]')
    assert "twice" in refusal(tmp_path / "l.json")


@pytest.mark.parametrize(
    ("header", "advice"),
    [
        ("url,x", "if `url` holds the addresses, rename it to `uri`"),
        ("x,file_name", "if `file_name` holds"),
        ("uri;x", "parted by a semicolon: write commas"),
        ("uri|x", "parted by a bar"),
    ],
)
def test_a_list_without_uris_is_told_the_nearest_right_thing(tmp_path: Path, header: str, advice: str) -> None:
    (tmp_path / "l.csv").write_text(f"{header}\na,b\n")
    assert advice in refusal(tmp_path / "l.csv")


def test_a_list_packed_in_a_way_that_is_not_read_is_told(tmp_path: Path) -> None:
    for name in ("l.csv.zst", "l.jsonl.zip"):
        (tmp_path / name).write_bytes(b"x")
        assert "unpack it first" in refusal(tmp_path / name)


def test_the_types_of_columns_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [[[b"x"]]], "url": ["a"]}), tmp_path / "t.parquet")
    told = refusal(tmp_path / "t.parquet")
    assert "image (list<" in told and "`url` holds the addresses" in told


@pytest.mark.parametrize("stored", [pa.array([b"1", b"2"]), pa.array(["a.png", "b.png"])])
def test_a_column_whose_type_has_a_name_of_its_own_is_read(tmp_path: Path, stored: pa.Array) -> None:
    named = pa.ExtensionArray.from_storage(pa.opaque(stored.type, "picture", "somebody"), stored)
    table = pa.table({"uri" if pa.types.is_string(stored.type) else "image": named})
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    for path in (tmp_path / "t.parquet", tmp_path / "t.arrow"):
        assert [item.error for item in open_source(str(path), SourceConfig())] == [None, None]


def test_dates_that_python_does_not_have_are_attributes_like_others(tmp_path: Path) -> None:
    far = 2**60
    odd = {
        "zone": pa.array([far], pa.timestamp("us", tz="Mars/Olympus")),
        "dates": pa.array([[far]], pa.list_(pa.date64())),
        "times": pa.array([{"t": [far]}], pa.struct([("t", pa.list_(pa.timestamp("s")))])),
    }
    table = pa.table({"uri": ["a.png"], **odd})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    (item,) = open_source(str(tmp_path / "t.arrow"), SourceConfig())
    assert item.error is None and {"zone", "dates", "times.t"} <= item.attributes.keys()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "an empty path or address"),
        ("  ", "an empty path or address"),
        ("a\0b", "zero byte"),
        ("s3://", "names no bucket"),
        ("s3:///", "names no bucket"),
        ("s3:/bucket/x", "did you mean s3://bucket/x"),
        ("https:/host/x", "did you mean https://host/x"),
    ],
)
def test_a_name_that_would_be_another_place_is_refused(written: str, said: str) -> None:
    # As a local path the first is the current folder, and the last but one a folder `s3:` in it.
    with pytest.raises(UsageError, match=said):
        open_source(written, SourceConfig())
    with pytest.raises(UsageError, match=said):
        check_paths("/", written, SourceConfig())

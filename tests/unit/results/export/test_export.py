"""Exports of a finished run: rows, services' results, manifests that come back, objects that are those judged."""

from __future__ import annotations

import csv
import json
import shlex
import tarfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.analysis.duplicates import DUPLICATES_SCHEMA
from moderation.config.model import Config, ShardConfig, SourceConfig
from moderation.errors import UsageError
from moderation.planning.plan import encode_shards
from moderation.planning.shards import make_shards
from moderation.results.export.manifest import manifest_lines
from moderation.results.export.objects import write_copies
from moderation.results.export.plain import csv_cell
from moderation.results.export.run import FORMATS, export_run
from moderation.results.export.selection import RowSelection, SelectedRow
from moderation.results.tables import ItemRow, verdicts_table
from moderation.sources import open_source
from moderation.types import Item, Kind, Status, Verdict
from tests.finished_run import Made, write_run

POLICY = """
version: 1
default: review
checks:
  explicit: {side: negative, votes: [a.nsfw], block: 0.9, review: 0.5}
  sfw: {side: positive, votes: [a.sfw], pass: 0.6}
"""
LABELS = ("a.nsfw", "a.sfw")
ITEMS = [
    Made(name="fine.jpg", votes=[[0.1, 0.9]], attributes={"owner": "=cmd|x", "custom_id": "c1"}),
    Made(name="bad.jpg", votes=[[0.95, 0.1]]),
    Made(name="unsure.jpg", votes=[[0.6, 0.1]]),
    Made(name="broken.jpg", votes=None),
    Made(name="fine2.jpg", votes=[[0.1, 0.8]]),
]


@pytest.fixture
def out(tmp_path: Path) -> str:
    folder = tmp_path / "in"
    folder.mkdir()
    for made in ITEMS:
        (folder / made.name).write_bytes(b"\xff\xd8\xff" + made.name.encode())
    return write_run(tmp_path, LABELS, ITEMS, POLICY)


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("format_", [f for f in FORMATS if f not in ("webdataset", "copies", "coco")])
def test_every_row_is_exported(out: str, format_: str) -> None:
    report = export_run(out, format_)
    assert (report.rows, report.items) == (5, 5)
    assert report.to.startswith(f"{out}/export/")
    assert Path(report.to).stat().st_size


def test_json_lines_have_the_columns_of_the_table_in_the_order_of_the_plan(out: str) -> None:
    rows = lines(export_run(out, "jsonl").to)
    assert [row["item_id"] for row in rows] == [made.name for made in ITEMS]
    assert rows[0]["attributes"] == {"custom_id": "c1", "owner": "=cmd|x"}
    assert (rows[1]["verdict"], round(rows[1]["score_explicit"], 3)) == ("block", 0.95)
    assert (rows[3]["error_code"], rows[3]["score_explicit"]) == ("corrupt", None)


def test_csv_is_read_by_a_database_with_all_rows(out: str, tmp_path: Path) -> None:
    path = str(tmp_path / "v.csv")
    export_run(out, "csv", to=path)
    assert duckdb.sql(f"select count(*), count(distinct item_id) from read_csv('{path}')").fetchall() == [(5, 5)]


@settings(deadline=None)
@given(text=st.text(st.sampled_from("=+-@;\t\r\n ,\"'a1\uff1d"), max_size=12))
def test_no_cell_of_a_csv_is_a_formula_whatever_the_separator(text: str) -> None:
    cell = str(csv_cell(text))
    for piece in cell.replace("\t", ";").replace("\n", ";").replace("\r", ";").split(";"):
        assert not piece.lstrip(" ").startswith(("=", "+", "-", "@", "\uff1d")) or piece.startswith(" "), cell
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))


def test_numbers_below_zero_stay_numbers_in_a_csv() -> None:
    assert csv_cell(-0.5) == -0.5
    assert csv_cell(None) == ""


def test_parquet_is_one_file_with_the_columns_of_the_table(out: str) -> None:
    table = pq.read_table(export_run(out, "parquet", selection=RowSelection(verdict=Verdict.PASS)).to)
    assert table["item_id"].to_pylist() == ["fine.jpg", "fine2.jpg"]
    assert "score_explicit" in table.column_names


def test_rekognition_lines_have_labels_and_an_error_is_never_a_clean_line(out: str) -> None:
    rows = lines(export_run(out, "rekognition").to)
    blocked = rows[1]["detect-moderation-labels"]
    assert {label["Name"] for label in blocked["ModerationLabels"]} == {"Explicit", "Explicit Nudity"}
    assert [label["TaxonomyLevel"] for label in blocked["ModerationLabels"]] == [1, 2]
    assert blocked["ModerationModelVersion"].startswith("moderation-")
    assert rows[0]["detect-moderation-labels"]["ModerationLabels"] == []
    assert "detect-moderation-labels" not in rows[3]
    assert rows[3]["error"]["code"] == "corrupt"


def test_openai_lines_flag_by_the_thresholds_and_leave_null_what_nobody_scored(out: str) -> None:
    rows = lines(export_run(out, "openai").to)
    assert rows[0]["custom_id"] == "c1"
    results = [row["response"]["body"]["results"][0] for row in rows if row["response"]]
    assert [r["flagged"] for r in results] == [False, True, True, False]
    assert [r["categories"]["sexual"] for r in results] == [False, True, True, False]
    assert results[0]["category_scores"]["violence"] is None
    assert (rows[3]["response"], rows[3]["error"]["code"]) == (None, "corrupt")


def test_openai_asks_for_a_policy_where_that_of_the_run_is_gone(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY, keep_policy=False)
    with pytest.raises(UsageError, match="--policy"):
        export_run(out, "openai")
    assert not Path(f"{out}/export").exists()


def test_coco_has_an_image_for_every_item(out: str) -> None:
    coco = json.loads(Path(export_run(out, "coco").to).read_text())
    assert [image["item_id"] for image in coco["images"]] == [made.name for made in ITEMS]
    assert (coco["annotations"], coco["categories"]) == ([], [])


def test_a_manifest_of_what_passed_is_read_by_a_source(out: str, tmp_path: Path) -> None:
    report = export_run(out, "manifest", to=str(tmp_path / "m.jsonl"), selection=RowSelection(verdict=Verdict.PASS))
    assert report.folders == (f"{tmp_path}/in/",)
    items = list(open_source(report.to, SourceConfig(allow=report.folders)))
    assert [(item.item_id, item.uri) for item in items] == [
        ("fine.jpg", f"{tmp_path}/in/fine.jpg"),
        ("fine2.jpg", f"{tmp_path}/in/fine2.jpg"),
    ]


MANIFEST_ROWS = [
    {"uri": "a.jpg", "item_id": "a", "label": "x", "n": 3},
    {"uri": "b.jpg"},
    {"uri": "c.jpg", "item_id": "post", "group": "g1", "alt": "one"},
    {"uri": "d.jpg", "item_id": "post", "group": "g1", "alt": "two"},
    {"uri": "e.jpg", "group": "g2"},
    {"uri": "k0.jpg", "item_id": "v", "frame": 0, "time_s": 0.0, "title": "t"},
    {"uri": "k1.jpg", "item_id": "v", "frame": 30, "time_s": 1.0, "title": "t"},
    {"uri": "k2.jpg", "item_id": "v", "time_s": 2.5, "title": "t"},
    {"uri": "s3://elsewhere/x.jpg", "item_id": "f"},
    {"uri": "p.jpg", "group": "g3", "item_id": "p"},
    {"uri": "q.jpg", "group": "g3", "item_id": "q"},
    {"uri": "empty.jpg", "note": "", "uri_": "kept"},
]


SHARDS = ShardConfig()


def as_rows(items: list[Item]) -> list[SelectedRow]:
    table = verdicts_table([ItemRow(item=i, status=Status.OK, kind=i.kind or Kind.IMAGE) for i in items], (), {})
    return [SelectedRow(cells=c, item=i) for c, i in zip(table.to_pylist(), items, strict=True)]


def round_trip(items: list[Item], path: Path, config: SourceConfig) -> list[Item]:
    """The items of a manifest that is written of items; planned in between, as they are in a run."""
    planned = [item for shard in make_shards(items, config=SHARDS) for item in shard.items]
    assert encode_shards(make_shards(planned, config=SHARDS))
    written = [line for row in as_rows(planned) for line in manifest_lines(row)]
    path.write_text("\n".join(map(json.dumps, written)))
    return list(open_source(str(path), config))


def comparable(item: Item) -> Item:
    # Of an error row the detail names the manifest and its line, which are others.
    return replace(item, attributes=dict(sorted(item.attributes.items())), error_detail="")


def test_a_manifest_gives_the_same_items_again(tmp_path: Path) -> None:
    source = tmp_path / "m.jsonl"
    source.write_text("\n".join(map(json.dumps, MANIFEST_ROWS)))
    config = SourceConfig(allow=(str(tmp_path),))
    items = list(open_source(str(source), config))
    again = round_trip(items, tmp_path / "again.jsonl", config)
    assert [comparable(i) for i in again] == [comparable(i) for i in items]


def write_duplicates(out: str) -> None:
    rows = [
        {"item_id": "fine.jpg", "group_id": "g", "head_item_id": "fine.jpg", "relation": "head"},
        {"item_id": "fine2.jpg", "group_id": "g", "head_item_id": "fine.jpg", "relation": "pdq"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=DUPLICATES_SCHEMA), f"{out}/duplicates.parquet")


def test_copies_can_be_left_out_once_somebody_looked_for_them(out: str) -> None:
    selection = RowSelection(verdict=Verdict.PASS, minus_duplicates=True)
    with pytest.raises(UsageError, match="moderation duplicates"):
        export_run(out, "jsonl", selection=selection)
    write_duplicates(out)
    report = export_run(out, "jsonl", selection=selection)
    assert (report.items, report.copies) == (1, 1)


def test_copies_are_the_bytes_that_were_judged(out: str, tmp_path: Path) -> None:
    (tmp_path / "in" / "bad.jpg").unlink()
    report = export_run(out, "copies", to=str(tmp_path / "copies"))
    assert (report.items, report.failed) == (4, 1)
    (error,) = lines(f"{report.to}/errors.jsonl")
    assert (error["item_id"], error["error_code"]) == ("bad.jpg", "not_found")
    manifest = list(open_source(f"{report.to}/manifest.jsonl", SourceConfig()))
    assert [item.item_id for item in manifest] == ["fine.jpg", "unsure.jpg", "broken.jpg", "fine2.jpg"]
    first = Path(manifest[0].uri)
    assert first.parent.name == "pass"
    assert first.read_bytes() == b"\xff\xd8\xfffine.jpg"


def test_an_object_that_changed_is_not_handed_on(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"judged")
    (item,) = open_source(str(picture), SourceConfig(type="prefix"))
    (row,) = as_rows([replace(item, objects=tuple(replace(o, etag=None) for o in item.objects))])
    judged = replace(row, cells={**row.cells, "verdict": "pass", "content_hash": sha256(b"judged").hexdigest()})
    picture.write_bytes(b"another")
    report = write_copies(iter([[judged]]), str(tmp_path / "to"), Config())
    assert (report.items, report.left_out) == (0, 1)
    assert lines(str(tmp_path / "to" / "errors.jsonl"))[0]["error_code"] == "changed"
    picture.write_bytes(b"judged")
    assert write_copies(iter([[judged]]), str(tmp_path / "to"), Config()).items == 1


def test_a_webdataset_is_read_by_a_source(out: str, tmp_path: Path) -> None:
    to = str(tmp_path / "wds")
    report = export_run(out, "webdataset", to=to, selection=RowSelection(verdict=Verdict.PASS))
    assert report.items == 2
    with tarfile.open(f"{to}/part-000000.tar") as tar:
        names = tar.getnames()
    assert len(names) == 4 and all("/" not in name for name in names)
    items = list(open_source(f"{to}/part-000000.tar", SourceConfig()))
    assert [item.attributes["item_id"] for item in items] == ["fine.jpg", "fine2.jpg"]
    assert items[0].attributes["verdict"] == "pass"


@pytest.mark.parametrize(
    ("format_", "to", "message"),
    [("josnl", None, "did you mean 'jsonl'"), ("manifest", "x.csv", "ends in .jsonl")],
)
def test_a_wrong_call_is_refused_before_anything_is_written(
    out: str, format_: str, to: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export_run(out, format_, to=to)
    assert not Path(f"{out}/export").exists()


@pytest.mark.parametrize("to", ["", "/run.json", "/verdicts", "/verdicts/part-x.parquet"])
def test_an_export_never_lies_among_the_tables_of_the_run(out: str, to: str) -> None:
    with pytest.raises(UsageError, match="is the run itself or in it"):
        export_run(out, "jsonl", to=f"{out}{to}")


def test_a_csv_keeps_its_records_apart(out: str) -> None:
    with Path(export_run(out, "csv").to).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert json.loads(rows[0]["attributes"]) == {"custom_id": "c1", "owner": "=cmd|x"}
    assert rows[3]["score"] == ""


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_manifest_of_packed_items_gives_the_same_items_again(tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"pack.{kind}"
    if kind == "tar":
        with tarfile.open(source, "w") as tar:
            for name in ("a.jpg", "b.jpg", "c.0.jpg", "c.1.jpg"):
                (tmp_path / name).write_bytes(name.encode())
                tar.add(tmp_path / name, name)
    else:
        pq.write_table(pa.table({"image": [b"one", b"two"], "label": ["x", "y"]}), source, row_group_size=1)
    config = SourceConfig(allow=(str(tmp_path),))
    items = list(open_source(str(source), config))
    again = round_trip(items, tmp_path / "again.jsonl", config)
    assert [comparable(i) for i in again] == [comparable(i) for i in items]


def test_the_setting_that_it_prints_can_be_copied_into_a_shell_whatever_folders_are_called(tmp_path: Path) -> None:
    names = ("it's $(touch x)/a.jpg", "日本/'; touch y; '/b.jpg")
    out = write_run(tmp_path, LABELS, [Made(name=name, votes=[[0.1, 0.9]]) for name in names], POLICY)
    shown = CliRunner().invoke(app, ["export", out, "--format", "manifest"]).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("read it with ")]
    option, setting = shlex.split(line.removeprefix("read it with "))
    allowed = yaml.safe_load(setting.removeprefix("source.allow="))
    assert option == "--set"
    assert sorted(allowed) == sorted(f"{tmp_path}/in/{name.rpartition('/')[0]}/" for name in names)

"""What a source is: lists of every form, folders of nothing but tars or tables."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import kinds, open_source, source_type, unpack
from moderation.types import ErrorCode, Kind

ROWS = [{"uri": "a.jpg", "n": "1"}, {"uri": "b.jpg", "n": "2"}]
TEXTS = {
    ".csv": "uri,n\na.jpg,1\nb.jpg,2\n",
    ".tsv": "uri\tn\na.jpg\t1\nb.jpg\t2\n",
    ".jsonl": "\n".join(map(json.dumps, ROWS)),
    ".ndjson": "\n".join(map(json.dumps, ROWS)),
    ".json": json.dumps(ROWS, indent=1),
    ".txt": "a.jpg\n\n b.jpg \n",
    ".list": "a.jpg\r\nb.jpg",
}
PACKINGS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def names_of(path: Path, **options: object) -> list[str]:
    items = list(open_source(str(path), SourceConfig.model_validate(options)))
    assert all(item.error is None for item in items), items
    return [Path(item.uri).name for item in items]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", TEXTS)
def test_lists_of_every_form_are_read(tmp_path: Path, suffix: str, packing: str) -> None:
    path = tmp_path / f"m{suffix}{packing}"
    path.write_bytes(PACKINGS[packing](TEXTS[suffix].encode()))
    assert source_type(str(path), SourceConfig()) == "manifest"
    assert names_of(path) == ["a.jpg", "b.jpg"]


def test_json_of_other_shapes(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps(["a.jpg", {"uri": "b.jpg"}]))
    assert names_of(path) == ["a.jpg", "b.jpg"]
    path.write_text("\n".join(map(json.dumps, ROWS)))  # JSON lines under that name
    assert names_of(path) == ["a.jpg", "b.jpg"]
    path.write_text(json.dumps(["a.jpg", 7]))
    assert [item.error for item in open_source(str(path), SourceConfig())] == [None, ErrorCode.CORRUPT]
    for text in (json.dumps({"images": ROWS}), "[1, 2", "7"):
        path.write_text(text)
        with pytest.raises(UsageError):
            open_source(str(path), SourceConfig())


@pytest.mark.parametrize("packing", [".gz", ".xz"])
def test_a_packed_list_that_ends_early_tells_so_in_its_last_row(tmp_path: Path, packing: str) -> None:
    text = "uri\n" + "".join(f"{n:08}.jpg\n" for n in range(20_000))
    path = tmp_path / f"m.csv{packing}"
    path.write_bytes(PACKINGS[packing](text.encode())[:-20])
    items = list(open_source(str(path), SourceConfig()))
    assert items[-1].error is ErrorCode.CORRUPT and "ends early" in items[-1].error_detail
    assert all(item.error is None for item in items[:-1])


def test_packed_files_put_together_are_one(tmp_path: Path) -> None:
    path = tmp_path / "m.txt.gz"
    path.write_bytes(gzip.compress(b"a.jpg\nb.") + gzip.compress(b"jpg\n") + bytes(512))
    assert names_of(path) == ["a.jpg", "b.jpg"]


def test_a_packed_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_FREE_BYTES", 1 << 20)
    path = tmp_path / "m.txt.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(UsageError, match="unpacks to more than"):
        list(open_source(str(path), SourceConfig()))


def test_a_packing_that_is_not_read_here_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "m.csv.zst").write_bytes(b"x")
    with pytest.raises(UsageError, match="unpack it first"):
        open_source(str(tmp_path / "m.csv.zst"), SourceConfig(type="manifest"))


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo(f"{path.stem}.jpg")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))


def write_table(path: Path, column: str = "image") -> None:
    value: object = b"x" if column == "image" else f"{path.stem}.jpg"
    pq.write_table(pa.table({column: [value]}), path)


def test_a_folder_of_nothing_but_tars_is_read_as_tars(tmp_path: Path) -> None:
    for name in ("1.tar", "sub/2.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / name)
    for aside in ("_SUCCESS", "1.json", ".1.tar.crc", "1.idx", "README.md", "._1.tar"):
        (tmp_path / aside).write_bytes(b"{}")
    assert source_type(str(tmp_path), SourceConfig()) == "webdataset"
    assert [name.partition("#")[2] for name in names_of(tmp_path)] == ["1.jpg", "2.jpg"]
    # One thing that is neither: then every file is an item, and none is lost.
    (tmp_path / "x.jpg").write_bytes(b"x")
    assert source_type(str(tmp_path), SourceConfig()) == "prefix"
    assert len(list(open_source(str(tmp_path), SourceConfig()))) == 9


@pytest.mark.parametrize(("column", "kind"), [("image", "parquet"), ("uri", "manifest")])
def test_a_folder_of_nothing_but_tables_is_read_as_tables(tmp_path: Path, column: str, kind: str) -> None:
    for n in range(3):
        write_table(tmp_path / f"{n}.parquet", column)
    (tmp_path / "_SUCCESS").write_bytes(b"")
    (tmp_path / "_metadata").write_bytes(b"PAR1")
    assert source_type(str(tmp_path), SourceConfig()) == kind
    assert len(list(open_source(str(tmp_path), SourceConfig()))) == 3


def test_a_folder_of_tables_that_hold_neither_is_a_sentence(tmp_path: Path) -> None:
    write_table(tmp_path / "1.parquet", "label")
    with pytest.raises(UsageError, match="neither a column `uri`"):
        open_source(str(tmp_path), SourceConfig())


def test_a_folder_too_large_to_look_at_asks_for_its_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_MAX_NAMES", 2)
    for n in range(4):
        write_tar(tmp_path / f"{n}.tar")
    with pytest.raises(UsageError, match=r"source\.type=webdataset"):
        open_source(str(tmp_path), SourceConfig())
    assert len(names_of(tmp_path, type="webdataset")) == 4


def test_a_sidecar_by_name_that_is_a_picture_is_judged_by_its_content(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in (("a.txt", b"\xff\xd8\xff\xe0" + bytes(99)), ("b.txt", b"a text"), ("c.npy", b"?" * 9)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    a, b, c = open_source(str(tmp_path / "x.tar"), SourceConfig())
    assert [item.error for item in (a, b, c)] == [None, ErrorCode.NOT_MEDIA, None]
    assert [item.kind for item in (a, c)] == [None, None] and Kind.ALBUM not in (a.kind, c.kind)

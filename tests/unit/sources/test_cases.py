"""The files of ../shared/cases/sources: read as their README says, or refused in a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import UsageError
from moderation.media import decode_item
from moderation.sources import open_source
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode, Item, Kind, Media
from tests.drawn_media import draw, encode

CASES = Path(__file__).parents[4] / "shared" / "cases" / "sources"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases/sources is not there"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The cases, with `SRC` as a folder of drawn pictures."""
    picture = encode(draw(), "JPEG")
    (tmp_path / "files").mkdir()
    for n in range(3):
        (tmp_path / "files" / f"{n}.jpg").write_bytes(picture)
    for path in CASES.iterdir():
        shutil.copy(path, tmp_path / path.name)
        if path.suffix in (".csv", ".tsv", ".txt", ".json", ".jsonl"):
            (tmp_path / path.name).write_text(path.read_text().replace("SRC", str(tmp_path)))
    return tmp_path


def judged(path: Path, **options: Any) -> list[tuple[Item, Media]]:
    items = list(open_source(str(path), SourceConfig(**options)))
    fetch = Fetcher(items, MediaConfig())
    return [(item, decode_item(item, fetch(item), MediaConfig())) for item in items]


@pytest.mark.parametrize("name", ["dict", "fixed", "nested2", "list-binary", "hf-list"])
def test_bytes_in_dictionaries_fixed_sizes_and_lists_are_read(folder: Path, name: str) -> None:
    results = judged(folder / f"{name}.parquet")
    assert results
    for item, media in results:
        assert (item.error, media.error) == (None, None), media.error_detail
        assert len(media.frames) == len(item.objects)
        assert len({frame.index for frame in media.frames}) == len(media.frames)


def test_a_path_without_bytes_is_named(folder: Path) -> None:
    for item, media in judged(folder / "hf-path-only.parquet"):
        assert item.error is ErrorCode.EMPTY and media.error is ErrorCode.EMPTY
        assert ".jpg" in item.error_detail and "manifest" in item.error_detail


def test_columns_of_one_name_are_a_sentence(folder: Path) -> None:
    with pytest.raises(UsageError, match="column `label` more than once"):
        open_source(str(folder / "dupcols.parquet"), SourceConfig())


@pytest.mark.parametrize(("name", "count"), [("list.txt", 2), ("list.tsv", 1), ("list.json", 2), ("caps.csv", 1),
                                             ("spaces.csv", 3)])  # fmt: skip
def test_lists_are_manifests(folder: Path, name: str, count: int) -> None:
    results = judged(folder / name)
    assert [media.error for _, media in results] == [None] * count, [m.error_detail for _, m in results]


def test_cells_come_without_the_spaces_round_them(folder: Path) -> None:
    items = list(open_source(str(folder / "spaces.csv"), SourceConfig()))
    assert [(item.item_id, item.attributes) for item in items] == [
        ("a", {"note": "x"}), ("b", {"note": "y"}), ("c", {"note": "z"}),
    ]  # fmt: skip


def test_what_macos_keeps_beside_a_file_is_no_media(folder: Path) -> None:
    items = list(open_source(str(folder / "mac.tar"), SourceConfig()))
    pictures = [item for item in items if item.error is None]
    assert sorted(item.objects[0].name for item in pictures) == [f"./{n}.jpg" for n in range(4)]
    assert [item.attributes for item in pictures] == [{"n": str(n)} for n in range(4)]
    assert {item.error for item in items if item not in pictures} == {ErrorCode.NOT_MEDIA}
    assert len(items) == 12


def test_file_uris_are_decoded_before_the_allow_list_is_asked(folder: Path) -> None:
    odd = folder / "odd"
    odd.mkdir()
    uris = [line.split('"')[3] for line in (folder / "fileuri.jsonl").read_text().splitlines()]
    names = [unquote(uri.rpartition("/")[2]) for uri in uris]
    for name in names:
        (odd / name).write_bytes(encode(draw(), "JPEG"))
    results = judged(folder / "fileuri.jsonl")
    assert [Path(item.uri).name for item, _ in results] == names
    assert [media.error for _, media in results] == [None] * len(names)
    # The same kind, above the folder.
    (folder / "m.jsonl").write_text(f'{{"uri": "file://{folder}/%2e%2e/x.jpg"}}\n{{"uri": "file:///etc%2fpasswd"}}\n')
    assert {item.error for item, _ in judged(folder / "m.jsonl")} == {ErrorCode.FORBIDDEN}


def test_the_packed_list_is_read(folder: Path) -> None:
    # It names SRC, which cannot be replaced in it: its rows are there, and outside of what may be read.
    items = list(open_source(str(folder / "list.jsonl.gz"), SourceConfig()))
    assert [Path(item.uri).name for item in items] == ["0.jpg", "1.jpg"]
    assert all(item.kind in (None, Kind.IMAGE) for item in items)

"""Tars: keys become items, byte ranges are right, and what can't be read is a row."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import open_source
from moderation.sources import tar as tar_module
from moderation.types import ErrorCode, Item, Kind, MediaObject


def tar_of(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def items_of(tmp_path: Path, data: bytes, name: str = "x.tar", **options: Any) -> list[Item]:
    path = tmp_path / name
    path.write_bytes(data)
    return list(open_source(str(path), SourceConfig(**options)))


def read(media: MediaObject) -> bytes:
    return storage.read_bytes(media.uri, offset=media.offset, length=media.size_bytes)


def js(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_of_any_name_are_read_by_their_range(tmp_path: Path, format: int) -> None:
    files = {
        "plain.jpg": b"1" * 700,
        "deep/" * 60 + "long.jpg": b"2" * 3,
        "caf\u00e9.jpg": b"3" * 512,
        "/etc/absolute.jpg": b"4" * 513,
        "../../climbs.jpg": b"5",
        "large.jpg": b"6" * 100_000,
        "odd-\udcff.jpg": b"7",
    }
    items = items_of(tmp_path, tar_of(files, format))
    assert [read(i.objects[0]) for i in items] == list(files.values())
    assert {i.objects[0].uri for i in items} == {str(tmp_path / "x.tar")}
    assert items[-1].objects[0].name == "odd-\\udcff.jpg"
    assert items[0].uri == f"{tmp_path}/x.tar#plain.jpg"


def test_sidecars_are_attributes(tmp_path: Path) -> None:
    files = {
        "a.jpg": b"1",
        "a.json": js({"who": "me", "n": {"k": 2, "z": None}, "none": None}),
        "a.txt": b" a caption\n",
        "b.jpg": b"2",
        "b.json": b"{not json",
        "c.jpg": b"3",
        "c.json": b" " * (tar_module.MAX_SIDECAR + 1),
        "d.json": js([1]),
        "d.jpg": b"4",
    }
    a, b, c, d = items_of(tmp_path, tar_of(files))
    assert a.attributes == {"who": "me", "n.k": "2", "txt": "a caption"}
    assert b.attributes == {"json_error": "not valid JSON"}
    assert c.attributes == {"json_error": "not read: too large, or cut off"}
    assert d.attributes == {"json": "[1]"}
    assert all(i.error is None for i in (a, b, c, d))


def test_members_of_a_key_come_together_though_they_stand_apart(tmp_path: Path) -> None:
    files = {"a.jpg": b"1", "b.jpg": b"2", "a.json": js({"k": "v"}), "c/a.jpg": b"3"}
    items = items_of(tmp_path, tar_of(files))
    assert [(i.objects[0].name, i.attributes) for i in items] == [("a.jpg", {"k": "v"}), ("b.jpg", {}), ("c/a.jpg", {})]


def test_several_pictures_of_a_key_are_an_album_and_a_video_among_them_parts_it(tmp_path: Path) -> None:
    files = {"a.left.jpg": b"1", "a.right.png": b"2", "b.jpg": b"3", "b.mp4": b"4"}
    album, picture, video = items_of(tmp_path, tar_of(files))
    assert (album.kind, [o.name for o in album.objects]) == (Kind.ALBUM, ["a.left.jpg", "a.right.png"])
    assert [(i.kind, i.objects[0].name) for i in (picture, video)] == [(None, "b.jpg"), (None, "b.mp4")]


def test_a_key_without_media_is_a_row(tmp_path: Path) -> None:
    files = {"a.json": js({"k": "v"}), "b.xyz": b"by content", "README": b"r", "._hidden.jpg": b"h"}
    a, b, readme, hidden = items_of(tmp_path, tar_of(files))
    assert (a.error, a.attributes, a.objects) == (ErrorCode.NOT_MEDIA, {"k": "v"}, ())
    assert [read(i.objects[0]) for i in (b, readme, hidden)] == [b"by content", b"r", b"h"]


def test_the_same_name_twice_is_not_lost(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for data in (b"1", b"2"):
            entry = tarfile.TarInfo("a.jpg")
            entry.size = 1
            tar.addfile(entry, io.BytesIO(data))
    (item,) = items_of(tmp_path, out.getvalue())
    assert [read(o) for o in item.objects] == [b"1", b"2"]


def test_links_are_not_followed_out_of_the_tar(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("a.jpg")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
        for name, kind, target in [
            ("hard.jpg", tarfile.LNKTYPE, "a.jpg"),
            ("gone.jpg", tarfile.LNKTYPE, "/etc/passwd"),
            ("soft.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ]:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    a, hard, gone, soft = items_of(tmp_path, out.getvalue())
    assert read(a.objects[0]) == read(hard.objects[0]) == b"abc"
    assert (gone.error, soft.error) == (ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN)


FILES = {f"{n}.jpg": bytes([n]) * 1000 for n in range(5)}
WHOLE = tar_of(FILES)
MEMBER = 512 + 1024


@given(st.integers(1, 5 * MEMBER + 511))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_tar_keeps_what_is_whole_and_says_that_the_rest_is_missing(tmp_path: Path, cut: int) -> None:
    items = items_of(tmp_path, WHOLE[:cut])
    whole = [i for i in items if i.error is None]
    assert [read(i.objects[0]) for i in whole] == list(FILES.values())[: (cut + 24) // MEMBER]
    assert {i.error for i in items if i.error is not None} == {ErrorCode.TRUNCATED}
    assert items[-1].uri == str(tmp_path / "x.tar")
    assert len({i.item_id for i in items}) == len(items)


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=600))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_tar_gives_rows_and_never_an_exception(tmp_path: Path, at: int, noise: bytes) -> None:
    items = items_of(tmp_path, (WHOLE[:at] + noise + WHOLE[at + len(noise) :])[: len(WHOLE)])
    good = [i for i in items if i.error is None]
    assert len(good) == 5 or any(i.uri == str(tmp_path / "x.tar") for i in items)
    assert len({i.item_id for i in items}) == len(items)
    for item in good:
        media = item.objects[0]
        assert media.offset is not None and media.size_bytes is not None
        assert media.offset + media.size_bytes <= len(WHOLE)


def test_a_broken_header_in_the_middle_is_told(tmp_path: Path) -> None:
    data = bytearray(WHOLE)
    data[2 * MEMBER + 100] ^= 0xFF
    *good, fault = items_of(tmp_path, bytes(data))
    assert [i.objects[0].name for i in good] == ["0.jpg", "1.jpg"]
    assert (fault.error, fault.uri) == (ErrorCode.CORRUPT, str(tmp_path / "x.tar"))


def test_tars_put_together_are_told(tmp_path: Path) -> None:
    *good, fault = items_of(tmp_path, WHOLE + WHOLE)
    assert (len(good), fault.error) == (5, ErrorCode.CORRUPT)
    assert "after the end mark" in fault.error_detail


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (fault,) = items_of(tmp_path, entry.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)
    assert fault.error is ErrorCode.CORRUPT
    assert "8589934592 bytes" in fault.error_detail


def test_a_file_that_is_no_tar_and_an_empty_one_are_rows(tmp_path: Path) -> None:
    assert [i.error for i in items_of(tmp_path, b"this is a text\n" * 100)] == [ErrorCode.CORRUPT]
    assert [i.error for i in items_of(tmp_path, b"")] == [ErrorCode.EMPTY]


def test_a_compressed_tar_is_a_usage_error_and_among_others_a_row(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz"):
        pass
    with pytest.raises(UsageError, match=r"x\.tar\.gz: a tar compressed with gzip"):
        items_of(tmp_path, out.getvalue(), "x.tar.gz")
    (tmp_path / "a.tar").write_bytes(WHOLE)
    items = list(open_source(str(tmp_path), SourceConfig(type="webdataset")))
    assert [i.error for i in items] == [None] * 5 + [ErrorCode.UNSUPPORTED_TYPE]


def test_only_headers_of_large_members_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = 0
    real = storage.read_bytes

    def counting(uri: str, **wanted: Any) -> bytes:
        nonlocal fetched
        data = real(uri, **wanted)
        fetched += len(data)
        return data

    monkeypatch.setattr(storage, "read_bytes", counting)
    files = {f"{n}.mp4": bytes(2_000_000) for n in range(10)}
    assert len(items_of(tmp_path, tar_of(files))) == 10
    assert fetched < 200_000


def clips(tmp_path: Path, files: dict[str, bytes]) -> list[Item]:
    return items_of(tmp_path, tar_of(files), keyframes=True)


def test_pictures_of_a_folder_are_keyframes(tmp_path: Path) -> None:
    files = {
        "clip7/000123.jpg": b"2",
        "clip7/000123.json": js({"time_s": 4.1}),
        "other.jpg": b"o",
        "clip7/000007.jpg": b"1",
        "clip7.json": js({"who": "me"}),
        "clip7/meta.json": js({"fps": 30}),
        "clip8/x.jpg": b"3",
        "clip8/film.mp4": b"4",
    }
    clip, other, clip8, film = clips(tmp_path, files)
    assert (clip.kind, clip.attributes) == (Kind.KEYFRAMES, {"who": "me", "fps": "30"})
    assert [(read(o), o.frame, o.time_s) for o in clip.objects] == [(b"1", 7, None), (b"2", 123, 4.1)]
    assert clip.uri.endswith("x.tar#clip7/")
    assert (other.kind, read(other.objects[0])) == (None, b"o")
    assert (clip8.kind, [o.frame for o in clip8.objects]) == (Kind.KEYFRAMES, [0])
    assert (film.kind, read(film.objects[0])) == (None, b"4")


@pytest.mark.parametrize("names", [["f10", "f9", "last"], ["a_1", "b_1", "c_1"], ["1" * 30, "2" * 31, "3" * 32]])
def test_pictures_without_numbers_of_their_own_are_numbered_by_place(tmp_path: Path, names: list[str]) -> None:
    (clip,) = clips(tmp_path, {f"v/{name}.jpg": b"x" for name in names})
    assert [o.frame for o in clip.objects] == [0, 1, 2]
    assert sorted(o.name for o in clip.objects) == sorted(f"v/{name}.jpg" for name in names)


def test_two_folders_of_one_name_at_different_depths_are_two_items(tmp_path: Path) -> None:
    items = clips(tmp_path, {"a/1.jpg": b"1", "b/a/1.jpg": b"2", "a/2.jpg": b"3"})
    assert [[o.name for o in i.objects] for i in items] == [["a/1.jpg", "a/2.jpg"], ["b/a/1.jpg"]]

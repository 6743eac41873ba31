"""No member of a tar is left out: whatever its type, its name, or what stands before it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from moderation.config.model import MediaConfig, SourceConfig
from moderation.file_types import HEAD_BYTES, hides_media
from moderation.media import decode_item, sniff
from moderation.sources import open_source
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode
from tests.drawn_media import draw, encode

PICTURE = encode(draw(), "PNG")
END = bytes(1024)


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = len(data), kind
    return entry.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def judged(tmp_path: Path, data: bytes, **options: bool) -> dict[str, str]:
    """What becomes of each item: the end of its URI -> `ok` or the code of its error."""
    (tmp_path / "x.tar").write_bytes(data)
    items = list(open_source(str(tmp_path / "x.tar"), SourceConfig(**options)))
    assert len({item.item_id for item in items}) == len(items)
    fetch = Fetcher(items, MediaConfig())
    media = [decode_item(item, fetch(item), MediaConfig()) for item in items]
    return {i.uri.partition("#")[2] or "tar": str(m.error or "ok") for i, m in zip(items, media, strict=True)}


@pytest.mark.parametrize("kind", [b"A", b"M", b"N", b"Z", b"8"])
def test_an_entry_of_an_unknown_type_is_a_file(tmp_path: Path, kind: bytes) -> None:
    data = member("a.png", PICTURE) + member("b.png", PICTURE, kind) + member("c.png", PICTURE) + END
    assert judged(tmp_path, data) == {"a.png": "ok", "b.png": "ok", "c.png": "ok"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_has_a_row_and_a_folder_none(tmp_path: Path, kind: bytes) -> None:
    data = member("d/", b"", tarfile.DIRTYPE) + member("d/x.png", b"", kind) + member("y.png", PICTURE) + END
    assert judged(tmp_path, data) == {"d/x.png": ErrorCode.UNSUPPORTED_TYPE, "y.png": "ok"}


@pytest.mark.parametrize("hidden", ["a.bin", "a.txt", "a.json", "a.npy", "a.JPG_", "a", "a.ogg", "a.m4a"])
@pytest.mark.parametrize("keyframes", [False, True])
def test_a_picture_under_another_name_beside_one_is_looked_at(tmp_path: Path, hidden: str, keyframes: bool) -> None:
    data = member("v/a.png", PICTURE) + member(f"v/{hidden}", PICTURE) + member("v/a.pt", b"PK tensors") + END
    found = judged(tmp_path, data, keyframes=keyframes)
    assert found.pop(f"v/{hidden}") == "ok"
    assert set(found.values()) == {"ok"} and len(found) == 1


@pytest.mark.parametrize(
    "head",
    [
        *(b"\0\0\0\x20" + kind for kind in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
        (bytes(4) + b"G" + bytes(187)) * 8,
        b"BM" + bytes(4) + b"abcd" + bytes(4) + b"\x28\0\0\0",
        b"\0\0\0\1\x67",
        b"\0\0\1\x40\1",
        b"\0\0\1\xb0",
    ],
)
def test_whatever_is_decoded_is_looked_at(head: bytes) -> None:
    head = head.ljust(HEAD_BYTES, b"\0")
    assert sniff(head) is not None and hides_media(head, "bin")


def test_sidecars_and_sound_beside_a_picture_are_no_items(tmp_path: Path) -> None:
    sidecars = {
        "a.json": b"{}",
        "a.cls": b"7",
        "a.npy": b"\x93NUMPY",
        "a.emb": bytes(99),
        "a.ogg": b"OggS",
        "._a.png": b"\x00\x05\x16\x07" + PICTURE,
    }
    data = member("a.png", PICTURE) + b"".join(member(n, d) for n, d in sidecars.items()) + END
    assert judged(tmp_path, data)["a.png"] == "ok"
    assert set(judged(tmp_path, data)) == {"a.png", "._a.png"}


def test_members_behind_many_zeros_are_told(tmp_path: Path) -> None:
    data = member("a.png", PICTURE) + END + bytes(3 << 20) + member("b.png", PICTURE) + END
    assert judged(tmp_path, data) == {"a.png": "ok", "tar": ErrorCode.CORRUPT}
    assert judged(tmp_path, member("a.png", PICTURE) + END + bytes(3 << 20)) == {"a.png": "ok"}


def test_members_without_a_name_are_looked_at_like_others(tmp_path: Path) -> None:
    data = member("a.png", PICTURE) + member("", PICTURE) + member("", PICTURE) + member("", b"", tarfile.SYMTYPE) + END
    assert judged(tmp_path, data) == {"a.png": "ok", "(no name)": "ok"}
    assert len(list(open_source(str(tmp_path / "x.tar"), SourceConfig()))) == 3


def test_a_member_of_negative_length_is_corrupt(tmp_path: Path) -> None:
    header = bytearray(member("a.png"))
    header[124:136] = b"\xff" * 11 + b"\xf0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    assert judged(tmp_path, bytes(header) + END)["a.png"] == ErrorCode.CORRUPT


def test_tarfile_agrees_that_these_are_tars() -> None:
    with tarfile.open(fileobj=io.BytesIO(member("a.png", PICTURE) + END)) as tar:
        assert tar.getnames() == ["a.png"]


@pytest.mark.parametrize("name", [".a.jpg", "v/.a.png", "jpg", "v/png", ".jpg"])
@pytest.mark.parametrize("keyframes", [False, True])
def test_of_two_members_of_one_name_that_is_no_key_both_are_looked_at(
    tmp_path: Path, name: str, keyframes: bool
) -> None:
    (tmp_path / "x.tar").write_bytes(member(name, PICTURE) + member(name, PICTURE) + member("b.txt") + END)
    items = list(open_source(str(tmp_path / "x.tar"), SourceConfig(keyframes=keyframes)))
    assert len({source.offset for item in items for source in item.objects}) == 2
    assert len({item.item_id for item in items}) == len(items)

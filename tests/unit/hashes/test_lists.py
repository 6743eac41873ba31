"""The file of known hashes, and the formats that lists come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from moderation.errors import UsageError
from moderation.hashes import exchange
from moderation.hashes.exchange import read_exchange
from moderation.hashes.lists import LIST_SCHEMA, KnownPicture, encode_list, read_list

A, B, C = ("0f" * 32, "f0" * 32, "37" * 32)


def read(text: str, format_: str = "csv", group: str | None = None) -> list[KnownPicture]:
    return read_exchange(text.splitlines(keepends=True), format_, name="list", label="known", group=group).entries


def refused(text: str, format_: str = "csv") -> str:
    with pytest.raises(UsageError) as error:
        read(text, format_)
    return str(error.value)


def written(folder: Path, *entries: KnownPicture) -> Path:
    path = folder / "known.arrow"
    path.write_bytes(encode_list(entries)[0])
    return path


def test_a_csv_of_our_own_is_read_whatever_the_order_of_its_columns() -> None:
    text = f"label,hash,quality,group,entry,notes\nspam,{A.upper()},77,,7,\n,{B},,film,,seen twice\n"
    assert read(text) == [
        KnownPicture(hash=bytes.fromhex(A), label="spam", quality=77, entry="7"),
        KnownPicture(hash=bytes.fromhex(B), label="known", group="film"),
    ]


def test_a_spreadsheet_s_byte_order_mark_and_line_ends_do_no_harm() -> None:
    assert read(f"\ufeffhash,quality\r\n{A},50\r\n\r\n") == [
        KnownPicture(hash=bytes.fromhex(A), label="known", quality=50)
    ]


def test_hexadecimal_lines_may_bring_quality_and_name() -> None:
    found = read(f"{A}\n{B},100\n{C},33,a/b.jpg\n", "hex")
    assert [(k.quality, k.entry) for k in found] == [(None, None), (100, None), (33, "a/b.jpg")]


def test_the_lines_of_a_vpdq_file_are_one_video() -> None:
    found = read(f"0,100,{A},0.000\n1,98,{B},1.001\n", "vpdq")
    assert {k.group for k in found} == {"list"}
    assert [k.quality for k in found] == [100, 98]
    assert found[1].entry == "1 at 1.001 s"


def test_threatexchange_csv_leaves_out_what_is_no_pdq() -> None:
    text = f'id,indicator,type,tags\n1,{A},HASH_PDQ,"spam,scam"\n2,{"a" * 32},HASH_MD5,x\n'
    found = read_exchange(text.splitlines(), "threatexchange", name="list", label="known")
    assert found.entries == [KnownPicture(hash=bytes.fromhex(A), label="scam+spam", entry="1")]
    assert found.skipped == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [{"id": "9", "indicator": "%s", "type": "HASH_PDQ", "tags": {"data": [{"text": "scam"}]}}]}',
        '{"data": [\n{"id": "9", "indicator": "%s",\n "type": "HASH_PDQ", "tags": ["scam"]}]}',
        '[{"id": 9, "indicator": "%s", "type": "HASH_PDQ", "tags": ["scam"]}]',
        '{"id": 9, "indicator": "%s", "type": "HASH_PDQ", "tags": "scam"}\n',
    ],
)
def test_threatexchange_json_is_read_as_page_array_or_lines(text: str) -> None:
    assert read(text % A, "threatexchange") == [KnownPicture(hash=bytes.fromhex(A), label="scam", entry="9")]


def test_bad_lines_are_named_by_their_numbers() -> None:
    text = f"hash,quality\n{A},50\n{A[:-1]},50\n{B},101\n{B},-1\nx\n{C},1.5\n"
    lines = refused(text).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["list:3", "list:4", "list:5", "list:6", "list:7"]
    assert "64 hexadecimal" in lines[0]
    assert "0 to 100" in lines[1]


def test_ten_bad_lines_are_shown_and_the_others_counted() -> None:
    assert refused("hash\n" + "zz\n" * 25).splitlines()[-1] == "and 15 more"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hashes,quality\n", "'hashes' is near"),
        (f"hash,lable\n{A},spam\n", "did you mean 'label'"),
        (f"{A}\n{B}\n", "--exchange hex"),
        ("", "no column `hash`"),
    ],
)
def test_a_wrong_header_names_what_was_meant(text: str, told: str) -> None:
    assert told in refused(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("indicator,kind\n", "`indicator` and `type`"),
        ("[1]", "list:1: not a JSON object"),
        ('{"data": 3}', "without a list"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"id": 1}\n{"id": 2\n', "list:2: not a JSON object"),
    ],
)
def test_what_is_no_threatexchange_list_is_refused(text: str, told: str) -> None:
    assert told in refused(text, "threatexchange")


def test_an_unknown_form_names_the_nearest() -> None:
    assert "did you mean 'vpdq'" in refused("", "vpd")


def test_a_line_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_LINE", 100)
    assert "list:2: a line of" in refused("hash\n" + "0" * 200)


def test_names_that_would_deface_a_terminal_are_refused() -> None:
    assert "not printable" in refused(f"hash,label\n{A},\x1b[31mred\n")


def test_a_list_comes_back_as_it_was_written_sorted_and_each_once(tmp_path: Path) -> None:
    b = KnownPicture(hash=bytes.fromhex(B), label="spam", group="film", quality=60, entry="2")
    a = KnownPicture(hash=bytes.fromhex(A), label="scam")
    found = read_list(written(tmp_path, b, a, b))
    assert found.hashes.tobytes().hex() == A + B
    assert [found.labels[i] for i in found.label] == ["scam", "spam"]
    assert found.group.tolist() == [-1, 0]
    assert found.groups == ("film",)
    assert found.entries.to_pylist() == [None, "2"]


def test_the_same_entries_in_another_order_have_the_same_bytes() -> None:
    entries = [KnownPicture(hash=bytes([i]) * 32, label="x") for i in range(20)]
    assert encode_list(entries) == encode_list(entries[::-1])


def test_entries_of_low_quality_are_left_out_and_those_of_unknown_kept(tmp_path: Path) -> None:
    listed = [KnownPicture(hash=bytes.fromhex(h), label="x", quality=q) for h, q in ((A, 49), (B, 50), (C, None))]
    assert {h.tobytes().hex() for h in read_list(written(tmp_path, *listed), quality=50).hashes} == {B, C}
    with pytest.raises(UsageError, match="no hash in it"):
        read_list(written(tmp_path, listed[0]), quality=50)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(UsageError, match="no hash"):
        encode_list([])


@pytest.mark.parametrize("content", [b"", b"hash\n" + A.encode(), b"ARROW1\0\0" + b"\xff" * 64])
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "known.arrow"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not readable as a list"):
        read_list(path)


def test_another_table_and_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "known.arrow"
    for schema, told in (
        (pa.schema([("hash", pa.string())], metadata={"a": "b"}), "not a list of hashes"),
        (LIST_SCHEMA.with_metadata({"moderation.hashes_version": "9"}), "version '9'"),
    ):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(schema.empty_table())
        with pytest.raises(UsageError, match=told):
            read_list(path)


def test_a_damaged_list_is_never_half_read(tmp_path: Path) -> None:
    entries = [KnownPicture(hash=bytes([i]) * 32, label="x", entry=str(i)) for i in range(100)]
    path = written(tmp_path, *entries)
    data = bytearray(path.read_bytes())
    chance = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[int(chance.integers(8, len(data)))] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            found = read_list(path)
        except UsageError:
            continue
        assert len(found) == len(found.label) == len(found.entries) == 100

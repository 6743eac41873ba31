"""Lists from files and objects: every form, and every way in which one can be wrong."""

from __future__ import annotations

import io
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from moderation import storage
from moderation.errors import UsageError
from moderation.lists import read
from moderation.lists.learned import LEARNED_SCHEMA, read_learned
from moderation.lists.policy_file import load_whole_policy
from moderation.lists.read import read_entries
from moderation.lists.show import describe_policy, policy_as_json
from moderation.policy.entries import ListEntry
from moderation.policy.model import policy_hash

CSV = "value,reason,until,noted by\nann,spam,2026-12-31,me\n\nbob,,,me\n"
ENTRIES = [ListEntry("ann", "spam", date(2026, 12, 31)), ListEntry("bob", "", None)]


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize("name", ["l.csv", "L.CSV", "l.tsv"])
def test_a_text_with_a_header_is_read(tmp_path: Path, name: str) -> None:
    text = CSV.replace(",", "\t") if name.endswith("tsv") else CSV
    assert read_entries(write(tmp_path, name, "\ufeff" + text)) == ENTRIES


def test_a_text_of_values_is_read_without_its_comments(tmp_path: Path) -> None:
    assert read_entries(write(tmp_path, "l.txt", "# ours\nann\n\n  bob \n")) == [ListEntry("ann"), ListEntry("bob")]


@pytest.mark.parametrize("until", [[date(2026, 12, 31), None], [datetime(2026, 12, 31, 12), None], ["2026-12-31", ""]])
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_table_is_read_with_dates_times_or_texts(tmp_path: Path, suffix: str, until: list[object]) -> None:
    table = pa.table({"more": [1, 2], "value": ["ann", "bob"], "until": until, "reason": ["spam", None]})
    path = str(tmp_path / f"l.{suffix}")
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    assert read_entries(path) == ENTRIES


def test_a_list_may_lie_in_a_store() -> None:
    storage.publish("memory://lists/l.csv", CSV.encode())
    assert read_entries("memory://lists/l.csv") == ENTRIES


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "values\nann\n", "no column `value`; did you mean 'values'"),
        ("l.csv", "value,untill\nann,2026-01-01\n", "unknown column 'untill'; did you mean 'until'"),
        ("l.csv", "value,until\nann,2026-13-01\n", "line 2: `until` is '2026-13-01', not a date"),
        ("l.csv", "value,until\nann\n", "line 2: 1 cells under 2 columns"),
        ("l.csv", "value,until\n,2026-01-01\n", "line 2: no value"),
        ("l.csv", 'value\n"ann\n', "not readable as CSV"),
        ("l.csv", "", "no column `value`"),
        ("l.json", "[]", "a list is a file that ends in .csv"),
        ("l.parquet", "PAR1", "not readable as a table"),
        ("l.arrow", "ARROW1", "not readable as a table"),
    ],
)
def test_each_mistake_in_a_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_entries(write(tmp_path, name, text))


def test_a_missing_list_and_bytes_that_are_no_text_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such list"):
        read_entries(str(tmp_path / "l.csv"))
    (tmp_path / "l.csv").write_bytes(b"value\n\xff\xfe\n")
    with pytest.raises(UsageError, match="not a text in UTF-8"):
        read_entries(str(tmp_path / "l.csv"))


def test_a_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "l.csv", "value\n" + "a\n" * 11)
    pq.write_table(pa.table({"value": ["a"] * 11}), tmp_path / "l.parquet")
    monkeypatch.setattr(read, "MAX_ENTRIES", 10)
    for uri in (path, str(tmp_path / "l.parquet")):
        with pytest.raises(UsageError, match="make several lists"):
            read_entries(uri)
    monkeypatch.setattr(read, "MAX_FILE_BYTES", 10)
    with pytest.raises(UsageError, match="a list has at most 10"):
        read_entries(path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())], ids=str)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_value_that_a_file_has_once_counts_for_every_row(
    suffix: str, kind: pa.DataType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["f" * 100_000]))
    columns = {name: pa.array(["x"] * 3000) for name in LEARNED_SCHEMA.names} | {"value": value.cast(kind)}
    table, path = pa.table(columns), str(tmp_path / f"l.{suffix}")
    if suffix == "parquet":
        pq.write_table(table, path, compression="zstd")
    else:
        with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table, max_chunksize=500)
    assert Path(path).stat().st_size < 1 << 18
    monkeypatch.setattr(read, "MAX_TABLE_BYTES", 10 << 20)
    for reader in (read_entries, read_learned):
        with pytest.raises(UsageError, match="bytes unpacked"):
            reader(path)


@pytest.mark.parametrize(
    "value",
    [
        pa.array([["x"]]),
        pa.array([b"abcd"], pa.binary(4)),
        pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["x"])),
        pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([["x"]])),
    ],
    ids=lambda value: str(value.type),
)
def test_columns_whose_bytes_stand_for_any_number_are_refused(value: pa.Array, tmp_path: Path) -> None:
    table = pa.table({"value": value})
    with pa.ipc.new_file(str(tmp_path / "l.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UsageError, match="a list has texts, numbers and dates"):
        read_entries(str(tmp_path / "l.arrow"))


def test_views_of_one_value_count_each() -> None:
    views = pa.array(["x" * 50] * 3, pa.string_view())
    assert read._unpacked_bytes(views.slice(1)) == 100
    assert read._unpacked_bytes(pa.DictionaryArray.from_arrays(pa.array([0, 0, 0, 1], pa.int32()), views)) == 200


POLICY = """
checks:
  bad: {side: negative, votes: [a.bad], block: 0.9, label: Violence/Weapons, definition: weapon}
lists:
  spam: {action: deny, by: owner, from: lists/spam.csv}
"""


def policy_in(folder: Path, text: str = POLICY) -> Path:
    (folder / "lists").mkdir(exist_ok=True)
    write(folder, "lists/spam.csv", CSV)
    return Path(write(folder, "policy.yaml", text))


def test_a_list_lies_beside_its_policy_and_is_in_its_hash(tmp_path: Path) -> None:
    policy = load_whole_policy(policy_in(tmp_path))
    assert policy.lists["spam"].entries == tuple(ENTRIES)
    pq.write_table(pa.table({"value": ["bob", "ann"], "reason": ["", "spam"], "until": [None, date(2026, 12, 31)]}),
                   tmp_path / "lists" / "other.parquet")  # fmt: skip
    other = load_whole_policy(policy_in(tmp_path, POLICY.replace("spam.csv", "other.parquet")))
    assert policy_hash(other) == policy_hash(policy)
    path = policy_in(tmp_path)
    write(tmp_path, "lists/spam.csv", CSV + "carl,,,\n")
    assert policy_hash(load_whole_policy(path)) != policy_hash(policy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("spam.csv", "span.csv"), "no such list"),
        (("by: owner", "by: content_hash"), "'ann' is no content_hash"),
        (("from: lists/spam.csv", "from: lists/spam.csv, entries: [x]"), "has `from` and `entries`"),
        (("from: lists/spam.csv", "form: lists/spam.csv"), "did you mean 'from'"),
        (("from: lists/spam.csv", "from: s4://x/spam.csv"), "unknown scheme 's4'"),
        (("Violence/Weapons", "Violence/Weapon"), r"checks\.bad\.label.*did you mean 'Violence/Weapons'"),
        (("definition: weapon", "definition: weapons"), r"checks\.bad\.definition.*did you mean 'weapon'"),
        (("checks:", "taxonomy: none.csv\nchecks:"), "no such taxonomy"),
    ],
)
def test_what_a_policy_names_and_is_not_there_is_said(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_whole_policy(policy_in(tmp_path, POLICY.replace(*change)))


def test_a_taxonomy_of_ones_own_stands_beside_the_policy(tmp_path: Path) -> None:
    write(tmp_path, "own.csv", "check,level_1,level_2,level_3\nbad,Ours,Arms,\n")
    text = POLICY.replace("Violence/Weapons", "Ours/Arms").replace("checks:", "taxonomy: own.csv\nchecks:")
    assert load_whole_policy(policy_in(tmp_path, text)).checks["bad"].label == "Ours/Arms"


def test_a_policy_is_shown_with_its_definitions_and_without_the_entries_of_its_lists(tmp_path: Path) -> None:
    path = policy_in(tmp_path, POLICY + "audit: {salt: s, block: {check: bad, rate: 0.02, from: 0.8}}\n")
    policy = load_whole_policy(path)
    lines = "\n".join(describe_policy(policy, path))
    assert "list spam: deny (block) by owner; 2 entries, 1 of them with an end" in lines
    assert "label Violence/Weapons" in lines
    assert "audit, block: 2.00% of the groups with bad >= 0.8" in lines
    assert "water pistols" in lines
    assert "bob" not in lines
    shown = policy_as_json(policy, path)
    assert shown["policy"]["lists"]["spam"]["entries"] == 2
    assert shown["definitions"]["weapon"]["title"] == "Weapons"


def test_a_length_below_zero_makes_no_room_for_other_values(tmp_path: Path) -> None:
    table = pa.table({"value": pa.array(["x" * 1000, "y" * 20, "y" * 20], pa.string_view())})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = bytearray(sink.getvalue())
    view = data.find((1000).to_bytes(4, "little") + b"xxxx")  # 16 bytes: a length, four letters, where the rest is
    data[view + 32 : view + 36] = (-(2**31)).to_bytes(4, "little", signed=True)
    path = tmp_path / "l.arrow"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="not readable as a table"):
        read_entries(str(path))

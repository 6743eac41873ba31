"""No line of a text manifest is lost, whatever stands in it."""

from __future__ import annotations

import csv
import io
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation import storage
from moderation.sources import lines, unpack
from moderation.sources.lines import csv_records, read_lines


def records(text: str, width: int | None = None) -> list[tuple[int, list[str] | str]]:
    return list(csv_records(iter(list(enumerate(text.split("\n"), start=1))), width))


cells = st.text(st.sampled_from('ab,"\n é;'), max_size=6)


@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=8))
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    assert [record for _, record in records(text.getvalue(), 2)] == [[cell.strip(" ") for cell in row] for row in rows]


@given(st.lists(st.sampled_from(["a,b", '"a', 'a"', "a", '"x\ny",z', "a,b,c", '"', '""",b', '"a""b",c']), max_size=30))
def test_every_line_is_in_a_record_or_a_complaint(parts: list[str]) -> None:
    text = "\n".join(parts)
    found = records(text, 2)
    starts = [number for number, _ in found]
    assert starts == sorted(set(starts))
    covered = sum(1 if isinstance(r, str) else sum(c.count("\n") for c in r) + 1 for _, r in found)
    assert covered == (text.count("\n") + 1 if text else 0)


def test_a_stray_quote_costs_one_line_only() -> None:
    text = "\n".join(['a,"b', *(f"{n},x" for n in range(300))])
    found = records(text, 2)
    assert isinstance(found[0][1], str)
    assert [r for _, r in found[1:]] == [[str(n), "x"] for n in range(300)]


def test_a_wrong_number_of_cells_is_told_with_its_line() -> None:
    assert records("a,b\n\nc\nd,e,f\n", 2) == [
        (1, ["a", "b"]),
        (3, "1 cells where the header has 2"),
        (4, "3 cells where the header has 2"),
    ]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_lines_do_not_depend_on_how_they_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chunk: int
) -> None:
    monkeypatch.setattr(unpack, "CHUNK", chunk)
    monkeypatch.setattr(lines, "MAX_LINE", 8)
    path = tmp_path / "m"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\ntoolongtoolong\ncaf\xc3\xa9\nbad\xff\nlast")
    expected = [(1, "one"), (2, ""), (3, None), (4, "café"), (5, None), (6, "last")]
    assert list(read_lines(str(path))) == expected


def test_a_last_line_that_is_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "CHUNK", 4)
    monkeypatch.setattr(lines, "MAX_LINE", 8)
    uri = f"memory://{uuid.uuid4().hex}"
    storage.publish(uri, b"a\n" + b"b" * 50)
    assert list(read_lines(uri)) == [(1, "a"), (2, None)]

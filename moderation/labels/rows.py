"""Rows of a labels file: CSV, TSV, JSON lines, Parquet or Arrow. A line that cannot be read refuses the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from moderation import storage
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.pages.text import short_line
from moderation.results.export.plain import csv_text
from moderation.sources import columnar
from moderation.sources.lines import csv_records, read_lines

KEYS: Final = ("item_id", "uri", "content_hash")
COLUMNS: Final = (*KEYS, "label", "reviewer", "source", "group", "expert", "probability")
AUDIT: Final = "audit"
MAX_ROWS: Final = 2_000_000
MAX_BYTES: Final = 1 << 30
_MAX_CHARS: Final = 4096  # of a cell: a URI is the longest
_SHOWN_FAULTS: Final = 5
_TRUE: Final = ("1", "true", "yes")
_FALSE: Final = ("", "0", "false", "no")
LABEL_SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".json", *columnar.SUFFIXES)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """One answer of one reviewer about one item.

    keys: those of `item_id`, `uri`, `content_hash` that the row has. label: a word, or several with `|` between them.
    source: `audit`, or why else the item was looked at. expert: the answer settles what reviewers disagree on.
    probability: with which the item was drawn to be labelled; None: not said, all alike.
    """

    keys: Mapping[str, str]
    label: str
    reviewer: str = ""
    source: str = ""
    group: str = ""
    expert: bool = False
    probability: float | None = None


def read_label_rows(uri: str) -> list[LabelRow]:
    """All rows of a labels file, in order.

    Raises UsageError naming the file and the first five lines that cannot be read, or a missing column and the nearest
    one that is there; also where there are more than MAX_ROWS rows or MAX_BYTES bytes, or none.
    """
    rows: list[LabelRow] = []
    faults: list[str] = []
    for line, cells in _cells(uri, _checked_suffix(uri)):
        made = cells if isinstance(cells, str) else _make_row(cells)
        if isinstance(made, str):
            faults.append(f"line {line}: {made}")
            if len(faults) == _SHOWN_FAULTS:
                break
        elif len(rows) == MAX_ROWS:
            raise UsageError(f"{uri}: more than {MAX_ROWS:,} rows")
        else:
            rows.append(made)
    if faults:
        raise UsageError(f"{uri}: not all of it is readable as labels\n" + "\n".join(faults))
    if not rows:
        raise UsageError(f"{uri}: no labels in it")
    return rows


def _checked_suffix(uri: str) -> str:
    """The suffix by which the file is read. Raises UsageError where the file is missing or too large."""
    suffix = next((s for s in LABEL_SUFFIXES if uri.lower().endswith(s)), None)
    if suffix is None:
        raise UsageError(f"{uri}: labels are read from {', '.join(LABEL_SUFFIXES)}")
    try:
        size_bytes = storage.info(uri).size_bytes
    except FileNotFoundError as error:
        raise UsageError(f"{uri}: no such file of labels") from error
    except PermissionError as error:
        raise UsageError(f"{uri}: access denied") from error
    if size_bytes > MAX_BYTES:
        raise UsageError(f"{uri}: {size_bytes:,} bytes of labels, more than {MAX_BYTES:,}")
    return suffix


Cells = tuple[int, Mapping[str, Any] | str]  # line number; cells by column, or what is wrong


def _cells(uri: str, suffix: str) -> Iterator[Cells]:
    if suffix in (".csv", ".tsv"):
        return _csv_cells(uri, "\t" if suffix == ".tsv" else ",")
    if suffix in (".jsonl", ".json"):
        return _json_cells(uri)
    return _table_cells(uri)


def _csv_cells(uri: str, delimiter: str) -> Iterator[Cells]:
    header: list[str] | None = None
    for _, first in csv_records(read_lines(uri), delimiter=delimiter):
        if isinstance(first, str):
            raise UsageError(f"{uri}: the header is {first}")
        header = [name.strip().lower() for name in first]
        break
    if header is None:
        raise UsageError(f"{uri}: no labels in it")
    _check_columns(uri, header)
    records = csv_records(read_lines(uri), len(header), delimiter)
    next(records)
    for line, record in records:
        yield line, record if isinstance(record, str) else dict(zip(header, map(csv_text, record), strict=True))


def _json_cells(uri: str) -> Iterator[Cells]:
    checked = False
    for line, text in read_lines(uri):
        if text is not None and not text.strip():
            continue
        try:
            value = json.loads(text or "")
        except (ValueError, RecursionError):
            yield line, "not valid JSON: one object a line"
            continue
        if not isinstance(value, dict):
            yield line, "a JSON value that is not an object"
            continue
        if not checked:
            _check_columns(uri, value)
            checked = True
        yield line, value


def _table_cells(uri: str) -> Iterator[Cells]:
    line = 0
    try:
        with columnar.open_columnar(uri) as table:
            names = list(table.schema.names)
            _check_columns(uri, names)
            wanted = [name for name in COLUMNS if name in names]
            for group in range(table.groups):
                for batch in columnar.read_batches(table, group, wanted):
                    for cells in batch.select(wanted).to_pylist():
                        line += 1
                        yield line, cells
    except columnar.DAMAGE as error:
        columnar.raise_unless_corrupt(error)
        raise UsageError(f"{uri}: damaged after row {line:,}") from error


def _check_columns(uri: str, names: Iterable[str]) -> None:
    given = [short_line(str(name), 60) for name in names]
    if "label" not in given:
        hint = did_you_mean("label", given, otherwise="its columns are")
        raise UsageError(f"{uri}: no column `label`{hint}")
    if not set(given) & set(KEYS):
        raise UsageError(
            f"{uri}: no column that says which item a label is of: `item_id`, `uri` or `content_hash`;"
            f" its columns are: {', '.join(given[:20])}"
        )


def _make_row(cells: Mapping[str, Any]) -> LabelRow | str:
    """A row, or what is wrong with it."""
    texts = _texts_of(cells)
    if isinstance(texts, str):
        return texts
    keys = {name: texts[name] for name in KEYS if texts[name]}
    if "content_hash" in keys:
        keys["content_hash"] = keys["content_hash"].lower()
    if not keys:
        return "names no item"
    if not texts["label"].strip("| "):
        return "has no label"
    expert, probability = _expert(texts["expert"].lower()), _probability(texts["probability"])
    if isinstance(expert, str):
        return expert
    if isinstance(probability, str):
        return probability
    return LabelRow(
        keys=keys,
        label=texts["label"],
        reviewer=texts["reviewer"],
        source=texts["source"].lower(),
        group=texts["group"],
        expert=expert,
        probability=probability,
    )


def _texts_of(cells: Mapping[str, Any]) -> dict[str, str] | str:
    """The cells as text, by column; or what is wrong with one."""
    texts: dict[str, str] = {}
    for name in COLUMNS:
        value = cells.get(name)
        if isinstance(value, dict | list | bytes):
            return f"`{name}` is not text"
        texts[name] = "" if value is None else str(value).strip()
        if len(texts[name]) > _MAX_CHARS:
            return f"`{name}` has more than {_MAX_CHARS:,} characters"
    return texts


def _expert(text: str) -> bool | str:
    """Whether an answer is an expert's; or what is wrong with the cell."""
    if text in (*_TRUE, *_FALSE):
        return text in _TRUE
    return f"`expert` is {short_line(text, 40)!r}, neither true nor false"


def _probability(text: str) -> float | str | None:
    """A probability over 0 and at most 1, None where the cell is empty; or what is wrong with it."""
    try:
        number = float(text) if text else None
    except ValueError:
        number = math.nan
    if number is None or 0 < number <= 1:
        return number
    return f"`probability` is {short_line(text, 40)!r}, not a number over 0 and at most 1"

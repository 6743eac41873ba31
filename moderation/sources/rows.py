"""Rows of a manifest, one form for CSV, JSON lines, Parquet and Arrow; an unreadable line is a row with `error`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from moderation import storage
from moderation.errors import UsageError
from moderation.sources import columnar
from moderation.sources.items import attribute_text, clean_text, flatten, shorten
from moderation.sources.lines import CHUNK, UNREADABLE, csv_records, read_lines
from moderation.types import ErrorCode

SUFFIXES = (".csv", ".jsonl", ".ndjson", *columnar.SUFFIXES)
SPECIAL = ("uri", "item_id", "group", "frame", "time_s")


_Fault = tuple[ErrorCode, str]


class SourceRow(NamedTuple):
    """One row of a manifest. `line`: in the file, from 1: that of its first line of text, or of the table's row."""

    line: int
    uri: str = ""
    item_id: str | None = None
    group: str | None = None
    frame: int | None = None
    time_s: float | None = None
    attributes: Mapping[str, str] = {}
    error: ErrorCode | None = None
    detail: str = ""


def read_columns(uri: str) -> frozenset[str]:
    """The columns of a manifest; of JSON lines, those of its first row and the special ones that it may name anywhere.

    Raises UsageError for an unknown type of file, an unreadable header, or no column `uri`; FileNotFoundError,
    PermissionError, StorageError.
    """
    columns = _columns_of(uri)
    if "uri" not in columns:
        names = ", ".join(columns) or "nothing"
        raise UsageError(f"{uri}: the manifest has no column `uri`; it has: {shorten(names)}")
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise UsageError(f"{uri}: the manifest has the column `{shorten(twice[0])}` twice")
    return frozenset(columns)


def read_rows(uri: str) -> Iterator[SourceRow]:
    """The rows of a manifest, streaming, in bounded memory."""
    if uri.lower().endswith(".csv"):
        yield from _csv_rows(uri)
    elif uri.lower().endswith((".jsonl", ".ndjson")):
        yield from _json_rows(uri)
    else:
        yield from _table_rows(uri)


def _columns_of(uri: str) -> list[str]:
    name = uri.lower()
    if name.endswith(".csv"):
        return _csv_header(uri)
    if name.endswith((".jsonl", ".ndjson")):
        return _json_columns(uri)
    if name.endswith(columnar.SUFFIXES):
        with columnar.open_columnar(uri) as table:
            if "uri" in table.schema.names and not columnar.is_text(table.schema.field("uri").type):
                raise UsageError(f"{uri}: the column `uri` holds {table.schema.field('uri').type}, not text")
            return list(table.schema.names)
    raise UsageError(f"{uri}: not a known type of manifest; known: {' '.join(SUFFIXES)}")


def _csv_header(uri: str) -> list[str]:
    for _, header in csv_records(read_lines(uri)):
        if isinstance(header, str):
            raise UsageError(f"{uri}: the header is {header}")
        # An unnamed column (pandas' index) still needs a name as an attribute.
        return [clean_text(name.strip()) or f"column_{i}" for i, name in enumerate(header)]
    raise UsageError(f"{uri}: the manifest is empty")


def _csv_rows(uri: str) -> Iterator[SourceRow]:
    columns = _csv_header(uri)
    records = csv_records(read_lines(uri), len(columns))
    next(records)  # the header
    for line, record in records:
        if isinstance(record, str):
            yield SourceRow(line, error=ErrorCode.CORRUPT, detail=record)
        else:
            # CSV has no null: an empty cell is one.
            cells = {name: cell for name, cell in zip(columns, record, strict=True) if cell}
            yield make_row(line, cells, {k: v for k, v in cells.items() if k not in SPECIAL})


def _json_columns(uri: str) -> list[str]:
    columns: list[str] | None = None
    for _, text in read_lines(uri):
        value = _parse_object(text) if text is None or text.strip() else None
        if isinstance(value, dict):
            columns = [clean_text(name) for name in value]
            break
    if columns is None:
        raise UsageError(f"{uri}: the manifest is empty: no line of it is a JSON object")
    # A later row may be the first to name a group, and then all have to be held: look, without parsing.
    return columns + [name for name in _named_anywhere(uri, SPECIAL[2:]) if name not in columns]


def _named_anywhere(uri: str, names: Sequence[str]) -> list[str]:
    quoted = {name: f'"{name}"'.encode() for name in names}
    named: set[str] = set()
    size, tail = storage.info(uri).size_bytes, b""
    for offset in range(0, size, CHUNK):
        chunk = tail + storage.read_bytes(uri, offset=offset, length=min(CHUNK, size - offset))
        named |= {name for name, written in quoted.items() if written in chunk}
        if len(named) == len(quoted):
            break
        tail = chunk[-16:]
    return sorted(named)


def _json_rows(uri: str) -> Iterator[SourceRow]:
    for line, text in read_lines(uri):
        if text is not None and not text.strip():
            continue
        value = _parse_object(text)
        if isinstance(value, str):
            yield SourceRow(line, error=ErrorCode.CORRUPT, detail=value)
        else:
            yield make_row(line, value, flatten({k: v for k, v in value.items() if k not in SPECIAL}))


def _parse_object(text: str | None) -> dict[str, Any] | str:
    if text is None:
        return UNREADABLE
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "not valid JSON"
    return value if isinstance(value, dict) else "a JSON value that is not an object"


def _table_rows(uri: str) -> Iterator[SourceRow]:
    with columnar.open_columnar(uri) as table:
        leaves = columnar.attribute_leaves(table.schema, without=SPECIAL)
        special = [name for name in SPECIAL if name in table.schema.names]
        before = 0
        for group in range(table.groups):
            done = 0
            try:
                for batch in columnar.read_batches(table, group, [*special, *leaves]):
                    yield from _batch_rows(batch, special, leaves, first=before + done + 1)
                    done += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                columnar.raise_unless_corrupt(error)
                lost = _rows_in(table, group) - done
                for line in range(before + done + 1, before + done + lost + 1):
                    yield SourceRow(line, error=ErrorCode.CORRUPT, detail="a damaged part of the manifest")
                done += lost
            before += done


def _rows_in(table: columnar.Columnar, group: int) -> int:
    """Rows of a row group, as its footer says; of a damaged batch of an Arrow file not known, and then 1."""
    try:
        return columnar.group_rows(table, group)
    except (pa.ArrowException, OSError) as error:
        columnar.raise_unless_corrupt(error)
        return 1


def _batch_rows(batch: pa.RecordBatch, special: list[str], leaves: list[str], first: int) -> Iterator[SourceRow]:
    texts = {name: columnar.text_values(columnar.leaf_column(batch, name)) for name in [*special, *leaves]}
    for i in range(batch.num_rows):
        attributes = {name: value for name in leaves if (value := texts[name][i]) is not None}
        yield make_row(first + i, {name: texts[name][i] for name in special}, attributes)


def make_row(line: int, cells: Mapping[str, Any], attributes: Mapping[str, str]) -> SourceRow:
    """A row from its special cells (text, or JSON values) and its attributes.

    No uri is NOT_FOUND; a uri, frame or time that is none is CORRUPT. Of several faults the last is told.
    """
    uri, uri_fault = _read_uri(cells.get("uri"))
    frame, frame_fault = _read_frame(cells.get("frame"))
    time_s, time_fault = _read_time(cells.get("time_s"))
    fault = time_fault or frame_fault or uri_fault
    return SourceRow(
        line=line,
        uri=uri,
        item_id=attribute_text(cells.get("item_id")) or None,
        group=attribute_text(cells.get("group")) or None,
        frame=frame,
        time_s=time_s,
        attributes=attributes,
        error=fault[0] if fault is not None else None,
        detail=fault[1] if fault is not None else "",
    )


def _read_uri(cell: object) -> tuple[str, _Fault | None]:
    if cell is None or cell == "":
        return "", (ErrorCode.NOT_FOUND, "the row has no uri")
    if not isinstance(cell, str):
        return "", (ErrorCode.CORRUPT, "the uri is not text")
    return cell, None


def _read_frame(cell: object) -> tuple[int | None, _Fault | None]:
    number = _number(cell)
    if number is None:
        return None, None
    if not 0 <= number < 2**31 or number != number // 1:
        # 0, not None: the row still belongs to its item, which is an error row then.
        return 0, (ErrorCode.CORRUPT, "`frame` is not a whole number from 0")
    return int(number), None


def _read_time(cell: object) -> tuple[float | None, _Fault | None]:
    number = _number(cell)
    if number is not None and not 0 <= number < math.inf:
        return 0.0, (ErrorCode.CORRUPT, "`time_s` is not a number of seconds from 0")
    return number, None


def _number(cell: object) -> float | None:
    """A cell as a number, NaN where it is none, None where there is nothing."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return math.nan
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return math.nan

"""Rows as JSON lines, as CSV for a spreadsheet, as one Parquet file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderation.results.export.selection import SelectedRow
from moderation.results.tables import ZSTD_LEVEL

# A spreadsheet takes a cell that begins like this for a formula; a formula may start a program or leak the sheet.
# https://owasp.org/www-community/attacks/CSV_Injection ; the last four are the wide forms of = + - @.
# What has a `'` before such already gets one more, so that `csv_text` gives every text back.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# In locales whose separator is `;`, a cell with `;=` is split in two, quoted or not.
_INNER_FORMULA = re.compile(r"([;\t\r\n])(?=['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_MARKED = re.compile(r"([;\t\r\n])'(?=['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def json_line(value: Mapping[str, Any]) -> bytes:
    """One line of JSON, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n"


def write_json_lines(rows: Iterable[Sequence[SelectedRow]], file: IO[bytes]) -> int:
    """Write a line per row, with the columns of the table; attributes are an object. Returns the number of rows."""
    count = 0
    for part in rows:
        for row in part:
            file.write(json_line({**row.cells, "attributes": row.attributes}))
            count += 1
    return count


def write_csv(rows: Iterable[Sequence[SelectedRow]], file: IO[bytes]) -> int:
    """Write a record per row under a header; lists and attributes are JSON in their cells. No cell is a formula."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    count = 0
    for part in rows:
        for row in part:
            if not count:
                writer.writerow(row.cells)
            writer.writerow([csv_cell(value) for value in row.cells.values()])
            count += 1
    text.flush()
    text.detach()
    return count


def csv_cell(value: object) -> str | int | float:
    """A value as a cell: numbers as they are, null as an empty cell, text that would be a formula after a `'`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False, default=str)
    text = _INNER_FORMULA.sub(r"\1'", text)
    return f"'{text}" if _FORMULA.match(text) else text


def csv_text(cell: str) -> str:
    """The text that `csv_cell` made a cell of."""
    inner = cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
    return _MARKED.sub(r"\1", inner)


def _plain(value: object) -> object:
    # Arrow's maps come as lists of pairs.
    if isinstance(value, list) and value and all(isinstance(entry, tuple) for entry in value):
        return dict(value)
    return value


def write_parquet(parts: Iterator[pa.Table], file: IO[bytes]) -> int:
    """Write one file with the columns of the verdicts table, a row group per part. Returns the number of rows."""
    first = next(parts)
    count = int(first.num_rows)
    with pq.ParquetWriter(file, first.schema, compression="zstd", compression_level=ZSTD_LEVEL) as writer:
        writer.write_table(first)
        for part in parts:
            if part.num_rows:
                writer.write_table(part.select(first.schema.names).cast(first.schema))
                count += part.num_rows
    return count

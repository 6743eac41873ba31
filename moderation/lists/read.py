"""The entries of one allow- or deny-list from a file or an object; everything in them is bounded.

    .csv .tsv        a header with `value`, and perhaps `reason` and `until` (the last day on which an entry counts)
    .txt             one value per line; lines that begin with # are comments
    .parquet .arrow  the same columns; `until` as a date, a time or a text

A file of several lists in one, as `moderation lists learn` writes it, has the columns `action` (deny, allow) and `by`
besides; each list takes the rows that are its own. Other columns are ignored. A line that is no entry refuses the whole
list: reading part of it would silently drop the rest.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from moderation import storage
from moderation.config.hints import closest, did_you_mean
from moderation.errors import UsageError
from moderation.policy.entries import MAX_ENTRIES, By, ListEntry, as_end

MAX_FILE_BYTES: Final = 256 << 20
MAX_TABLE_BYTES: Final = 1 << 30  # unpacked
_BATCH_ROWS: Final = 16_384
_VIEWS: Final = (pa.types.is_string_view, pa.types.is_binary_view)
_TEXT_TYPES: Final = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary, *_VIEWS,
)  # fmt: skip
_PLAIN_TYPES: Final = (*_TEXT_TYPES, pa.types.is_primitive, pa.types.is_decimal, pa.types.is_null)
_COLUMNS: Final = ("value", "reason", "until")
_SORTS: Final = ("action", "by")  # of a file of several lists
_ACTIONS: Final = ("deny", "allow")
_SHOWN: Final = 10  # bad lines that an error names
_TEXTS: Final = (".csv", ".tsv", ".txt")
_TABLES: Final = (".parquet", ".arrow")

_Row = tuple[str, Sequence[object]]  # its place in the file, and its cells in the order of _COLUMNS, _SORTS


def read_entries(uri: str, action: str | None = None, by: str | None = None) -> list[ListEntry]:
    """The entries of a list, in the order of the file.

    action, by: of a file of several lists only those of this one; None: all entries.
    Raises UsageError when there is nothing at the URI, or it is no list, or it is too large.
    """
    suffix = next((s for s in (*_TEXTS, *_TABLES) if uri.lower().endswith(s)), None)
    if suffix is None:
        raise UsageError(f"{uri}: a list is a file that ends in {', '.join((*_TEXTS, *_TABLES))}")
    data = _read(uri)
    try:
        rows = _text_rows(uri, data, suffix) if suffix in _TEXTS else _table_rows(uri, data)
        return _entries(uri, (row for row in rows if _is_of(row[1], action, by)))
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{uri}: not readable as a table: {error}") from error


def _is_of(cells: Sequence[object], action: str | None, by: str | None) -> bool:
    """Whether a row is one of the list. Other words under these columns are the file's own business."""
    own_action, own_by = cells[3:5]
    if action is None or own_action not in _ACTIONS or own_by not in get_args(By):
        return True
    return (own_action, own_by) == (action, by)


def _read(uri: str) -> bytes:
    try:
        size = storage.info(uri).size_bytes
        if size > MAX_FILE_BYTES:
            raise UsageError(f"{uri}: {size:,} bytes; a list has at most {MAX_FILE_BYTES:,}")
        return storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise UsageError(f"{uri}: no such list") from error
    except PermissionError as error:
        raise UsageError(f"{uri}: may not be read") from error


def _entries(uri: str, rows: Iterable[_Row]) -> list[ListEntry]:
    entries: list[ListEntry] = []
    bad: list[str] = []
    for where, (value, reason, until, *_) in rows:
        if len(entries) >= MAX_ENTRIES:
            raise UsageError(f"{uri}: over {MAX_ENTRIES:,} entries, make several lists of it")
        try:
            entries.append(_entry(value, reason, until, where))
        except ValueError as error:
            bad.append(str(error))
            if len(bad) >= _SHOWN:
                break
    if bad:
        raise UsageError("\n".join(f"{uri}: {problem}" for problem in bad))
    return entries


def _entry(value: object, reason: object, until: object, where: str) -> ListEntry:
    if value is None or not str(value).strip():
        raise ValueError(f"{where}: no value")
    return ListEntry(str(value), "" if reason is None else str(reason), as_end(until, where))


def _text_rows(uri: str, data: bytes, suffix: str) -> Iterator[_Row]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{uri}: not a text in UTF-8") from error
    return _lines(text) if suffix == ".txt" else _csv_rows(uri, text, "\t" if suffix == ".tsv" else ",")


def _lines(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        value = line.strip()
        if value and not value.startswith("#"):
            yield f"line {number}", (value, None, None, None, None)


def _csv_rows(uri: str, text: str, delimiter: str) -> Iterator[_Row]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        places = _places(uri, header)
        for row in filter(None, rows):
            where = f"line {rows.line_num}"
            if len(row) != len(header):
                raise UsageError(f"{uri}: {where}: {len(row)} cells under {len(header)} columns")
            yield where, [None if at is None else row[at] for at in places]
    except csv.Error as error:
        raise UsageError(f"{uri}: line {rows.line_num}: not readable as CSV: {error}") from error


def _places(uri: str, header: Sequence[str]) -> list[int | None]:
    """The index of each of our columns. Raises UsageError without `value`, or for a misspelt column."""
    if "value" not in header:
        raise UsageError(f"{uri}: no column `value`{did_you_mean('value', header, otherwise='it has', cutoff=0.6)}")
    for name in header:
        meant = closest(name, _COLUMNS, cutoff=0.7)
        if name not in _COLUMNS and meant is not None and meant not in header:
            raise UsageError(f"{uri}: unknown column {name!r}; did you mean {meant!r}?")
    return [header.index(name) if name in header else None for name in (*_COLUMNS, *_SORTS)]


def _table_rows(uri: str, data: bytes) -> Iterator[_Row]:
    number = 0
    wanted = (*_COLUMNS, *_SORTS)
    for batch in table_batches(uri, data, wanted, partial(_places, uri)):
        names = batch.schema.names
        cells = [batch.column(name).to_pylist() if name in names else [None] * batch.num_rows for name in wanted]
        for row in zip(*cells, strict=True):
            number += 1
            yield f"row {number}", row


def table_batches(
    uri: str, data: bytes, columns: Sequence[str], check: Callable[[Sequence[str]], object] = len
) -> Iterator[pa.RecordBatch]:
    """Those of the columns that a Parquet or Arrow file has, some thousand rows at a time, bounded.

    check: is given the names of all columns before anything is unpacked. A value that the file has once, for many rows,
    counts as often as it stands there, and is copied only after that. Raises UsageError, pyarrow's errors.
    """
    unpacked = rows = 0
    for whole in (_parquet_batches if uri.lower().endswith(".parquet") else _arrow_batches)(uri, data, columns, check):
        for start in range(0, whole.num_rows, _BATCH_ROWS):
            batch = whole.slice(start, _BATCH_ROWS)
            rows += batch.num_rows
            unpacked += sum(map(_unpacked_bytes, batch.columns))
            _check_unpacked(uri, unpacked, rows)
            yield batch


def _unpacked_bytes(column: pa.Array) -> int:
    is_coded = pa.types.is_dictionary(column.type)
    values = column.dictionary if is_coded else column
    if not _is_of_type(values.type, _TEXT_TYPES):
        return 8 * len(column) if is_coded else int(column.nbytes)
    lengths = _lengths(values)
    return pc.sum(lengths.take(column.indices) if is_coded else lengths).as_py() or 0


def _lengths(texts: pa.Array) -> pa.Array:
    if not _is_of_type(texts.type, _VIEWS):
        return pc.binary_length(texts)
    # Many views may be of the same bytes; of a null's length only too much can be counted.
    views = np.frombuffer(texts.buffers()[1], np.int32).reshape(-1, 4)
    return pa.array(views[texts.offset : texts.offset + len(texts), 0].astype(np.int64))


def _is_of_type(kind: pa.DataType, tests: Sequence[Callable[[pa.DataType], bool]]) -> bool:
    return any(is_type(kind) for is_type in tests)


def _check_types(uri: str, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Raises UsageError for a column of lists, runs or blocks: a few of its bytes may stand for any number of them."""
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if field.name in columns and not _is_of_type(kind, _PLAIN_TYPES):
            raise UsageError(f"{uri}: column {field.name!r} is {field.type}; a list has texts, numbers and dates")


def _parquet_batches(
    uri: str, data: bytes, columns: Sequence[str], check: Callable[[Sequence[str]], object]
) -> Iterator[pa.RecordBatch]:
    source = pa.BufferReader(data)
    metadata = pq.read_metadata(source)
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    # What the file says of itself; looked at before anything is unpacked.
    _check_unpacked(uri, sum(group.total_byte_size for group in groups), metadata.num_rows)
    schema = metadata.schema.to_arrow_schema()
    check(schema.names)
    _check_types(uri, schema, columns)
    texts = [field.name for field in schema if any(is_type(field.type) for is_type in _TEXT_TYPES)]
    file = pq.ParquetFile(source, metadata=metadata, read_dictionary=texts)
    yield from file.iter_batches(_BATCH_ROWS, columns=[name for name in columns if name in schema.names])


def _arrow_batches(
    uri: str, data: bytes, columns: Sequence[str], check: Callable[[Sequence[str]], object]
) -> Iterator[pa.RecordBatch]:
    schema = pa.ipc.open_file(pa.py_buffer(data)).schema
    names = schema.names
    check(names)
    _check_types(uri, schema, columns)
    places = [place for place, name in enumerate(names) if name in columns]
    reader = pa.ipc.open_file(pa.py_buffer(data), options=pa.ipc.IpcReadOptions(included_fields=places))
    for at in range(reader.num_record_batches):
        batch = reader.get_batch(at)
        batch.validate(full=True)  # lengths that are below 0 would make room for others
        yield batch


def _check_unpacked(uri: str, size_bytes: int, rows: int) -> None:
    if size_bytes > MAX_TABLE_BYTES:
        raise UsageError(f"{uri}: over {MAX_TABLE_BYTES:,} bytes unpacked")
    if rows > MAX_ENTRIES:
        raise UsageError(f"{uri}: {rows:,} entries; {MAX_ENTRIES:,} at most, make several lists of it")

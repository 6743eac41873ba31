"""Rows of manifests that are text: CSV and TSV, JSON lines, one JSON list, or plain lines of URIs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from moderation.errors import UsageError
from moderation.sources.items import clean_text, flatten
from moderation.sources.lines import UNREADABLE, csv_records, read_lines
from moderation.sources.source_row import SPECIAL, SourceRow, make_row
from moderation.sources.unpack import DamagedTextError, read_text
from moderation.types import ErrorCode

# A JSON list is parsed whole, and takes about ten times its size as Python objects.
MAX_JSON_BYTES = 64 * 1024 * 1024
# The key of the URI in manifests of SageMaker Ground Truth and of Rekognition's bulk analysis.
SOURCE_REF = "source-ref"


def csv_header(uri: str, delimiter: str) -> list[str]:
    """The columns of a CSV file. Raises UsageError where it has no header."""
    for _, header in csv_records(read_lines(uri), delimiter=delimiter):
        if isinstance(header, str):
            raise UsageError(f"{uri}: its header line: {header}")
        # An unnamed column (pandas' index) still needs a name as an attribute.
        return [_column_name(name) or f"column_{i}" for i, name in enumerate(header)]
    raise UsageError(f"{uri}: the manifest is empty")


def _column_name(written: str) -> str:
    """The name of a column as text; special ones in lower case, because spreadsheets write `URI`."""
    name = clean_text(written.strip())
    return name.lower() if name.lower() in SPECIAL else name


def csv_rows(uri: str, delimiter: str) -> Iterator[SourceRow]:
    """The rows of a CSV file below its header."""
    columns = csv_header(uri, delimiter)
    records = csv_records(read_lines(uri), len(columns), delimiter)
    next(records)  # the header
    for line, record in records:
        if isinstance(record, str):
            yield SourceRow(line, error=ErrorCode.CORRUPT, detail=record)
        else:
            # CSV has no null: an empty cell counts as null.
            cells = {name: cell for name, cell in zip(columns, record, strict=True) if cell}
            yield make_row(line, cells, {k: v for k, v in cells.items() if k not in SPECIAL})


def json_columns(uri: str) -> list[str]:
    """The columns of JSON lines: those of the first row, and special ones that a later row names."""
    columns: list[str] | None = None
    for _, text in read_lines(uri):
        value = _parse_object(text) if text and text.strip() else None
        if isinstance(value, dict):
            columns = [clean_text(name) for name in value]
            break
    if columns is None:
        lines = "no line of it is a JSON object or a URI in quotes; a JSON list is named .json"
        raise UsageError(f"{uri}: the manifest is empty: {lines}")
    if SOURCE_REF in columns and "uri" not in columns:
        columns[columns.index(SOURCE_REF)] = "uri"
    # All rows have to be held if any names a group, even a late one: search without parsing.
    return columns + [name for name in _named_anywhere(uri, SPECIAL[2:]) if name not in columns]


def _named_anywhere(uri: str, names: Sequence[str]) -> list[str]:
    quoted = {name: f'"{name}"'.encode() for name in names}
    named: set[str] = set()
    tail = b""
    with contextlib.suppress(DamagedTextError):
        for read in read_text(uri):
            chunk = tail + read
            named |= {name for name, written in quoted.items() if written in chunk}
            if len(named) == len(quoted):
                break
            tail = chunk[-16:]
    return sorted(named)


def json_rows(uri: str) -> Iterator[SourceRow]:
    """A row for each line that is not blank."""
    for line, text in read_lines(uri):
        if text is not None and not text.strip():
            continue
        yield _json_row(line, _parse_object(text))


def _json_row(line: int, value: dict[str, Any] | str) -> SourceRow:
    """value: an object, or the error of this line."""
    if isinstance(value, str):
        return SourceRow(line, error=ErrorCode.CORRUPT, detail=value)
    if SOURCE_REF in value and "uri" not in value:
        value = {"uri" if name == SOURCE_REF else name: cell for name, cell in value.items()}
    return make_row(line, value, flatten({k: v for k, v in value.items() if k not in SPECIAL}))


def _parse_object(text: str | None) -> dict[str, Any] | str:
    if text is None:
        return UNREADABLE
    try:
        # The slower way only where it makes a difference.
        twice = text.count('"uri"') > 1 or text.count(f'"{SOURCE_REF}"') > 1 or "\\u" in text
        value = json.loads(text, object_pairs_hook=_object_with_one_uri) if twice else json.loads(text)
    except _TwoUrisError:
        return "the key `uri` stands twice in one object"
    except (ValueError, RecursionError):
        return "not valid JSON"
    if isinstance(value, str):
        return {"uri": value}
    return value if isinstance(value, dict) else "a JSON value that is not an object"


class _TwoUrisError(ValueError):
    """An object that names two URIs: a reader that keeps the last would lose the first."""


def _object_with_one_uri(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if any(sum(name == key for name, _ in pairs) > 1 for key in ("uri", SOURCE_REF)):
        raise _TwoUrisError
    return dict(pairs)


def read_json_list(uri: str) -> list[Any] | None:
    """The entries of a `.json` file that is one list; None where it is JSON lines under that name.

    Raises UsageError for any other JSON, and for a list that is too large to be parsed whole.
    """
    text = _read_whole(uri)
    if len(text) > MAX_JSON_BYTES:
        if not _is_list(text):
            return None
        limit = f"{MAX_JSON_BYTES // 2**20} MiB"
        raise UsageError(f"{uri}: a JSON list of more than {limit}; write it as JSON lines (.jsonl)")
    try:
        value = json.loads(text, object_pairs_hook=_object_with_one_uri)
    except _TwoUrisError as error:
        if not _is_list(text):
            return None
        raise UsageError(f"{uri}: an entry has the key `uri` twice") from error
    except (ValueError, RecursionError) as error:
        if _is_list(text):
            raise UsageError(f"{uri}: not valid JSON: {error}") from error
        return None
    if isinstance(value, dict) and "uri" in value:
        return [value]
    if not isinstance(value, list):
        raise UsageError(f"{uri}: expected a JSON list of URIs, or of objects with `uri`")
    return value


def _read_whole(uri: str) -> bytes:
    """The content, or of a longer one little more than MAX_JSON_BYTES."""
    pieces: list[bytes] = []
    total = 0
    try:
        for chunk in read_text(uri):
            pieces.append(chunk)
            total += len(chunk)
            if total > MAX_JSON_BYTES:
                break
    except DamagedTextError as error:
        raise UsageError(f"{uri}: {error}") from error
    return b"".join(pieces)


def _is_list(text: bytes) -> bool:
    return text.lstrip()[:1] == b"["


def list_columns(entries: list[Any]) -> list[str]:
    """The columns of a JSON list: URIs, or objects."""
    columns: dict[str, None] = {}
    for entry in entries:
        columns.update(dict.fromkeys(map(clean_text, entry) if isinstance(entry, dict) else ["uri"]))
    return list(columns)


def list_rows(entries: list[Any]) -> Iterator[SourceRow]:
    """A row for each entry of a JSON list; `line` counts entries."""
    for line, entry in enumerate(entries, start=1):
        if isinstance(entry, str):
            yield make_row(line, {"uri": clean_text(entry)}, {})
        else:
            yield _json_row(line, entry if isinstance(entry, dict) else "neither a URI nor an object")


def plain_rows(uri: str) -> Iterator[SourceRow]:
    """A row for each line of a list that is not blank: the line is the URI."""
    for line, text in read_lines(uri):
        if text is None:
            yield SourceRow(line, error=ErrorCode.CORRUPT, detail=UNREADABLE)
        elif text.strip():
            yield make_row(line, {"uri": text.strip()}, {})

"""Rows of a manifest, in one form for every kind of file; an unreadable line is a row with `error`."""

from __future__ import annotations

from collections.abc import Iterator

from moderation.errors import UsageError
from moderation.sources import columnar, table_rows, text_rows
from moderation.sources.column_names import describe_columns
from moderation.sources.items import shorten
from moderation.sources.source_row import SPECIAL, SourceRow
from moderation.sources.unpack import NOT_READ, PACKED, without_packing

__all__ = ["SPECIAL", "SUFFIXES", "SourceRow", "read_columns", "read_rows"]

_CSV = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".manifest")
_JSON = ".json"
_PLAIN = (".txt", ".list", ".lst")
_TEXT = (*_CSV, *_JSON_LINES, _JSON, *_PLAIN)
SUFFIXES = (*_TEXT, *(text + packed for text in _TEXT for packed in PACKED), *columnar.SUFFIXES)
# Lists that can't be read as they are, which is better said than listing one file that is no media.
PACKED_OTHERWISE = tuple(text + packed for text in _TEXT for packed in NOT_READ)


def read_columns(uri: str) -> frozenset[str]:
    """The columns of a manifest; for JSON lines, those of the first row, and special ones that any row names.

    Raises UsageError for an unknown type of file, an unreadable header, or no column `uri`; FileNotFoundError,
    PermissionError, StorageError.
    """
    columns = _columns_of(uri)
    if "uri" not in columns:
        raise UsageError(f"{uri}: the manifest has no column `uri`; it has: {describe_columns(columns)}")
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise UsageError(f"{uri}: the manifest has the column `{shorten(twice[0])}` twice")
    return frozenset(columns)


def read_rows(uri: str) -> Iterator[SourceRow]:
    """The rows of a manifest, streaming, in bounded memory."""
    name = without_packing(uri)
    if name.endswith(tuple(_CSV)):
        yield from text_rows.csv_rows(uri, _CSV[name[-4:]])
    elif name.endswith(_JSON):
        entries = text_rows.read_json_list(uri)
        yield from text_rows.json_rows(uri) if entries is None else text_rows.list_rows(entries)
    elif name.endswith(_JSON_LINES):
        yield from text_rows.json_rows(uri)
    elif name.endswith(_PLAIN):
        yield from text_rows.plain_rows(uri)
    else:
        yield from table_rows.table_rows(uri)


def _columns_of(uri: str) -> list[str]:
    name = without_packing(uri)
    if name.endswith(tuple(_CSV)):
        return text_rows.csv_header(uri, _CSV[name[-4:]])
    if name.endswith(_JSON):
        entries = text_rows.read_json_list(uri)
        return text_rows.json_columns(uri) if entries is None else text_rows.list_columns(entries) or ["uri"]
    if name.endswith(_JSON_LINES):
        return text_rows.json_columns(uri)
    if name.endswith(_PLAIN):
        return ["uri"]
    if name.endswith(columnar.SUFFIXES):
        return table_rows.table_columns(uri)
    raise UsageError(f"{uri}: not a known type of manifest; known: {' '.join((*_TEXT, '.gz', *columnar.SUFFIXES))}")

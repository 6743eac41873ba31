"""The ledger's JSON records, checked before use.

A ledger's folder is shared, so a record may be of a later version, truncated, or foreign. The files that it names are
read and deleted, so a name must match the ledger's own pattern.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moderation.errors import FatalError

MAX_FILE_ROWS = 1 << 31  # of one file; a larger number is false, and memory would be allocated for it
_FILE_NAME = re.compile(r"(snapshots/[0-9]{6,}|entries/[0-9A-Za-z][0-9A-Za-z_.-]{0,99})/[0-9]{5,}\.parquet")
_BATCH_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """One Parquet file, by its name in the ledger."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """Which snapshot is current, and the batches that it holds."""

    generation: int = 0
    snapshot: tuple[LogFile, ...] = ()
    compacted: tuple[str, ...] = ()


def parse_head(data: bytes) -> LogHead:
    """Parse `head.json`. Raises FatalError."""
    where = "head.json"
    record = _parse(data, where)
    generation, compacted = record.get("generation"), record.get("compacted")
    if type(generation) is not int or not 0 <= generation < 10**9:
        raise _unreadable(where, f"generation {generation!r}")
    if not isinstance(compacted, list) or not all(isinstance(n, str) and _BATCH_NAME.fullmatch(n) for n in compacted):
        raise _unreadable(where, "compacted is not a list of names")
    return LogHead(generation=generation, snapshot=_files(record.get("snapshot"), where), compacted=tuple(compacted))


def parse_entry(data: bytes, where: str) -> tuple[LogFile, ...]:
    """Parse `entries/<night>.json`. Raises FatalError."""
    return _files(_parse(data, where).get("files"), where)


def _files(records: object, where: str) -> tuple[LogFile, ...]:
    if not isinstance(records, list):
        raise _unreadable(where, "no list of files")
    return tuple(_file(record, where) for record in records)


def _file(record: object, where: str) -> LogFile:
    fields: Mapping[str, object] = record if isinstance(record, dict) else {}
    name, rows = fields.get("name"), fields.get("rows")
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        raise _unreadable(where, f"{str(name)[:100]!r} is not a file of a ledger")
    if type(rows) is not int or not 0 <= rows < MAX_FILE_ROWS:
        raise _unreadable(where, f"{name} of {str(rows)[:100]} rows")
    return LogFile(name=name, rows=rows)


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unreadable(where, str(error)) from error
    if not isinstance(record, dict):
        raise _unreadable(where, "not a JSON object")
    return record


def _unreadable(where: str, why: str) -> FatalError:
    return FatalError(f"the ledger's {where} is not readable: {why}")

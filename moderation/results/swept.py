"""What a sweep says of itself, and the changed verdicts that it has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import UsageError
from moderation.results.escalations import list_escalations, read_escalations
from moderation.results.sweep_layout import changes_folder, sweep_uri
from moderation.results.tables import decode_table


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRecord:
    """What a sweep says of itself. kind: policy, list, decision. runs: the OUTs that were swept.

    certificates: OUT -> as in the summary of a run. began_at: when it read what people had decided. Both moments are
    None of one from before they were noted.
    """

    sweep_id: str
    kind: str
    runs: tuple[str, ...] = ()
    certificates: Mapping[str, Any] = field(default_factory=dict)
    began_at: datetime | None = None
    ended_at: datetime | None = None


def read_swept_record(home: str) -> SweptRecord | None:
    """The record of the sweep in a folder; None where there is none. Raises UsageError where it has not ended."""
    data = storage.read_optional(sweep_uri(home))
    if data is None:
        return None
    try:
        record: Any = parse_json(data)
        sweep_id, state = str(record["sweep_id"]), str(record["state"])
        kind, certificates = str(record.get("kind", "policy")), dict(record.get("certificates") or {})
        runs = tuple(map(str, record.get("runs") or ()))
        moments = {name: _moment(record.get(name)) for name in ("began_at", "ended_at")}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{sweep_uri(home)}: not readable as that of a sweep") from error
    if state != "done":
        raise UsageError(f"{home}: the sweep there has not ended; the same command of `moderation sweep` goes on")
    return SweptRecord(sweep_id=sweep_id, kind=kind, runs=runs, certificates=certificates, **moments)


def _moment(text: object) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(str(text))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def read_changed_rows(home: str, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """The rows of each part, of the columns that are named. Raises UsageError where one is damaged, StorageError."""
    folder = changes_folder(home)
    for name in sorted(storage.list_names(folder)):
        uri = storage.join(folder, name)
        table = decode_table(storage.read_bytes(uri), "arrow", where=uri)
        missing = [column for column in columns if column not in table.column_names]
        if missing:
            raise UsageError(f"{uri}: has no column {missing[0]}")
        yield table.select(columns).to_pylist()


def read_escalated(record: SweptRecord) -> frozenset[str]:
    """The contents and places of what the swept runs have escalated, by now."""
    tables = [read_escalations(out, name) for out in record.runs for name in list_escalations(out)]
    return frozenset(cell for table in tables for n in ("content_hash", "uri") for cell in table[n].to_pylist() if cell)

"""The file of what decisions have taught: several allow- and deny-lists in one table, each row with its origin.

    value, reason, until   as in any list: see `lists.read`
    action, by             deny or allow; content_hash or pdq
    distance               bits within which a hash counts; empty for contents
    reviewer, decision_id, decided_at, item_id, uri, run   which decision taught it

It is CSV, Parquet or Arrow, by its name. A policy takes each list from it by its own `action` and `by`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from moderation import storage
from moderation.errors import UsageError
from moderation.lists.read import MAX_FILE_BYTES, table_batches
from moderation.policy.entries import ListEntry, ListRule, normalised

SUFFIXES: Final = (".csv", ".parquet", ".arrow")
LEARNED_SCHEMA: Final = pa.schema(
    [
        ("value", pa.string()),
        ("reason", pa.string()),
        ("until", pa.date32()),
        ("action", pa.string()),
        ("by", pa.string()),
        ("distance", pa.int16()),
        ("reviewer", pa.string()),
        ("decision_id", pa.string()),
        ("decided_at", pa.timestamp("us", tz="UTC")),
        ("item_id", pa.string()),
        ("uri", pa.string()),
        ("run", pa.string()),
    ],
    metadata={"moderation.table": "learned", "moderation.schema_version": "1"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedEntry:
    """One entry that a decision has taught. distance: of a hash; None for a content."""

    value: str
    reason: str
    until: date | None
    action: str
    by: str
    distance: int | None
    reviewer: str
    decision_id: str
    decided_at: datetime
    item_id: str
    uri: str
    run: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What it acts on."""
        return self.action, self.by, self.value

    def counts_on(self, day: date) -> bool:
        """Whether it has not ended by then."""
        return self.until is None or day <= self.until


def check_learned_name(uri: str) -> None:
    """Raises UsageError where a file of learned lists cannot have this name."""
    if not uri.lower().endswith(SUFFIXES):
        raise UsageError(f"{uri}: learned lists are a file that ends in {', '.join(SUFFIXES)}")


def write_learned(uri: str, entries: Sequence[LearnedEntry]) -> None:
    """Write the file whole, sorted: the same entries have the same bytes."""
    check_learned_name(uri)
    ordered = sorted(entries, key=lambda entry: (entry.key, entry.decision_id))
    table = pa.Table.from_pylist([asdict(entry) for entry in ordered], schema=LEARNED_SCHEMA)
    sink = io.BytesIO()
    if uri.lower().endswith(".csv"):
        storage.publish(uri, _as_csv(ordered))
        return
    if uri.lower().endswith(".parquet"):
        pq.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_file(sink, LEARNED_SCHEMA) as writer:
            writer.write_table(table)
    storage.publish(uri, sink.getvalue())


def _as_csv(entries: Sequence[LearnedEntry]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, LEARNED_SCHEMA.names, lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        row = asdict(entry)
        row["decided_at"] = entry.decided_at.astimezone(UTC).isoformat()
        writer.writerow({name: "" if value is None else value for name, value in row.items()})
    return text.getvalue().encode("utf-8", "replace")


def read_learned(uri: str) -> list[LearnedEntry] | None:
    """The entries of a file; None where there is no file. Raises UsageError where it is not one of learned lists."""
    check_learned_name(uri)
    try:
        if storage.info(uri).size_bytes > MAX_FILE_BYTES:
            raise UsageError(f"{uri}: over {MAX_FILE_BYTES:,} bytes")
        data = storage.read_bytes(uri)
    except FileNotFoundError:
        return None
    try:
        rows = list(_rows(uri, data))
        return [_entry(row) for row in rows]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UsageError(f"{uri}: not a file of learned lists; `moderation lists learn` writes one") from error


def _rows(uri: str, data: bytes) -> Iterator[dict[str, Any]]:
    if uri.lower().endswith(".csv"):
        yield from csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        return
    for batch in table_batches(uri, data, LEARNED_SCHEMA.names):
        yield from batch.to_pylist()


def _entry(row: dict[str, Any]) -> LearnedEntry:
    until, distance, at = row["until"], row["distance"], row["decided_at"]
    names = ("value", "reason", "action", "by", "reviewer", "decision_id", "item_id", "uri", "run")
    return LearnedEntry(
        **{name: str(row[name] or "") for name in names},
        until=date.fromisoformat(until) if isinstance(until, str) and until else until or None,
        distance=int(distance) if distance not in (None, "") else None,
        decided_at=datetime.fromisoformat(at) if isinstance(at, str) else at,
    )


def read_learned_rules(uri: str, name: str) -> dict[str, ListRule] | None:
    """The lists of a file of learned lists, by name; None where it is no such file."""
    if not uri.lower().endswith(SUFFIXES):
        return None
    try:
        entries = read_learned(uri)
    except UsageError:
        return None
    if not entries:
        return None
    sorts: dict[tuple[str, str, int | None], list[ListEntry]] = {}
    for e in entries:
        sorts.setdefault((e.action, e.by, e.distance), []).append(ListEntry(e.value, e.reason, e.until))
    return {
        f"{name}_{action}" + ("" if distance is None else f"_{distance}"): _rule(uri, action, by, distance, own)
        for (action, by, distance), own in sorted(sorts.items(), key=str)
    }


def _rule(uri: str, action: str, by: str, distance: int | None, entries: Sequence[ListEntry]) -> ListRule:
    given: dict[str, Any] = {"action": action, "by": by, "entries": ()}
    try:
        rule = ListRule.model_validate(given if distance is None else {**given, "distance": distance})
        return rule.model_copy(update={"entries": normalised(entries, rule.by)})
    except ValueError as error:
        raise UsageError(f"{uri}: {error}") from error

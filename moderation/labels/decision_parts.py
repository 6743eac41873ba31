"""Parts of the decisions: rows to the bytes of an Arrow file and back, their names, and what chains them.

A part is named `part-<number, 8 digits>-<16 hex of the sha256 of its rows>.arrow`. Its schema's metadata has the sha256
of the file before it (`moderation.previous`; empty in the first).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc

from moderation.errors import FatalError, UsageError
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.results.tables import reading_table
from moderation.version import SCHEMA_VERSION

DECISION_SCHEMA: Final = pa.schema(
    [
        ("decision_id", pa.string()),
        ("item_id", pa.string()),
        ("uri", pa.string()),
        ("content_hash", pa.string()),
        ("pdq", pa.string()),
        ("group_id", pa.string()),
        ("decision", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("reason", pa.string()),
        ("comment", pa.string()),
        ("reviewer", pa.string()),
        ("expert", pa.bool_()),
        ("source", pa.string()),
        ("decided_at", pa.timestamp("us", "UTC")),
        ("exposure_s", pa.float64()),
        ("shown", pa.map_(pa.string(), pa.string())),
        ("undoes", pa.string()),
        ("claim", pa.string()),
    ]
)
PREVIOUS: Final = b"moderation.previous"
_NAME: Final = re.compile(r"part-([0-9]{8})-([0-9a-f]{16})\.arrow")
_NEEDED: Final = ("decision_id", "item_id", "decision", "reviewer", "decided_at")


class DamagedDecisionsError(FatalError):
    """A part of the decisions is not as it was written, or is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartName:
    """A part by its name. rows_hash: 16 hex of the sha256 of its rows."""

    number: int
    rows_hash: str

    @property
    def file(self) -> str:
        """The file's name."""
        return f"part-{self.number:08d}-{self.rows_hash}.arrow"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPart:
    """A part as read. sha256: of the file. previous: the sha256 that it names; empty in the first part."""

    name: PartName
    sha256: str
    previous: str
    decisions: tuple[Decision, ...]


def parse_part_name(file: str) -> PartName | None:
    """None where the file is not a part."""
    match = _NAME.fullmatch(file)
    return None if match is None else PartName(number=int(match[1]), rows_hash=match[2])


def encode_part(number: int, decisions: Sequence[Decision], previous: str) -> tuple[DecisionPart, bytes]:
    """A part and its bytes. previous: sha256 of the part before, empty for the first."""
    cells = [_cells(decision) for decision in decisions]
    metadata = {
        "moderation.table": "decisions",
        "moderation.schema_version": SCHEMA_VERSION,
        "moderation.number": str(number),
        PREVIOUS.decode(): previous,
    }
    table = pa.Table.from_pylist(cells, schema=DECISION_SCHEMA.with_metadata(metadata))
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    # As they will be read: microseconds, UTC.
    kept = tuple(_decision(row) for row in table.to_pylist())
    name = PartName(number=number, rows_hash=hash_rows(kept))
    part = DecisionPart(name=name, sha256=hashlib.sha256(data).hexdigest(), previous=previous, decisions=kept)
    return part, data


def decode_part(name: PartName, data: bytes, where: str) -> DecisionPart:
    """The inverse of `encode_part`. Raises DamagedDecisionsError naming `where`."""
    try:
        with reading_table(where):
            table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
            table.validate(full=True)
        previous = (table.schema.metadata or {}).get(PREVIOUS, b"").decode()
        decisions = tuple(_decision(row) for row in _known_columns(table).to_pylist())
    except (UsageError, KeyError, TypeError, ValueError, AttributeError, OverflowError, pa.ArrowException) as error:
        raise DamagedDecisionsError(f"{where}: is not readable as decisions") from error
    sha256 = hashlib.sha256(data).hexdigest()
    return DecisionPart(name=name, sha256=sha256, previous=previous, decisions=decisions)


def hash_rows(decisions: Sequence[Decision]) -> str:
    """16 hex of the sha256 of rows, whatever file holds them."""
    digest = hashlib.sha256()
    for decision in decisions:
        cells = {**_cells(decision), "decided_at": _micros(decision.decided_at)}
        digest.update(json.dumps(cells, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()[:16]


def _known_columns(table: pa.Table) -> pa.Table:
    """The columns of the schema that the table has, by its types. Raises KeyError, pa.ArrowException (ValueError)."""
    if table.schema.equals(DECISION_SCHEMA):
        return table
    names = table.column_names
    for name in _NEEDED:
        if name not in names:
            raise KeyError(name)
    fields = [field for field in DECISION_SCHEMA if field.name in names]
    return table.select([field.name for field in fields]).cast(pa.schema(fields))


def _cells(decision: Decision) -> dict[str, Any]:
    cells: dict[str, Any] = {name: getattr(decision, name) for name in DECISION_SCHEMA.names}
    cells["decision"], cells["source"] = str(decision.decision), str(decision.source)
    cells["labels"] = list(decision.labels)
    cells["shown"] = sorted(decision.shown.items())
    return cells


def _decision(cells: Mapping[str, Any]) -> Decision:
    decided_at = cells["decided_at"]
    return Decision(
        decision_id=str(cells["decision_id"]),
        item_id=str(cells["item_id"]),
        decision=Answer(cells["decision"]),
        reviewer=str(cells["reviewer"]),
        decided_at=datetime.fromtimestamp(0, UTC) if decided_at is None else decided_at.astimezone(UTC),
        uri=cells.get("uri") or "",
        content_hash=cells.get("content_hash"),
        pdq=cells.get("pdq"),
        group_id=cells.get("group_id"),
        labels=tuple(cells.get("labels") or ()),
        reason=cells.get("reason") or "",
        comment=cells.get("comment") or "",
        expert=bool(cells.get("expert")),
        source=DecisionSource(cells.get("source") or DecisionSource.QUEUE),
        exposure_s=cells.get("exposure_s"),
        shown=dict(cells.get("shown") or ()),
        undoes=cells.get("undoes"),
        claim=cells.get("claim"),
    )


def _micros(moment: datetime) -> int:
    since = moment.astimezone(UTC) - datetime.fromtimestamp(0, UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds

"""Matches with an illegal list: OUT/escalations/part-<shard>.arrow, one row per item, and what asks before it shows.

The row of the verdicts has `status=escalated`, verdict `block`, and nothing of the picture: no score, no hash, no size
in pixels. Its votes are null, except the match. Hash and list entry stand here alone, for the report that the law asks
of the operator: see docs/illegal.md.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from moderation import storage
from moderation.errors import UsageError
from moderation.results.after_layout import escalations_folder, escalations_part_uri
from moderation.types import Judgement, Status, Verdict

ESCALATED_REASON: Final = "escalated:illegal"
# By no policy: what is on such a list is blocked, and a rejudge does not take it back.
ESCALATED_JUDGEMENT: Final = Judgement(
    verdict=Verdict.BLOCK, reason=ESCALATED_REASON, check=None, score=None, confidence=None
)
ESCALATIONS_SCHEMA: Final = pa.schema(
    [
        ("item_id", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("content_hash", pa.string()),
        ("pdq", pa.string()),
        ("rule", pa.string()),
        ("list_label", pa.string()),
        ("list_entry", pa.string()),
        ("list_hash", pa.string()),
        ("distance", pa.int16()),
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("frames_matched", pa.int32()),
        ("run_id", pa.string()),
        ("found_at", pa.timestamp("us", "UTC")),
    ],
    metadata={"moderation.table": "escalations", "moderation.schema_version": "1"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """A match. rule: the detector. pdq: of the matching frame, as hex; list_hash: of the entry. distance: bits.

    frame, time_s: of the nearest match. frames_matched: of all frames, tiles among them.
    """

    item_id: str
    uri: str
    rule: str
    etag: str | None = None
    content_hash: str | None = None
    pdq: str | None = None
    list_label: str | None = None
    list_entry: str | None = None
    list_hash: str | None = None
    distance: int | None = None
    frame: int | None = None
    time_s: float | None = None
    frames_matched: int = 0


def is_escalated(row: Mapping[str, Any]) -> bool:
    """Whether a row of the verdicts is a match with an illegal list: nobody shows, copies or samples such an item.

    Every reader asks this, or `without_escalated`, that shows or hands on more than counts.
    """
    return row.get("status") == Status.ESCALATED


def without_escalated(verdicts: pa.Table) -> pa.Table:
    """The rows of a verdicts table that are not escalated."""
    if "status" not in verdicts.column_names:
        return verdicts
    return verdicts.filter(pc.fill_null(pc.not_equal(verdicts["status"], str(Status.ESCALATED)), True))


def escalations_part(shard_id: str) -> str:
    """The name of a shard's part."""
    return f"part-{shard_id}.arrow"


def publish_escalations(out: str, shard_id: str, found: Sequence[Escalation], run_id: str) -> None:
    """Write the escalations of a shard; nothing where there are none. Raises FatalError, StorageError."""
    if not found:
        return
    now = datetime.now(UTC)
    rows = [{**asdict(one), "run_id": run_id, "found_at": now} for one in found]
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, ESCALATIONS_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=ESCALATIONS_SCHEMA))
    storage.publish(escalations_part_uri(out, escalations_part(shard_id)), sink.getvalue())


def list_escalations(out: str) -> list[str]:
    """The names of all parts, sorted."""
    names = storage.list_names(escalations_folder(out))
    return sorted(name for name in names if name.startswith("part-") and name.endswith(".arrow"))


def read_escalations(out: str, name: str) -> pa.Table:
    """A part. Raises UsageError where it is damaged, StorageError."""
    from moderation.results.tables import decode_table  # which knows rows with an escalation

    uri = escalations_part_uri(out, name)
    return decode_table(storage.read_bytes(uri), "arrow", where=uri)


def read_escalation(out: str, shard_id: str, item_id: str) -> Escalation | None:
    """The match of one item; None where it is not there, or its part is damaged. Raises StorageError."""
    names = [field.name for field in fields(Escalation)]
    try:
        rows = read_escalations(out, escalations_part(shard_id)).to_pylist()
        return next((Escalation(**{n: row[n] for n in names}) for row in rows if row["item_id"] == item_id), None)
    except (FileNotFoundError, UsageError, KeyError):
        return None


def fingerprint_of(table: pa.Table) -> str:
    """16 hex digits of which items a part names, whenever they were found."""
    keys = zip(table["item_id"].to_pylist(), table["content_hash"].to_pylist(), strict=True)
    return hashlib.sha256(repr(sorted(map(str, keys))).encode()).hexdigest()[:16]

"""The verdicts that a sweep changes: their rows, files, counts and examples; and what earlier sweeps have changed.

TO/changes/part-000000.arrow   rows of `CHANGES_SCHEMA`, a file per portion of parts; its metadata has the counts
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.ipc

from moderation import storage
from moderation.errors import UsageError
from moderation.results.sweep_layout import SWEEP_FILE, changes_folder, sweep_uri
from moderation.results.tables import reading_table

EXAMPLES: Final = 3  # of each rule
MAX_UNREAD: Final = 20  # parts that are named
MAX_RULES: Final = 10_000  # that are counted apart

CHANGES_SCHEMA: Final = pa.schema(
    [
        ("item_id", pa.string()),
        ("uri", pa.string()),
        ("run", pa.string()),  # the OUT that has its row
        ("old_verdict", pa.string()),
        ("new_verdict", pa.string()),
        ("cause", pa.string()),  # policy, list, decision, appeal
        ("cause_entry", pa.string()),  # the new reason; a list's entry; the id of a decision
        ("distance", pa.float32()),  # bits to the entry; of an embedding 1 - cosine; null where there is none
        ("relation", pa.string()),  # rule; listed; self, exact, pdq, video, frame, embedding
        ("old_reason", pa.string()),
        ("new_reason", pa.string()),
        ("origin_item_id", pa.string()),  # the item that was decided
        ("etag", pa.string()),  # of the object that was judged
        ("content_hash", pa.string()),
        ("part", pa.string()),
        ("origin_content_hash", pa.string()),  # of the item that was decided; null in sweeps from before this column
    ],
    metadata={"moderation.table": "changes", "moderation.schema_version": "1"},
)
_COUNTS: Final = b"moderation.counts"
_SWEEP: Final = b"moderation.sweep_id"


class ProposedVerdict(NamedTuple):  # a tuple: there may be millions
    """What a sweep says of a row of a part. row: its number in the part."""

    row: int
    verdict: str
    reason: str
    cause: str
    entry: str
    relation: str
    distance: float | None = None
    origin: str | None = None
    origin_content: str | None = None


class HeldVerdict(NamedTuple):
    """What an earlier sweep has made of an item."""

    verdict: str
    reason: str
    cause: str
    origin: str | None
    origin_content: str | None

    def is_because_of(self, item_id: str, content: str | None) -> bool:
        """Whether an item with this content was the reason; another picture may lie at its place by now."""
        # None: a sweep from before the content was noted.
        return self.origin == item_id and self.origin_content in (None, content)


@dataclass(slots=True, kw_only=True)
class SweepCounts:
    """What became of the items of some parts.

    moved: `run\\told\\tnew` -> items. rules: `old reason\\tnew reason` -> items. examples: the same -> items.
    unread: sentences about the first of `unread_parts` that could not be read. kept: items that a person decided.
    """

    items: int = 0
    skipped: int = 0
    kept: int = 0
    unread_parts: int = 0
    unread_items: int = 0
    moved: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def count(self, rows: pa.Table) -> None:
        """Add changed rows."""
        names = ("run", "old_verdict", "new_verdict", "old_reason", "new_reason")
        for run, old, new, was, now in zip(*(rows[name].to_pylist() for name in names), strict=True):
            self.moved[f"{run}\t{old}\t{new}"] += 1
            rule = f"{was}\t{now}"
            if rule in self.rules or len(self.rules) < MAX_RULES:
                self.rules[rule] += 1
        self._keep_examples(rows)

    def _keep_examples(self, rows: pa.Table) -> None:
        for row in rows.slice(0, 50).to_pylist():
            shown = self.examples.setdefault(f"{row['old_reason']}\t{row['new_reason']}", [])
            if len(shown) < EXAMPLES:
                shown.append({name: row[name] for name in ("uri", "run", "relation", "distance", "cause_entry")})

    def add(self, other: SweepCounts) -> None:
        """Add the counts of other parts, which come later."""
        self.items += other.items
        self.skipped += other.skipped
        self.kept += other.kept
        self.unread_parts += other.unread_parts
        self.unread_items += other.unread_items
        self.moved.update(other.moved)
        self.rules.update(other.rules)
        self.unread += other.unread[: MAX_UNREAD - len(self.unread)]
        for rule, rows in other.examples.items():
            shown = self.examples.setdefault(rule, [])
            shown += rows[: EXAMPLES - len(shown)]

    def as_json(self) -> dict[str, Any]:
        """The counts as plain data."""
        # `asdict` makes a Counter anew from pairs, and counts the pairs.
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "moved": dict(self.moved), "rules": dict(self.rules)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> SweepCounts:
        """The inverse of `as_json`."""
        return SweepCounts(**{**record, "moved": Counter(record["moved"]), "rules": Counter(record["rules"])})


def changes_table(
    run: str, part: str, verdicts: pa.Table, old: Sequence[tuple[str, str]], changes: Sequence[ProposedVerdict]
) -> pa.Table:
    """The rows of `CHANGES_SCHEMA` for some rows of a part. old: verdict and reason before, of each change."""
    own = verdicts.take(pa.array([change.row for change in changes], pa.int64()))
    nulls = pa.chunked_array([pa.nulls(len(changes), pa.string())])
    told = [
        {
            "run": run, "part": part, "old_verdict": verdict, "old_reason": reason, "new_verdict": change.verdict,
            "new_reason": change.reason, "cause": change.cause, "cause_entry": change.entry,
            "relation": change.relation, "distance": change.distance, "origin_item_id": change.origin,
            "origin_content_hash": change.origin_content,
        }
        for (verdict, reason), change in zip(old, changes, strict=True)
    ]  # fmt: skip
    table = pa.Table.from_pylist(told, schema=CHANGES_SCHEMA)
    for name in ("item_id", "uri", "etag", "content_hash"):
        column = own[name] if name in own.column_names else nulls
        table = table.set_column(CHANGES_SCHEMA.get_field_index(name), CHANGES_SCHEMA.field(name), column)
    return table.replace_schema_metadata(CHANGES_SCHEMA.metadata)


def encode_changes(rows: pa.Table, counts: SweepCounts, sweep_id: str) -> bytes:
    """A portion as a file, with its counts."""
    metadata = {**CHANGES_SCHEMA.metadata, _COUNTS: json.dumps(counts.as_json()), _SWEEP: sweep_id}
    schema = CHANGES_SCHEMA.with_metadata(metadata)
    sink = io.BytesIO()
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_table(rows.replace_schema_metadata(metadata))
    return sink.getvalue()


def read_portion(data: bytes, sweep_id: str, where: str) -> SweepCounts | None:
    """The counts of a portion that an earlier call of the same sweep has written; None: it is not one of it."""
    try:
        with reading_table(where):
            metadata = pa.ipc.open_file(pa.py_buffer(data)).schema.metadata or {}
        if metadata.get(_SWEEP, b"").decode(errors="replace") != sweep_id:
            return None
        return SweepCounts.from_json(json.loads(metadata[_COUNTS]))
    except (UsageError, ValueError, KeyError, TypeError):
        return None


def read_changes(to: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The changed verdicts of a sweep, file by file. Raises UsageError where `to` is no finished sweep."""
    record = read_sweep(to)
    if record is None or record.get("state") != "done":
        raise UsageError(f"{to}: {'no sweep there' if record is None else 'the sweep there is not finished'}")
    names = sorted(info.uri for info in _listed(changes_folder(to)))
    for uri in names:
        with reading_table(uri):
            table = pa.ipc.open_file(pa.py_buffer(storage.read_bytes(uri))).read_all()
        for name in CHANGES_SCHEMA.names:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), CHANGES_SCHEMA.field(name).type))
        yield table if columns is None else table.select(list(columns))


def _listed(folder: str) -> Iterable[storage.ObjectInfo]:
    try:
        return [info for info in storage.list_objects(folder) if info.uri.endswith(".arrow")]
    except FileNotFoundError:
        return []


def rule_of(key: str) -> tuple[str, str]:
    """(reason before, reason after) of a key of `SweepCounts.rules`."""
    before, _, after = key.partition("\t")
    return before, after


def read_sweep(to: str) -> dict[str, Any] | None:
    """The record of a sweep; None where there is none. Raises UsageError where it is not readable."""
    data = storage.read_optional(sweep_uri(to))
    try:
        record = None if data is None else json.loads(data)
    except ValueError as error:
        raise UsageError(f"{to}/{SWEEP_FILE}: not readable") from error
    if record is not None and not isinstance(record, dict):
        raise UsageError(f"{to}/{SWEEP_FILE}: not the record of a sweep")
    return record


def read_held(sweeps: Sequence[str]) -> dict[tuple[str, str], HeldVerdict]:
    """(run, item id) -> what the sweeps, the oldest first, have made of it."""
    held: dict[tuple[str, str], HeldVerdict] = {}
    names = ("run", "item_id", "new_verdict", "new_reason", "cause", "origin_item_id", "origin_content_hash")
    for sweep in sweeps:
        for table in read_changes(sweep, names):
            for run, item_id, *rest in zip(*(table[name].to_pylist() for name in names), strict=True):
                held[run, item_id] = HeldVerdict(*rest)
    return held


def ended_at_before(to: str) -> str | None:
    """When this sweep had ended before: a repeated call changes nothing, so that its verdicts hold since then."""
    said = (read_sweep(to) or {}).get("ended_at")
    return None if said is None else str(said)


def began_at_before(to: str) -> str | None:
    """When the first call of this sweep began: it read decisions then, and none of later."""
    said = (read_sweep(to) or {}).get("began_at")
    return None if said is None else str(said)

"""The changed verdicts of a sweep as rows to act on: the objects of older runs, with the verdict that holds now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from moderation import storage
from moderation.actions.model import ActionsFile
from moderation.actions.rows import JudgedRow
from moderation.actions.steps import CertifiedToday, certified_today
from moderation.config.canonical import parse_json
from moderation.errors import UsageError
from moderation.results.escalations import list_escalations, read_escalations
from moderation.results.sweep_layout import changes_folder, sweep_uri
from moderation.results.tables import decode_table
from moderation.sources.packed import split_packed
from moderation.types import MediaObject

_NEEDED: Final = ("item_id", "uri", "run", "new_verdict", "new_reason", "etag", "content_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRecord:
    """What a sweep says of itself. kind: policy, list, decision. runs: the OUTs that were swept.

    certificates: OUT -> as in the summary of a run.
    """

    sweep_id: str
    kind: str
    runs: tuple[str, ...] = ()
    certificates: Mapping[str, Any] = field(default_factory=dict)

    def certified_on(self, today: date) -> CertifiedToday:
        """What holds today; what people or a list have decided rests on no certificate."""
        said = {out: own for out, own in self.certificates.items() if isinstance(own, Mapping)}
        return CertifiedToday(by_out={out: certified_today(own, today).refused for out, own in said.items()})


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
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{sweep_uri(home)}: not readable as that of a sweep") from error
    if state != "done":
        raise UsageError(f"{home}: the sweep there has not ended; the same command of `moderation sweep` goes on")
    return SweptRecord(sweep_id=sweep_id, kind=kind, runs=runs, certificates=certificates)


def check_against_sweep(actions: ActionsFile, record: SweptRecord, where: str) -> None:
    """Raises UsageError where an action is for what no row of a sweep has: it would be without effect, unsaid."""
    lacking = ("severity", "label") if record.kind == "policy" else ("severity", "label", "check")
    for rule in actions.actions:
        for key in lacking:
            if getattr(rule.when, key):
                raise UsageError(
                    f"{where}: {rule.name}: when.{key}: rows of a sweep by {record.kind} have no {key};"
                    " use `verdict` and `reason`"
                )


def read_swept_rows(home: str, swept: SweptRecord) -> Iterator[list[JudgedRow]]:
    """Rows of a sweep, part by part. Their run is the sweep, so that one undo takes all of them back.

    What any of the runs has escalated is escalated, also in the row of a run from before that list was known.
    Raises UsageError where a part is damaged, StorageError.
    """
    folder = changes_folder(home)
    escalated = _read_escalated(swept.runs)
    for name in sorted(storage.list_names(folder)):
        uri = storage.join(folder, name)
        table = decode_table(storage.read_bytes(uri), "arrow", where=uri)
        missing = [column for column in _NEEDED if column not in table.column_names]
        if missing:
            raise UsageError(f"{uri}: has no column {missing[0]}")
        yield [_swept_row(swept.sweep_id, cells, escalated) for cells in table.select(_NEEDED).to_pylist()]


def _read_escalated(runs: Iterable[str]) -> frozenset[str]:
    """The contents and places of what runs have escalated."""
    tables = [read_escalations(out, name) for out in runs for name in list_escalations(out)]
    return frozenset(cell for table in tables for n in ("content_hash", "uri") for cell in table[n].to_pylist() if cell)


def _swept_row(sweep_id: str, cells: Mapping[str, Any], escalated: Collection[str]) -> JudgedRow:
    uri, reason = str(cells["uri"]), str(cells["new_reason"] or "")
    kind, _, rest = reason.partition(":")
    return JudgedRow(
        run_id=sweep_id,
        item_id=str(cells["item_id"]),
        uri=uri,
        verdict=cells["new_verdict"],
        reason=reason,
        check=rest.partition(":")[0] if kind in ("negative", "positive", "context", "null") else None,
        label=None,
        severity=None,
        score=None,
        kind=None,
        content_hash=cells["content_hash"],
        size_bytes=None,
        objects=(MediaObject(uri=uri, name=uri.rpartition("/")[2], etag=cells["etag"]),),
        is_packed=split_packed(uri) is not None,
        # At the place of a match there may be another picture by now, if its content is known.
        is_escalated=(cells["content_hash"] or uri) in escalated,
        out=str(cells["run"]),
    )

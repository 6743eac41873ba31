"""The changed verdicts of a sweep as rows to act on: the objects of older runs, with the verdict that holds now."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import Any, Final

from moderation.actions.model import ActionsFile
from moderation.actions.rows import JudgedRow
from moderation.actions.steps import CertifiedToday, certified_today
from moderation.errors import UsageError
from moderation.results.swept import SweptRecord, read_changed_rows, read_escalated
from moderation.sources.packed import split_packed
from moderation.types import MediaObject

_NEEDED: Final = ("item_id", "uri", "run", "new_verdict", "new_reason", "etag", "content_hash")


def certified_of(swept: SweptRecord, today: date) -> CertifiedToday:
    """What holds today of a sweep; what people or a list have decided rests on no certificate."""
    said = {out: own for out, own in swept.certificates.items() if isinstance(own, Mapping)}
    return CertifiedToday(by_out={out: certified_today(own, today).refused for out, own in said.items()})


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
    escalated = read_escalated(swept)
    for rows in read_changed_rows(home, _NEEDED):
        yield [_swept_row(swept.sweep_id, cells, escalated) for cells in rows]


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

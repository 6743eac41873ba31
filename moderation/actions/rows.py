"""Rows of a run as actions take them, and which action is for which row. Pure but for reading the run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from moderation.actions.model import MAX_TAG_VALUE, ActionRule
from moderation.actions.read import PLACEHOLDERS
from moderation.results.escalations import is_escalated
from moderation.results.export.selection import PartSelection, RowSelection, SelectedRow, read_selected
from moderation.results.reader import StoredRun
from moderation.types import MediaObject, Verdict

# Others are replaced: a reason has none of them, but a label from a list may.
_NOT_IN_TAG: Final = re.compile(r"[^\w +\-=.:/@]")
_OF_EFFECT: Final = ("do", "tags", "to", "url")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRow:
    """A row with the objects that it is of. verdict: as it holds now. is_packed: they lie within another file.

    out: of a row of a sweep: the OUT that has its verdict.
    """

    run_id: str
    item_id: str
    uri: str
    verdict: str | None
    reason: str | None
    check: str | None
    label: str | None
    severity: str | None
    score: float | None
    kind: str | None
    content_hash: str | None
    size_bytes: int | None
    objects: tuple[MediaObject, ...]
    is_packed: bool
    is_escalated: bool = False
    out: str | None = None


def read_judged_rows(run: StoredRun) -> Iterator[list[JudgedRow]]:
    """All rows of a run, shard by shard, with the objects that the plan has for them."""
    for part in read_selected(run, PartSelection(run.out, RowSelection(escalated=True))):
        yield [_judged_row(run.run_id, row) for row in part]


def _judged_row(run_id: str, row: SelectedRow) -> JudgedRow:
    cells = row.cells
    objects = row.item.objects if row.item is not None else (_object_of(cells),)
    return JudgedRow(
        run_id=run_id,
        item_id=row.item_id,
        uri=str(cells["uri"]),
        verdict=cells.get("verdict"),
        reason=cells.get("reason"),
        check=cells.get("check"),
        label=cells.get("label"),
        severity=cells.get("severity"),
        score=cells.get("score"),
        kind=cells.get("kind"),
        content_hash=cells.get("content_hash"),
        size_bytes=cells.get("size_bytes"),
        objects=objects,
        is_escalated=is_escalated(cells),
        is_packed=any(media.offset is not None or media.column is not None for media in objects),
    )


def _object_of(cells: Any) -> MediaObject:  # noqa: ANN401 - cells of a row
    """The object of a row that is in no plan: a verdict that was taken over from an earlier night."""
    uri = str(cells["uri"])
    return MediaObject(uri=uri, name=uri.rpartition("/")[2], etag=cells.get("etag"))


def is_for(rule: ActionRule, row: JudgedRow) -> bool:
    """Whether an action is for a row."""
    when = rule.when
    if row.verdict is None or Verdict(row.verdict) not in when.verdict:
        return False
    if when.reason and not any(fnmatchcase(row.reason or "", pattern) for pattern in when.reason):
        return False
    words = ((when.check, row.check), (when.severity, row.severity), (when.label, row.label))
    return all(not listed or word in listed for listed, word in words)


def action_id(rule: ActionRule) -> str:
    """The name of an action with 8 hex digits of what it does: another destination is another action."""
    effect = {key: getattr(rule, key) for key in _OF_EFFECT}
    text = json.dumps(effect, sort_keys=True, separators=(",", ":"))
    return f"{rule.name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def tags_of(rule: ActionRule, row: JudgedRow) -> dict[str, str]:
    """The tags that an action gives a row's objects."""
    facts = {name: str(getattr(row, name) or "") for name in PLACEHOLDERS}
    return {name: _NOT_IN_TAG.sub("_", value.format_map(facts))[:MAX_TAG_VALUE] for name, value in rule.tags.items()}


def rules_for(rules: Sequence[ActionRule], row: JudgedRow) -> list[ActionRule]:
    """The actions for a row, in the order of the file; none for an escalated one, which nobody here touches."""
    return [] if row.is_escalated else [rule for rule in rules if is_for(rule, row)]

"""Rows of a manifest that can't be read may belong to the album or the keyframes beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moderation.sources.source_row import SourceRow
from moderation.types import ErrorCode

Numbered = tuple[int, SourceRow]  # (index of the manifest, row)


@dataclass(slots=True)
class _Neighbours:
    """Where in the rows we are. last: the row before, of those that can be read. lost: the first since that can't."""

    last: SourceRow | None = None
    lost: Numbered | None = None


def with_lost(rows: Iterable[Numbered]) -> Iterator[Numbered]:
    """The rows, and an error row more for the album or keyframes before and behind each stretch of unreadable rows.

    Manifests mostly name the rows of one item together, and one that was split goes on in the next file. Which item an
    unreadable row belongs to is not known.
    """
    beside = _Neighbours()
    for number, row in rows:
        yield number, row
        if _is_lost(row):
            yield from _taint(beside.last, (number, row) if beside.lost is None else None)
            beside.lost = beside.lost or (number, row)
        else:
            yield from _taint(row, None if _same_item(row, beside.last) else beside.lost)
            beside.last, beside.lost = row, None


def has_parts(row: SourceRow) -> bool:
    """Whether a row is one of an album's, or of an item's keyframes."""
    return row.group is not None or (row.item_id is not None and (row.frame is not None or row.time_s is not None))


def _is_lost(row: SourceRow) -> bool:
    """Whether nothing of a row could be read. A row without a URI could."""
    nothing = not row.uri and row.group is None and row.item_id is None
    return nothing and row.error is not None and row.error is not ErrorCode.NOT_FOUND


def _same_item(row: SourceRow, other: SourceRow | None) -> bool:
    return other is not None and (row.group, row.item_id) == (other.group, other.item_id)


def _taint(beside: SourceRow | None, lost: Numbered | None) -> Iterator[Numbered]:
    """A row of the same item with the fault and the place of the lost one."""
    if beside is not None and lost is not None and has_parts(beside):
        number, row = lost
        detail = f"it can't be read, and may belong to this item: {row.detail}"
        yield number, beside._replace(line=row.line, uri="", error=row.error, detail=detail)

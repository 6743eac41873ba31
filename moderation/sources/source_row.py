"""One row of a manifest: what it names, and its error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from moderation.sources.items import MAX_ATTRIBUTE, attribute_text, bound_attributes, bound_id
from moderation.types import ErrorCode

SPECIAL = ("uri", "item_id", "group", "frame", "time_s")
# Object stores limit keys to 1 KiB, Linux paths to 4 KiB; a signed address may be longer. A cell that was cut before
# exceeds this, because of its mark.
MAX_URI = MAX_ATTRIBUTE

_Fault = tuple[ErrorCode, str]


class SourceRow(NamedTuple):
    """One row of a manifest. `line`: its first line in the file, or the row of the table, from 1."""

    line: int
    uri: str = ""
    item_id: str | None = None
    group: str | None = None
    frame: int | None = None
    time_s: float | None = None
    attributes: Mapping[str, str] = {}
    error: ErrorCode | None = None
    detail: str = ""


def make_row(line: int, cells: Mapping[str, Any], attributes: Mapping[str, str]) -> SourceRow:
    """A row from its special cells (text, or JSON values) and its attributes.

    A missing uri is NOT_FOUND; an invalid uri, frame or time is CORRUPT. Of several faults the last is reported.
    """
    uri, uri_fault = _read_uri(cells.get("uri"))
    frame, frame_fault = _read_frame(cells.get("frame"))
    time_s, time_fault = _read_time(cells.get("time_s"))
    fault = time_fault or frame_fault or uri_fault
    return SourceRow(
        line=line,
        uri=uri,
        item_id=_read_id(cells.get("item_id")),
        group=_read_id(cells.get("group")),
        frame=frame,
        time_s=time_s,
        attributes=bound_attributes(attributes),
        error=fault[0] if fault is not None else None,
        detail=fault[1] if fault is not None else "",
    )


def _read_uri(cell: object) -> tuple[str, _Fault | None]:
    if cell is None or cell == "":
        return "", (ErrorCode.NOT_FOUND, "the row has no uri")
    if not isinstance(cell, str):
        return "", (ErrorCode.CORRUPT, "the uri is not text")
    if len(cell) > MAX_URI:
        return cell[:MAX_URI], (ErrorCode.CORRUPT, f"the uri is longer than {MAX_URI} characters")
    return cell, None


def _read_id(cell: object) -> str | None:
    text = attribute_text(cell)
    return bound_id(text) if text else None


def _read_frame(cell: object) -> tuple[int | None, _Fault | None]:
    number = _number(cell)
    if number is None:
        return None, None
    if not 0 <= number < 2**31 or number != number // 1:
        # 0, not None: the row still belongs to its item, which becomes an error row.
        return 0, (ErrorCode.CORRUPT, "`frame` is not a whole number from 0")
    return int(number), None


def _read_time(cell: object) -> tuple[float | None, _Fault | None]:
    number = _number(cell)
    if number is not None and not 0 <= number < math.inf:
        return 0.0, (ErrorCode.CORRUPT, "`time_s` is not a number of seconds from 0")
    return number, None


def _number(cell: object) -> float | None:
    """A cell as a number; NaN where it is not one, None where it is empty."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return math.nan
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return math.nan

"""Decisions as JSON lines or CSV and back, and a list of items to fill in. Columns are those of the decisions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from moderation.config.canonical import parse_json
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.labels.decision_parts import DECISION_SCHEMA
from moderation.labels.decisions import Decision
from moderation.pages.text import short_line
from moderation.results.export.plain import csv_cell, csv_text
from moderation.review.items import QueueItem

COLUMNS: Final = tuple(DECISION_SCHEMA.names)
Row = tuple[int, Mapping[str, Any] | str]  # line number; cells, or what is wrong with the line


def decision_cells(decision: Decision) -> dict[str, Any]:
    """A decision as plain values; times in ISO 8601, UTC."""
    return {
        **{name: getattr(decision, name) for name in COLUMNS},
        "decision": str(decision.decision),
        "source": str(decision.source),
        "labels": list(decision.labels),
        "shown": dict(decision.shown),
        "decided_at": decision.decided_at.isoformat(),
    }


def item_cells(item: QueueItem) -> dict[str, Any]:
    """An item to decide, as a row with empty answers."""
    known = {
        "item_id": item.item_id,
        "uri": item.uri,
        "content_hash": item.content_hash,
        "pdq": item.pdq,
        "group_id": item.group_id,
    }
    return {**dict.fromkeys(COLUMNS), "labels": [], "shown": {}, **known}


def as_json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """CSV; labels with `|` between them, `shown` as JSON; no cell is a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        flat = {**row, "labels": "|".join(row["labels"]), "shown": json.dumps(row["shown"]) if row["shown"] else ""}
        writer.writerow([csv_cell(flat[name]) for name in COLUMNS])
    return text.getvalue().encode()


def read_json_lines(data: bytes, uri: str) -> Iterator[Row]:
    """Rows with their line numbers."""
    for line, text in enumerate(decode_text(data, uri).split("\n"), start=1):
        if text.strip():
            try:
                value = parse_json(text)
            except ValueError:
                value = None
            yield line, value if isinstance(value, dict) else "not a JSON object"


def read_csv(data: bytes, uri: str) -> Iterator[Row]:
    """Rows with their line numbers. Raises UsageError where a column is missing, naming the nearest."""
    reader = csv.DictReader(io.StringIO(decode_text(data, uri), newline=""))
    try:
        header = [str(name).strip().lower() for name in reader.fieldnames or ()]
        check_columns(header, uri)
        reader.fieldnames = header
        for record in reader:
            line = reader.line_num
            if None in record or None in record.values():
                yield line, f"not {len(header)} cells"
            else:
                yield line, {name: csv_text(value) for name, value in record.items()}
    except csv.Error as error:
        yield reader.line_num, f"not readable as CSV: {short_line(str(error), 80)}"


def check_columns(names: Sequence[str], uri: str) -> None:
    """Raises UsageError where the columns do not say which item, or what was decided."""
    shown = [short_line(name, 40) for name in names[:50]]
    if "decision" not in names:
        raise UsageError(f"{uri}: no column `decision`{did_you_mean('decision', shown, otherwise='its columns are')}")
    if not {"item_id", "uri"} & set(names):
        raise UsageError(f"{uri}: no column `item_id` or `uri`{did_you_mean('item_id', shown, otherwise='it has')}")


def decode_text(data: bytes, uri: str) -> str:
    """UTF-8 text. Raises UsageError."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{uri}: not UTF-8 text") from error

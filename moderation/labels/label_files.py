"""Labels files written, and labels read: from such a file, or from the decisions of an OUT."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from moderation import storage
from moderation.errors import UsageError
from moderation.labels.decided_labels import (
    DecidedLabel,
    decide_labels,
    label_rows,
    label_text,
    latest_labels,
    training_rows,
)
from moderation.labels.decision_chain import read_head
from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.labels.rows import KEYS, LabelRow, read_label_rows
from moderation.results.export.plain import csv_cell
from moderation.results.review_layout import decisions_head_uri

SUFFIXES: Final = (".csv", ".jsonl", ".parquet")


def has_decisions(uri: str) -> bool:
    """Whether this is the OUT of a run in which somebody has decided."""
    try:
        return read_head(uri.rstrip("/")) is not None
    except (NotADirectoryError, OSError):
        return False


def read_labels(uri: str) -> list[LabelRow]:
    """The rows of a labels file, or those that the decisions of an OUT come to.

    Raises UsageError as `read_label_rows`, DamagedDecisionsError.
    """
    if not has_decisions(uri):
        return read_label_rows(uri)
    rows = label_rows(decide_labels(read_decisions(uri.rstrip("/"))))
    if not rows:
        raise UsageError(f"{uri}: its decisions say of no item what it is")
    return rows


def read_training_rows(uri: str) -> list[Mapping[str, str]] | None:
    """One row per decided item of an OUT; None where this is no OUT with decisions."""
    return training_rows(decide_labels(read_decisions(uri.rstrip("/")))) if has_decisions(uri) else None


def hash_labels(uri: str) -> str:
    """sha256 of what labels are read from: a file, or the head of the decisions of an OUT."""
    source = decisions_head_uri(uri.rstrip("/")) if has_decisions(uri) else uri
    return hashlib.sha256(storage.read_bytes(source)).hexdigest()


def merge_decisions(outs: Sequence[str]) -> list[Decision]:
    """The decisions of several OUTs as one list, in the order of their times; each id once.

    Raises DamagedDecisionsError, UsageError where nobody has decided in any of them.
    """
    if len(outs) == 1:
        merged = read_decisions(outs[0])
    else:
        listed = [decision for out in outs for decision in read_decisions(out)]
        by_id = {decision.decision_id: decision for decision in listed}
        # Stable: within an OUT those of one moment stay in order.
        merged = sorted(by_id.values(), key=lambda decision: decision.decided_at)
    if not merged:
        raise UsageError(f"{', '.join(outs)}: no decisions there; `moderation review serve` makes them")
    return merged


def rows_for(labels: Sequence[DecidedLabel], *, train: bool, check: str | None = None) -> list[dict[str, object]]:
    """Rows of a labels file; see `label_rows` and `training_rows`. check: of `train`, 1 or 0 instead of words."""
    if not train:
        return [_cells(row) for row in label_rows(labels)]
    named = {label.item_id: check is not None and _names(label.holds, check) for label in latest_labels(labels)}
    return [
        dict(row) if check is None else {**row, "label": str(int(named[row["item_id"]]))}
        for row in training_rows(labels)
    ]


def conflict_rows(labels: Sequence[DecidedLabel]) -> list[dict[str, object]]:
    """One row per item on which reviewers differ."""
    return [
        {
            "item_id": label.item_id,
            "uri": label.holds.uri,
            "answers": " ".join(f"{answer.reviewer}:{label_text(answer)}" for answer in label.answers),
            "holds": label.label,
            "rule": str(label.rule),
            "audit": label.is_audit,
        }
        for label in labels
    ]


def _names(holds: Decision, check: str) -> bool:
    # As in `labels.meaning`: a block that names no check confirms every one.
    return holds.decision is Answer.BLOCK and (check in holds.labels or not holds.labels)


def _cells(row: LabelRow) -> dict[str, object]:
    keys = {name: row.keys.get(name, "") for name in KEYS if name != "uri"}
    return {**keys, "label": row.label, "reviewer": row.reviewer, "source": row.source, "expert": row.expert}


def check_suffix(uri: str) -> str:
    """The suffix by which rows are written. Raises UsageError."""
    suffix = next((s for s in SUFFIXES if uri.lower().endswith(s)), None)
    if suffix is None:
        raise UsageError(f"{uri}: written are {', '.join(SUFFIXES)}")
    return suffix


def write_rows(uri: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Rows with the same columns as CSV, JSON lines or Parquet, by the suffix. Raises UsageError, FatalError."""
    suffix = check_suffix(uri)
    if suffix == ".jsonl":
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif suffix == ".csv":
        data = _as_csv(rows)
    else:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=_schema_of(rows)), sink)
        data = sink.getvalue()
    storage.publish(uri, data)


def _as_csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if rows:
        writer.writerow(rows[0])
    writer.writerows([csv_cell(value) for value in row.values()] for row in rows)
    return text.getvalue().encode()


def _schema_of(rows: Sequence[Mapping[str, object]]) -> pa.Schema:
    first: Mapping[str, object] = rows[0] if rows else {}
    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return pa.schema([(name, kinds.get(type(value), pa.string())) for name, value in first.items()])

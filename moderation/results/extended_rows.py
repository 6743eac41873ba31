"""What an extension changes in a run's verdicts besides the judgement: items that it could not score, and hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from moderation.policy.matching import HASHES
from moderation.results.receipts import Receipt
from moderation.results.votes import adjacent_runs
from moderation.types import ErrorCode, Role, Status

_RECOUNTED = ("status:", "error:")  # counters that an extension may change


def extend_verdicts(verdicts: pa.Table, items: pa.Table, votes: pa.Table) -> pa.Table:
    """The verdicts of a part with the errors of an extension's items, and with the PDQ hashes of the joined votes.

    items: of the extension's part. A row that says already that its content has changed stays as it is.
    """
    errors = {row["item_id"]: row for row in items.to_pylist() if row["error_code"] is not None}
    if errors:
        rows = verdicts.select(["item_id", "status", "error_code", "error_detail"]).to_pylist()
        cells = [_error_cells(row, errors.get(row["item_id"])) for row in rows]
        for name in ("status", "error_code", "error_detail"):
            verdicts = _set(verdicts, name, [cell[name] for cell in cells])
    if HASHES in votes.column_names and "pdq" in verdicts.column_names:
        hashes = _middle_hashes(votes)
        pairs = zip(verdicts["item_id"].to_pylist(), verdicts["pdq"].to_pylist(), strict=True)
        verdicts = _set(verdicts, "pdq", [hashes.get(item_id, known) for item_id, known in pairs])
    return verdicts


def _error_cells(row: Mapping[str, object], error: Mapping[str, object] | None) -> Mapping[str, object]:
    if error is None or row["error_code"] == ErrorCode.CHANGED:
        return row
    return {
        "status": str(Status.ERROR), "error_code": error["error_code"], "error_detail": error["error_detail"],
    }  # fmt: skip


def _set(table: pa.Table, name: str, cells: list[object]) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.array(cells, table.schema.field(name).type))


def _middle_hashes(votes: pa.Table) -> dict[str, str | None]:
    """The PDQ hash of each item's middle frame, as hex digits, as `pipeline.judging` takes it."""
    hashes: dict[str, str | None] = {}
    ids, own = votes["item_id"].to_pylist(), votes[HASHES].to_pylist()
    roles = votes["role"].to_pylist() if "role" in votes.column_names else [None] * len(ids)
    for run in adjacent_runs(ids):
        frames = [h for h, role in zip(own[run], roles[run], strict=True) if role in (None, Role.FRAME)]
        middle = frames[len(frames) // 2] if frames else None
        hashes[ids[run.start]] = None if middle is None else middle.hex()
    return hashes


def extend_counts(counted: Mapping[str, int], verdicts: pa.Table, receipt: Receipt | None) -> dict[str, int]:
    """A part's counters with the frames that the new detectors scored, and with the errors of its rows."""
    counts: Counter[str] = Counter({name: n for name, n in counted.items() if not name.startswith(_RECOUNTED)})
    for name, n in (receipt.counts if receipt is not None else {}).items():
        if name.startswith("asked:"):
            counts[name] = n
    counts.update(f"status:{status}" for status in verdicts["status"].to_pylist())
    counts.update(f"error:{code}" for code in verdicts["error_code"].to_pylist() if code is not None)
    return dict(counts)

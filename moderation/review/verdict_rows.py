"""The rows of a run's verdicts that can be reviewed, in memory: one table, and the arrays that choosing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderation import storage
from moderation.errors import UsageError
from moderation.hashes.search import I64
from moderation.results.escalations import without_escalated
from moderation.results.layout import duplicates_uri
from moderation.results.reader import READERS, StoredRun
from moderation.results.tables import reading_table
from moderation.review.filters import QueueFilter
from moderation.review.items import QueueItem, item_of
from moderation.review.settings import draw
from moderation.review.shown_item import SEVERAL
from moderation.review.together import number_copies, number_groups, order_rows
from moderation.types import Status, Verdict

MAX_ROWS: Final = 2_000_000
Flags = npt.NDArray[np.bool_]
_TEXTS: Final = (
    "verdict", "check", "kind", "error_code", "severity", "content_hash", "pdq", "group_id",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VerdictRows:
    """N rows of the verdicts without skipped items. table: its columns, one chunk each.

    order: int64 [N], the rows as they are looked at. copies: int64 [N], near-copies have one number.
    """

    table: pa.Table
    order: I64
    copies: I64

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def item_ids(self) -> list[str]:
        """The items' ids."""
        return list(self.table["item_id"].to_pylist())

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Item id -> row."""
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def audit(self) -> Flags:
        """bool [N]: drawn for the audit."""
        return _flags(self.table, "audit")

    @cached_property
    def members(self) -> Mapping[int, Sequence[int]]:
        """Number of copies -> their rows in the order of the queue; only of those that have a copy."""
        numbers, counts = np.unique(self.copies, return_counts=True)
        many = np.isin(self.copies[self.order], numbers[counts > 1])
        found: dict[int, list[int]] = {}
        for row in self.order[many].tolist():
            found.setdefault(int(self.copies[row]), []).append(row)
        return found

    def severe(self, levels: Sequence[str]) -> Flags:
        """bool [N]: of a severity that is one of these."""
        return self._one_of("severity", levels)

    def chosen(self, wanted: QueueFilter) -> Flags:
        """bool [N]: what a filter chooses by what stands in the row."""
        chosen = self._by_verdict(wanted)
        for name, values in (("check", wanted.check), ("kind", wanted.kind)):
            if values:
                chosen &= self._one_of(name, values)
        if wanted.error:
            chosen &= self._valid("error_code") if "any" in wanted.error else self._one_of("error_code", wanted.error)
        if wanted.audit is not None:
            chosen &= self.audit if wanted.audit else ~self.audit
        for name, value in wanted.attributes:
            chosen &= self._has_attribute(name, value)
        return chosen

    def _by_verdict(self, wanted: QueueFilter) -> Flags:
        if wanted.verdict:
            return self._one_of("verdict", wanted.verdict)
        if wanted.appeals or not wanted.undecided:
            return np.ones(len(self), np.bool_)
        return self._one_of("verdict", (Verdict.REVIEW,)) | self.audit

    def items(self, rows: Sequence[int]) -> list[QueueItem]:
        """The items of these rows."""
        cells = self.table.take(pa.array(rows, pa.int64())).to_pylist()
        return [item_of(cell, int(self.copies[row])) for cell, row in zip(cells, rows, strict=True)]

    def keys_of(self, row: int) -> dict[str, Any]:
        """What a decision keeps of an item: uri, content_hash, pdq, group_id."""
        names = [name for name in ("uri", "content_hash", "pdq", "group_id") if name in self.table.column_names]
        return {name: self.table[name][row].as_py() for name in names}

    def content_of(self, row: int) -> str | None:
        """The hash of what was judged; None where it is not known."""
        return self.table["content_hash"][row].as_py() if "content_hash" in self.table.column_names else None

    def _one_of(self, name: str, values: Sequence[str]) -> Flags:
        if name not in self.table.column_names:
            return np.zeros(len(self), np.bool_)
        found = pc.is_in(self.table[name], value_set=pa.array([str(value) for value in values], pa.string()))
        return np.asarray(pc.fill_null(found, False), np.bool_)

    def _valid(self, name: str) -> Flags:
        if name not in self.table.column_names:
            return np.zeros(len(self), np.bool_)
        return np.asarray(pc.is_valid(self.table[name]), np.bool_)

    def _has_attribute(self, name: str, value: str) -> Flags:
        if "attributes" not in self.table.column_names:
            return np.zeros(len(self), np.bool_)
        found = pc.map_lookup(self.table["attributes"], name, "first")
        return np.asarray(pc.fill_null(pc.equal(found, value), False), np.bool_)


def read_verdict_rows(run: StoredRun, salt: str) -> VerdictRows:
    """The rows of a run in the order of review. Raises UsageError where there are more than MAX_ROWS, StorageError."""
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(run.read_verdicts, run.shard_ids))
    total = sum(len(part) for part in parts)
    if total > MAX_ROWS:
        raise UsageError(f"{run.out}: {total:,} items; a review holds at most {MAX_ROWS:,}: review the run by slices")
    table = without_escalated(_as_texts(pa.concat_tables(parts, promote_options="default")))
    table = table.filter(pc.not_equal(table["status"], Status.SKIPPED)).replace_schema_metadata(None).combine_chunks()
    item_ids = table["item_id"].to_pylist()
    copies = number_copies(item_ids, _texts(table, "content_hash"), _hashes(table), _duplicate_groups(run.out, table))
    rank = _numbers(table, "review_rank").copy()
    for row in np.flatnonzero(_flags(table, "audit")).tolist():
        # Its own rank would tell a reviewer what the machine made of it.
        rank[row] = draw(salt, "audit", item_ids[row])
    groups = number_groups(_texts(table, "group_id"))
    return VerdictRows(table=table, order=order_rows(rank, _numbers(table, "score"), copies, groups), copies=copies)


def read_duplicate_groups(out: str) -> dict[str, str] | None:
    """Item id -> group, by OUT/duplicates.parquet; None where `moderation duplicates` has not been run."""
    uri = duplicates_uri(out)
    try:
        with storage.open_input(uri) as file, reading_table(uri):
            table = pq.read_table(file, columns=["item_id", "run_out", "group_id"])
    except FileNotFoundError:
        return None
    own = table.filter(pc.is_null(table["run_out"]))
    return dict(zip(own["item_id"].to_pylist(), own["group_id"].to_pylist(), strict=True))


def _as_texts(table: pa.Table) -> pa.Table:
    # An older version has no such column, or one of nulls.
    for name in _TEXTS:
        if name in table.column_names and table.schema.field(name).type != pa.string():
            table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
    return table


def _texts(table: pa.Table, name: str) -> list[Any]:
    return list(table[name].to_pylist()) if name in table.column_names else [None] * len(table)


def _hashes(table: pa.Table) -> list[Any]:
    # Of several pictures a row has the hash of one: an item that is like in that one may differ in all others.
    pairs = zip(_texts(table, "pdq"), _texts(table, "kind"), strict=True)
    return [None if kind in SEVERAL else pdq for pdq, kind in pairs]


def _duplicate_groups(out: str, table: pa.Table) -> dict[str, str] | None:
    # A clip is a copy of the film that it is from, and shows only a part of it: of several pictures the same bytes are.
    groups = read_duplicate_groups(out)
    rows = zip(table["item_id"].to_pylist(), _texts(table, "kind"), _texts(table, "content_hash"), strict=True)
    several = {item_id: f"content:{content or item_id}" for item_id, kind, content in rows if kind in SEVERAL}
    return None if groups is None else groups | several


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return np.array(pc.fill_null(table[name].cast(pa.float64()), np.nan), np.float64)


def _flags(table: pa.Table, name: str) -> Flags:
    if name not in table.column_names:
        return np.zeros(len(table), np.bool_)
    return np.asarray(pc.fill_null(table[name].cast(pa.bool_()), False), np.bool_)

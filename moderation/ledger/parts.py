"""Where the current rows of a ledger lie: part by part of the runs that judged them; and a search by name.

The rows are held in columns: an item takes about 120 bytes, 190 while they are sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moderation.ledger.rows import U64, newest_by_key, table_keys
from moderation.ledger.store import Log, open_log, read_file

_PLACES = ("item_id", "run_out", "part", "format")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentPart:
    """A part of a run, and those of its items whose row in the ledger is the newest.

    item_ids: large_string, a slice of one array that all parts share: Python's strings would take twice its bytes.
    """

    run_out: str
    part: str
    format: str
    item_ids: pa.LargeStringArray


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentParts:
    """All that a ledger has judged and that is still there. deleted: items that are gone, left out."""

    parts: tuple[CurrentPart, ...]
    deleted: int


def current_parts(ledger: str) -> CurrentParts:
    """The parts with the newest row of each item, by run, then part. Raises FatalError for a damaged ledger."""
    log = open_log(ledger)
    current = _CurrentRows(log)
    tables, deleted = [], 0
    for file in log.newest_first:
        for table in read_file(ledger, file, ("key", "deleted_at", *_PLACES)):
            here = current.of_next(table)
            gone = np.asarray(pc.is_valid(table["deleted_at"]))
            deleted += int((here & gone).sum())
            tables.append(_coded(table.filter(pa.array(here & ~gone))))
    if not any(map(len, tables)):
        return CurrentParts(parts=(), deleted=deleted)
    return CurrentParts(parts=tuple(_by_part(pa.concat_tables(tables).unify_dictionaries())), deleted=deleted)


class _CurrentRows:
    """Which rows are the newest of their key. Only the keys outside the snapshot are held: its own are unique."""

    def __init__(self, log: Log) -> None:
        recent = log.newest_first[: len(log.newest_first) - len(log.snapshot)]
        keys = [table_keys(table) for file in recent for table in read_file(log.ledger, file, ("key",))]
        self._high, self._low = (np.concatenate([np.empty(0, np.uint64), *(k[half] for k in keys)]) for half in (0, 1))
        first = newest_by_key(self._high, self._low)
        self._is_newest = np.zeros(len(self._high), np.bool_)
        self._is_newest[first] = True
        self._high, self._low = self._high[first], self._low[first]  # sorted
        self._place = 0

    def of_next(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """bool [N] of the next rows, in the order of `Log.newest_first`."""
        start, self._place = self._place, self._place + len(table)
        if start < len(self._is_newest):
            return self._is_newest[start : self._place]
        return ~self._is_recent(*table_keys(table))

    def _is_recent(self, high: U64, low: U64) -> npt.NDArray[np.bool_]:
        first, last = (np.searchsorted(self._high, high, side) for side in ("left", "right"))
        known = last > first
        known[known] = self._low[first[known]] == low[known]
        # Keys are hashes: two with the same first half hardly exist.
        for row in np.flatnonzero(last - first > 1).tolist():
            known[row] = low[row] in self._low[first[row] : last[row]]
        return known


def _coded(table: pa.Table) -> pa.Table:
    """The places of rows; all but the ids as dictionaries."""
    columns = {"item_id": table["item_id"].cast(pa.large_string())}
    for name in ("run_out", "part", "format"):
        columns[name] = table[name].cast(pa.string()).dictionary_encode()
    return pa.table(columns)


def _by_part(rows: pa.Table) -> Iterator[CurrentPart]:
    codes = {name: _column(rows, name) for name in ("run_out", "part", "format")}
    runs, parts, formats = (codes[name].dictionary.to_pylist() for name in ("run_out", "part", "format"))
    keys = codes["run_out"].indices.to_numpy().astype(np.int64) << 32
    keys |= codes["part"].indices.to_numpy().astype(np.int64)
    # By names, not by codes: the order does not depend on that of the files.
    rank = np.empty(len(parts), np.int64)
    rank[np.argsort(np.array(parts, object), kind="stable")] = np.arange(len(parts))
    run_rank = np.empty(len(runs), np.int64)
    run_rank[np.argsort(np.array(runs, object), kind="stable")] = np.arange(len(runs))
    order = np.argsort((run_rank[keys >> 32] << 32) | rank[keys & 0xFFFFFFFF], kind="stable")
    keys = keys[order]
    # Stable, so that the items of a part keep the order of the log.
    ids = _one_array(rows["item_id"].take(pa.array(order)))
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, np.int64)
    first = codes["format"].indices.to_numpy()[order]
    for start, stop in zip(starts.tolist(), np.append(starts[1:], len(keys)).tolist(), strict=True):
        yield CurrentPart(
            run_out=runs[keys[start] >> 32],
            part=parts[keys[start] & 0xFFFFFFFF],
            format=formats[first[start]],
            item_ids=ids.slice(start, stop - start),
        )


def _column(rows: pa.Table, name: str) -> pa.DictionaryArray:
    return _one_array(rows[name])


def _one_array(column: pa.ChunkedArray) -> Any:  # noqa: ANN401 - an array of the column's type
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerItem:
    """Where a ledger says that an item was judged."""

    item_id: str
    uri: str
    run_out: str
    part: str
    format: str


def find_in_ledger(ledger: str, wanted: str, *, most: int = 100) -> list[LedgerItem]:
    """The newest rows of the items with this id or this URI, or else whose URI ends so; at most `most`."""
    columns = ("key", "item_id", "uri", "run_out", "part", "format")
    log = open_log(ledger)
    exact: dict[bytes, LedgerItem] = {}
    ending: dict[bytes, LedgerItem] = {}
    for file in log.newest_first:
        for table in read_file(ledger, file, columns):
            same = pc.or_(pc.equal(table["item_id"], wanted), pc.equal(table["uri"], wanted))
            _keep(exact, table.filter(same), most)
            _keep(ending, table.filter(pc.ends_with(table["uri"], "/" + wanted.lstrip("/"))), most)
    return list((exact or ending).values())


def _keep(kept: dict[bytes, LedgerItem], rows: pa.Table, most: int) -> None:
    for row in rows.slice(0, most).to_pylist():
        if len(kept) < most:
            kept.setdefault(row.pop("key"), LedgerItem(**row))

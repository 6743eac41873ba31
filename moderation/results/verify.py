"""Whether OUT holds what its receipts say and its plan asks for: reads every part, compares its sha256 and rows.

Nothing is judged here. A repair deletes damaged shards, the receipt first, then the parts, so that a shard counts as
not judged and the command of the run judges it again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from moderation import storage
from moderation.concurrency import map_ahead
from moderation.errors import UsageError
from moderation.planning.slices import find_slices, slice_home
from moderation.results.decided import describe_damage, describe_drift
from moderation.results.intact import describe_difference_of_part
from moderation.results.layout import (
    EXTENSION_ITEMS,
    RUN_FILE,
    TARS,
    VERDICTS,
    VOTES,
    extension_home,
    list_part_ids,
    part_uri,
    receipt_uri,
    success_uri,
)
from moderation.results.planned import PlannedShards, read_planned
from moderation.results.receipts import COPIES_WORKER, Receipt, committed_ids, read_receipts
from moderation.results.record import extensions_of, format_of, read_record

_READERS: Final = 8
_AHEAD_BYTES: Final = 256 << 20
_TABLES: Final = (VERDICTS, VOTES, TARS, EXTENSION_ITEMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFinding:
    """One thing that is wrong. shard_id: the shard that a repair takes back; None: nothing to take back."""

    sentence: str
    shard_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What lies in OUT, and what is wrong. repaired: shards that were taken back. notes: worth knowing, not wrong."""

    out: str
    shards_planned: int
    shards_committed: int
    parts: int
    findings: tuple[OutputFinding, ...]
    repaired: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        """Whether every planned shard is committed and unchanged."""
        return not self.findings


def verify_output(out: str, *, repair: bool = False) -> Verification:
    """Compare plan, receipts and parts of OUT. repair: take back what is wrong; the caller holds the lease on OUT.

    Raises UsageError when there is no run in OUT, StorageError.
    """
    out = storage.canonical(out).rstrip("/")
    homes = [out, *(slice_home(out, part) for part in find_slices(out))]
    records = {home: record for home in homes if (record := read_record(home)) is not None}
    if not records:
        raise UsageError(f"{out}: no run there; of a nightly job name one night, OUT/<night>")
    formats = _formats(out, records)
    planned = read_planned(homes)
    present = committed_ids(out)
    receipts = {receipt.shard_id: receipt for receipt in read_receipts(out, present)}
    parts = {table: list_part_ids(out, table, formats[table]) for table in _TABLES}
    findings = [
        *map(_finding, planned.problems),
        *_missing_receipts(out, planned, present),
        *_unreadable_receipts(out, present, receipts),
        *_unplanned_receipts(out, planned, receipts),
        *_wrong_parts(out, planned, receipts, formats),
        *_parts_without_receipt(out, planned, present, parts),
    ]
    # Kept apart from the findings above: no shard can be taken back for it, and no verdict is wrong because of it.
    damage = map(_finding, describe_damage(out))
    drift = describe_drift(out, next(iter(records.values())))
    repaired = _repair(out, homes, planned, findings, formats) if repair else ()
    own = Verification(
        out=out,
        shards_planned=len(planned.items),
        shards_committed=len(receipts),
        parts=sum(len(receipt.sha256) for receipt in receipts.values()),
        findings=(*findings, *damage, *_unfinished(out, records.get(out, {}))),
        repaired=repaired,
        notes=() if drift is None else (drift,),
    )
    names = extensions_of(records.get(out), out)
    for name in names:
        # A shard that is judged again may have other frames: the votes that were added to it go with it.
        _take_back(extension_home(out, name), repaired, formats)
    return _with_extensions(own, [verify_output(extension_home(out, name), repair=repair) for name in names])


def _unfinished(out: str, record: Mapping[str, Any]) -> Iterator[OutputFinding]:
    if record.get("extending"):
        yield OutputFinding(
            sentence=f"{out}: new verdicts were being put in place; the command with --extend brings that to its end"
        )


def _with_extensions(own: Verification, extensions: Sequence[Verification]) -> Verification:
    """What is wrong with a run, and with the votes that were added to it."""
    return replace(
        own,
        parts=own.parts + sum(extension.parts for extension in extensions),
        findings=(*own.findings, *(finding for extension in extensions for finding in extension.findings)),
        repaired=(*own.repaired, *(shard_id for extension in extensions for shard_id in extension.repaired)),
    )


def _finding(sentence: str) -> OutputFinding:
    return OutputFinding(sentence=sentence)


def _formats(out: str, records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The format of each table's parts."""
    format_, *others = {format_of(record, f"{home}/{RUN_FILE}") for home, record in records.items()}
    if others:
        raise UsageError(f"{out}: its slices have parts of several formats")
    return {VERDICTS: format_, VOTES: format_, TARS: "tar", EXTENSION_ITEMS: format_}


def _missing_receipts(out: str, planned: PlannedShards, present: set[str]) -> Iterator[OutputFinding]:
    missing = len(planned.items.keys() - present)
    if missing:
        yield OutputFinding(sentence=f"{out}: {missing:,} of {len(planned.items):,} planned shards are not judged")


def _unreadable_receipts(out: str, present: set[str], receipts: Mapping[str, Receipt]) -> Iterator[OutputFinding]:
    for shard_id in sorted(present - receipts.keys()):
        yield OutputFinding(sentence=f"{receipt_uri(out, shard_id)} is not readable as a receipt", shard_id=shard_id)


def _unplanned_receipts(out: str, planned: PlannedShards, receipts: Mapping[str, Receipt]) -> Iterator[OutputFinding]:
    if not planned.complete:
        return  # the listing goes on, or its end is not known
    for shard_id, receipt in receipts.items():
        if shard_id not in planned.items and receipt.worker != COPIES_WORKER:
            sentence = f"{receipt_uri(out, shard_id)} is of a shard that no plan holds; its rows count twice"
            yield OutputFinding(sentence=sentence, shard_id=shard_id)


def _wrong_parts(
    out: str, planned: PlannedShards, receipts: Mapping[str, Receipt], formats: Mapping[str, str]
) -> Iterator[OutputFinding]:
    check = partial(_check_shard, out, planned.items, formats)
    with ThreadPoolExecutor(_READERS, "verify") as pool:
        for findings in map_ahead(
            check,
            receipts.values(),
            pool,
            max_ahead=2 * _READERS,
            budget_bytes=_AHEAD_BYTES,
            expected_bytes=lambda receipt: 4096 * max(1, receipt.rows_in),
            held_bytes=lambda _: 0,
        ):
            yield from findings


def _check_shard(
    out: str, planned: Mapping[str, int], formats: Mapping[str, str], receipt: Receipt
) -> tuple[OutputFinding, ...]:
    shard_id = receipt.shard_id
    items = planned.get(shard_id, receipt.rows_in)
    if items != receipt.rows_in:
        sentence = f"{receipt_uri(out, shard_id)} tells of {receipt.rows_in:,} items, the plan of {items:,}"
        return (OutputFinding(sentence=sentence, shard_id=shard_id),)
    problems = [(table, _check_part(out, receipt, table, formats)) for table in _tables_of(receipt)]
    return tuple(
        OutputFinding(sentence=f"{part_uri(out, table, shard_id, formats[table])} {problem}", shard_id=shard_id)
        for table, problem in problems
        if problem is not None
    )


def _tables_of(receipt: Receipt) -> tuple[str, ...]:
    """The tables that a shard has parts in; verdicts and votes where its receipt names none."""
    return tuple(table for table in _TABLES if table in receipt.sha256) or (VERDICTS, VOTES)


def _check_part(out: str, receipt: Receipt, table: str, formats: Mapping[str, str]) -> str | None:
    """What is wrong with a part, in words."""
    if table not in receipt.sha256:
        return "is not in the receipt of its shard"
    data = storage.read_optional(part_uri(out, table, receipt.shard_id, formats[table]))
    problem = describe_difference_of_part(receipt, table, data)
    if problem is not None or data is None or table == TARS:
        return problem
    told = receipt.rows.get(table)
    try:
        rows = _count_rows(data, formats[table])
    except pa.ArrowException as error:
        return f"is not readable: {' '.join(str(error).split())[:200]}"
    if rows != told or (table == VERDICTS and rows != receipt.rows_in):
        return f"has {rows:,} rows, its receipt tells {told} of {receipt.rows_in:,} items"
    return None


def _count_rows(data: bytes, format_: str) -> int:
    if format_ == "arrow":
        return int(pa.ipc.open_file(pa.py_buffer(data)).read_all().num_rows)
    return int(pq.ParquetFile(io.BytesIO(data)).metadata.num_rows)


def _parts_without_receipt(
    out: str, planned: PlannedShards, present: set[str], parts: Mapping[str, set[str]]
) -> Iterator[OutputFinding]:
    if not planned.complete:
        return
    # The run writes parts of planned shards again; nothing would ever delete those of others.
    stray = set().union(*parts.values()) - present - planned.items.keys()
    for shard_id in sorted(stray):
        sentence = f"{out}: parts of shard {shard_id} have no receipt and no plan; a reader of all parts counts them"
        yield OutputFinding(sentence=sentence, shard_id=shard_id)


def _repair(
    out: str,
    homes: Sequence[str],
    planned: PlannedShards,
    findings: Sequence[OutputFinding],
    formats: Mapping[str, str],
) -> tuple[str, ...]:
    """Take back every shard with a finding, and delete an unreadable plan; returns the shards."""
    if not findings:
        return ()
    for home in homes:
        storage.delete_tree(success_uri(home))
    for uri in planned.unreadable:
        storage.delete_tree(uri)
    shard_ids = sorted({finding.shard_id for finding in findings if finding.shard_id is not None})
    _take_back(out, shard_ids, formats)
    return tuple(shard_ids)


def _take_back(out: str, shard_ids: Sequence[str], formats: Mapping[str, str]) -> None:
    for shard_id in shard_ids:
        # The receipt first: without it the parts do not count.
        storage.delete_tree(receipt_uri(out, shard_id))
        for table in _TABLES:
            storage.delete_tree(part_uri(out, table, shard_id, formats[table]))

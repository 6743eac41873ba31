"""A finished night as rows of the ledger: from the plan (the listed items) and the verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderation.concurrency import map_ahead
from moderation.errors import FatalError
from moderation.ledger.index import Provenance, locate
from moderation.ledger.rows import (
    KEY_BYTES,
    LEDGER_SCHEMA,
    attributes_key,
    content_key,
    item_key,
    item_version,
    measured_ids,
    newest,
    table_keys,
)
from moderation.ledger.store import Log, find_rows
from moderation.results.intact import read_intact
from moderation.results.layout import VERDICTS
from moderation.types import Shard, Status

_READERS = 16
_AHEAD_BYTES = 64 * 1024 * 1024
_JUDGED = ("item_id", "uri", "etag", "size_bytes", "content_hash", "verdict", "status", "error_code")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedNight:
    """What all rows of one night share. out: its output; format: of its parts."""

    out: str
    format: str
    provenance: Provenance
    judged_at: datetime


def judged_rows(shards: Iterable[Shard], night: FinishedNight) -> Iterator[pa.Table]:
    """One table of `LEDGER_SCHEMA` per committed shard. Raises FatalError where a part does not match its shard."""

    def rows(shard: Shard) -> pa.Table:
        table = read_intact(night.out, VERDICTS, shard.shard_id, night.format)
        return _shard_rows(shard, table.select(_JUDGED), night)

    with ThreadPoolExecutor(_READERS, "entry") as pool:
        yield from map_ahead(
            rows,
            shards,
            pool,
            max_ahead=2 * _READERS,
            budget_bytes=_AHEAD_BYTES,
            expected_bytes=lambda shard: 512 * len(shard.items),
            held_bytes=lambda table: int(table.nbytes),
        )


def _shard_rows(shard: Shard, judged: pa.Table, night: FinishedNight) -> pa.Table:
    if judged["item_id"].to_pylist() != [item.item_id for item in shard.items]:
        raise FatalError(f"{night.out}: the part of shard {shard.shard_id} does not hold the shard's items")
    count = len(shard.items)
    hashes = judged["content_hash"].to_pylist()
    # A copy of an escalated item is judged itself: it has to be reported, too.
    escalated = [status == Status.ESCALATED for status in judged["status"].to_pylist()]
    contents = [
        () if taken else measured_ids(item, content_hash)
        for item, content_hash, taken in zip(shard.items, hashes, escalated, strict=True)
    ]
    columns = {
        **{name: judged[name] for name in _JUDGED},
        "key": pa.array([item_key(item) for item in shard.items], pa.binary(KEY_BYTES)),
        "version": pa.array(np.array([item_version(item) for item in shard.items], np.uint64)),
        "attributes_key": _attribute_keys(shard, night.provenance.attributes),
        "content_key": pa.array(np.array([content_key(next(iter(ids), None)) for ids in contents], np.uint64)),
    }
    shared = {
        "source": night.provenance.source,
        "run_out": night.out,
        "part": shard.shard_id,
        "format": night.format,
        "stack_fingerprint": night.provenance.stack_fingerprint,
        "policy_hash": night.provenance.policy_hash,
        "judged_at": night.judged_at,
        "deleted_at": None,
    }
    for name, value in shared.items():
        columns[name] = pa.array([value] * count, LEDGER_SCHEMA.field(name).type)
    return pa.table([columns[name] for name in LEDGER_SCHEMA.names], schema=LEDGER_SCHEMA)


def _attribute_keys(shard: Shard, names: Sequence[str]) -> pa.Array:
    return pa.array(np.array([attributes_key(item, names) for item in shard.items], np.uint64))


def marked_rows(log: Log, marks: pa.Table, at: datetime) -> Iterator[pa.Table]:
    """The rows of items that have gone, with `deleted_at`, and of items that have come back, without it."""
    if not marks.num_rows:
        return
    high, low = table_keys(marks)
    order = np.lexsort((low, high))
    high, low, deleted = high[order], low[order], marks["deleted"].to_numpy()[order]
    done = np.zeros(len(high), dtype=bool)
    for table in find_rows(log, "key", lambda t: locate(high, low, *table_keys(t))[1]):
        # Tables come newest first; within one row group keys are sorted and unique.
        where, _ = locate(high, low, *table_keys(table))
        fresh = ~done[where]
        done[where] = True
        current = newest(table.filter(pa.array(fresh)))
        gone = pa.array(deleted[locate(high, low, *table_keys(current))[0]])
        stamps = pc.if_else(gone, pa.scalar(at, LEDGER_SCHEMA.field("deleted_at").type), None)
        column = LEDGER_SCHEMA.get_field_index("deleted_at")
        yield current.set_column(column, LEDGER_SCHEMA.field(column), stamps)

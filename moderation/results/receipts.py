"""Part, then receipt; and what is still pending.

The content hash of a shard names its parts. The receipt is written last: without it a shard is not done, whatever lies
in verdicts/ or votes/. No locks, no renames; a rerun writes the same bytes. An unreadable receipt counts as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from moderation import storage
from moderation.concurrency import map_ahead
from moderation.config.canonical import parse_json
from moderation.errors import ShardError
from moderation.results.layout import (
    VERDICTS,
    list_part_ids_of_any_format,
    part_uri,
    receipt_uri,
    receipts_folder,
)
from moderation.types import Shard

# Receipts have a few hundred bytes each: latency, not bandwidth, limits reading them back.
_READERS = 32
_BATCH = 32  # receipts that a thread reads in one go
# `worker` in receipts of shards whose rows took over the verdict of the same content; no plan has these shards.
COPIES_WORKER: Final = "same_content"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The committed record that a shard is done.

    counts: rows by `verdict:pass`, `status:error`, `kind:image`, `error:corrupt`, `check:explicit:block`.
    seconds: busy time by step (fetch and decode summed over threads). waits: idle time, by who waits for what
    (`device:starved`). slowest: the items that took longest to fetch and decode, with their seconds. bytes_read:
    encoded bytes.
    committed_at: Unix seconds by the worker's clock, 0 in receipts from before this field; not compared, so that
    receipts of the same rows are equal.
    made_of: of a rejudge, the sha256 of the parts that were judged again, by table; empty in older ones.
    """

    shard_id: str
    rows_in: int
    rows: Mapping[str, int]  # verdicts, votes
    sha256: Mapping[str, str]
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    waits: Mapping[str, float] = field(default_factory=dict)
    slowest: Mapping[str, float] = field(default_factory=dict, compare=False)
    bytes_read: int = 0
    peak_memory_bytes: int = 0
    worker: str = ""
    committed_at: float = field(default=0.0, compare=False)
    made_of: Mapping[str, str] = field(default_factory=dict, compare=False)


_FIELDS: Final = tuple(f.name for f in fields(Receipt))


def commit_shard(
    out: str,
    shard: Shard,
    *,
    parts: Mapping[str, bytes],
    rows: Mapping[str, int],
    format_: str,
    facts: Mapping[str, Any],
    counted: str = VERDICTS,
) -> Receipt:
    """Publish the parts (`votes`, `verdicts`), then the receipt. counted: the table with one row per item.

    Raises ShardError when rows in != rows out, FatalError when the output is not writable, StorageError.
    """
    return commit_parts(
        out,
        shard.shard_id,
        items=len(shard.items),
        parts=parts,
        rows=rows,
        format_=format_,
        facts=facts,
        counted=counted,
    )


def commit_parts(
    out: str,
    shard_id: str,
    *,
    items: int,
    parts: Mapping[str, bytes],
    rows: Mapping[str, int],
    format_: str,
    facts: Mapping[str, Any],
    counted: str = VERDICTS,
) -> Receipt:
    """Like `commit_shard`, for a shard of which only the id and the number of items are known."""
    if rows[counted] != items:
        raise ShardError(f"shard {shard_id}: {items} items in, {rows[counted]} rows out")
    receipt = Receipt(
        shard_id=shard_id,
        rows_in=items,
        rows=dict(rows),
        sha256={table: hashlib.sha256(data).hexdigest() for table, data in parts.items()},
        committed_at=round(time.time(), 3),
        **facts,
    )
    for table, data in parts.items():
        storage.publish(part_uri(out, table, shard_id, format_), data)
    text = json.dumps(asdict(receipt), sort_keys=True, indent=1)
    storage.publish(receipt_uri(out, shard_id), text.encode())
    return receipt


def committed_ids(out: str) -> set[str]:
    """Ids of the shards that have a receipt; one listing, nothing read."""
    # Names alone: with what a listing tells of each object, those of a million receipts would take 500 MB.
    names = storage.list_names(receipts_folder(out))
    return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}


def readable_ids(out: str) -> set[str]:
    """Ids of the shards with a readable receipt, which a run may leave as they are. All receipts are read."""
    return {receipt.shard_id for receipt in read_receipts(out, committed_ids(out))}


def intact_receipts(out: str, receipts: Iterable[Receipt], planned: Mapping[str, int] | None) -> Iterator[Receipt]:
    """Those whose parts are there and that tell of as many items as the plan; the others are logged.

    planned: items by shard id, None where the plan is not complete. One listing a table; no part is read (`verify`
    compares their sha256).
    """
    present: dict[str, frozenset[str]] = {}
    for receipt in receipts:
        for table in receipt.sha256.keys() - present:
            present[table] = frozenset(list_part_ids_of_any_format(out, table))
        lost = [table for table in receipt.sha256 if receipt.shard_id not in present[table]]
        items = (planned or {}).get(receipt.shard_id, receipt.rows_in)
        if lost:
            _LOG.warning("%s: shard %s has no part in %s, so it counts as not judged", out, receipt.shard_id, lost[0])
        elif items != receipt.rows_in:
            detail = "its receipt tells of %d items, the plan of %d, so it counts as not judged"
            _LOG.warning("%s: shard %s: " + detail, out, receipt.shard_id, receipt.rows_in, items)
        else:
            yield receipt


def read_receipts(out: str, ids: Iterable[str]) -> Iterator[Receipt]:
    """The receipts of these shards, in order of their ids; an unreadable one is left out, and logged."""
    ordered = sorted(ids)
    size = max(1, min(_BATCH, len(ordered) // (4 * _READERS)))
    batches = (ordered[start : start + size] for start in range(0, len(ordered), size))

    def read(batch: list[str]) -> list[Receipt | None]:
        return [read_receipt(out, shard_id) for shard_id in batch]

    with ThreadPoolExecutor(_READERS) as pool:
        # A few thousand receipts lie ready at most: of a million, 4 KB each as objects, they would take 4 GB.
        ahead = map_ahead(
            read, batches, pool, max_ahead=2 * _READERS, budget_bytes=1, expected_bytes=_no_bytes, held_bytes=_no_bytes
        )
        with closing(ahead):
            for batch in ahead:
                yield from (receipt for receipt in batch if receipt is not None)


def _no_bytes(_: object) -> int:
    return 0


def read_receipt(out: str, shard_id: str) -> Receipt | None:
    """The receipt of a shard; None where there is none, or it is unreadable."""
    uri = receipt_uri(out, shard_id)
    data = storage.read_optional(uri)
    receipt = None if data is None else parse_receipt(shard_id, data)
    if receipt is None and data is not None:
        _LOG.warning("%s: not readable as the receipt of this shard, so the shard counts as not judged", uri)
    return receipt


def parse_receipt(shard_id: str, data: bytes) -> Receipt | None:
    """A receipt from its bytes; None where they are not one of this shard. Fields of later versions are left out."""
    try:
        record = parse_json(data)
        if record["shard_id"] != shard_id:
            return None
        # The caller's own text: a million equal ones would be held twice.
        record["shard_id"] = shard_id
        receipt = Receipt(**{name: record[name] for name in _FIELDS if name in record})
    except (ValueError, TypeError, KeyError):
        return None
    return receipt if _is_sound(receipt) else None


def _is_sound(receipt: Receipt) -> bool:
    """Whether every field has its type, so that no reader fails on one later."""
    tables = (receipt.rows, receipt.sha256, receipt.counts, receipt.seconds, receipt.waits, receipt.slowest,
              receipt.made_of)  # fmt: skip
    if not all(isinstance(table, dict) for table in tables):
        return False
    whole = [receipt.rows_in, receipt.bytes_read, receipt.peak_memory_bytes]
    whole += [*receipt.rows.values(), *receipt.counts.values()]
    numbers = (receipt.committed_at, *receipt.seconds.values(), *receipt.waits.values(), *receipt.slowest.values())
    texts = (receipt.worker, *receipt.sha256.values(), *receipt.made_of.values())
    return (
        all(type(value) is int for value in whole)
        and all(type(value) in (int, float) for value in numbers)
        and all(isinstance(text, str) for text in texts)
    )

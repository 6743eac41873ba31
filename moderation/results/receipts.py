"""Part, then receipt; and what is still pending.

The content hash of a shard names its parts. The receipt is written last: without it a shard is not done, whatever lies
in verdicts/ or votes/. No locks, no renames; a rerun writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from moderation import storage
from moderation.errors import ShardError
from moderation.results.layout import VERDICTS, part_uri, receipt_uri, receipts_folder
from moderation.types import Shard

# Receipts are a few hundred bytes each: latency, not bandwidth, bounds reading them back.
_READERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The committed record that a shard is done.

    counts: rows by `verdict:pass`, `status:error`, `kind:image`, `error:corrupt`, `check:explicit:block`.
    seconds: busy time by step (fetch and decode summed over threads). waits: idle time, by who waits for what
    (`device:starved`). bytes_read: encoded bytes.
    committed_at: Unix seconds by the worker's clock, 0 in receipts of before it was kept; when, not what, so that
    receipts of the same rows are equal.
    """

    shard_id: str
    rows_in: int
    rows: Mapping[str, int]  # verdicts, votes
    sha256: Mapping[str, str]
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    waits: Mapping[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    peak_memory_bytes: int = 0
    worker: str = ""
    committed_at: float = field(default=0.0, compare=False)


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
    if rows[counted] != len(shard.items):
        raise ShardError(f"shard {shard.shard_id}: {len(shard.items)} items in, {rows[counted]} rows out")
    receipt = Receipt(
        shard_id=shard.shard_id,
        rows_in=len(shard.items),
        rows=dict(rows),
        sha256={table: hashlib.sha256(data).hexdigest() for table, data in parts.items()},
        committed_at=round(time.time(), 3),
        **facts,
    )
    for table, data in parts.items():
        storage.publish(part_uri(out, table, shard.shard_id, format_), data)
    text = json.dumps(asdict(receipt), sort_keys=True, indent=1)
    storage.publish(receipt_uri(out, shard.shard_id), text.encode())
    return receipt


def committed_ids(out: str) -> set[str]:
    """Ids of the shards that have a receipt; one listing, nothing read."""
    try:
        listed = list(storage.list_objects(receipts_folder(out)))
    except FileNotFoundError:
        return set()
    names = (info.uri.rsplit("/", 1)[-1] for info in listed)
    return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}


def read_receipts(out: str, ids: set[str]) -> Iterator[Receipt]:
    """The receipts of these shards, in any order."""

    def read(shard_id: str) -> Receipt:
        return Receipt(**json.loads(storage.read_bytes(receipt_uri(out, shard_id))))

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(read, sorted(ids))

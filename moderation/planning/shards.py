"""Items -> content-addressed shards, and shards to a table and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from moderation.config.model import ShardConfig
from moderation.planning.schema import OBJECT_TYPE, PLAN_SCHEMA
from moderation.types import ErrorCode, Item, Kind, MediaObject, Shard

_OBJECT_FIELDS = tuple(field.name for field in OBJECT_TYPE)
# Rows of the plan that are Python objects at the same time.
_BATCH_ROWS = 4096


def make_shards(items: Iterable[Item], config: ShardConfig) -> Iterator[Shard]:
    """Shards of items in their order, each as soon as it is full: at most `max_items` and at most `max_bytes`.

    An item larger than `max_bytes` gets a shard of its own; unknown sizes count as 0. The same items give the same
    shards.
    """
    sharder = Sharder(config)
    for item in items:
        full = sharder.add(item)
        if full is not None:
            yield full
    last = sharder.close()
    if last is not None:
        yield last


class Sharder:
    """Cuts shards from items that are added one at a time; `make_shards` takes an iterator instead."""

    def __init__(self, config: ShardConfig) -> None:
        self._config = config
        self._items: list[Item] = []
        self._bytes = 0

    @property
    def held(self) -> int:
        """Number of items in the unfinished shard."""
        return len(self._items)

    def add(self, item: Item) -> Shard | None:
        """Add an item; returns the finished shard that it no longer fitted into, if any."""
        size = item.size_bytes
        full = None
        if self._items and (len(self._items) == self._config.max_items or self._bytes + size > self._config.max_bytes):
            full = self.close()
        self._items.append(item)
        self._bytes += size
        return full

    def close(self) -> Shard | None:
        """Finish the current shard and return it; None where it has no items."""
        items, self._items, self._bytes = self._items, [], 0
        return make_shard(items) if items else None


def make_shard(items: Iterable[Item]) -> Shard:
    """A shard of these items. Its id is a hash of all that is known of them: 32 hex digits of a sha256.

    So a changed etag, size or attribute (verdicts carry attributes) makes another shard.
    """
    items = tuple(items)
    digest = hashlib.sha256()
    for item in items:
        # JSON arrays are self-delimiting: different lists of items never have the same bytes.
        digest.update(_canonical(item))
    return Shard(shard_id=digest.hexdigest()[:32], items=items)


def split(shard: Shard) -> tuple[Shard, Shard]:
    """The two halves of a shard, to find the item that kills its worker. Raises ValueError for a single item."""
    if len(shard.items) < 2:
        raise ValueError(f"shard {shard.shard_id}: {len(shard.items)} items can't be split")
    middle = len(shard.items) // 2
    return make_shard(shard.items[:middle]), make_shard(shard.items[middle:])


def shards_to_table(shards: Iterable[Shard]) -> pa.Table:
    """The plan: one row per item, in order, a shard's rows adjacent; schema `PLAN_SCHEMA`."""
    return pa.Table.from_batches(plan_batches(shards), schema=PLAN_SCHEMA)


def plan_batches(shards: Iterable[Shard]) -> Iterator[pa.RecordBatch]:
    """Rows of the plan in batches of a few thousand at most, to write a plan while the source is listed."""
    rows: list[dict[str, Any]] = []
    for shard in shards:
        for item in shard.items:
            rows.append(_plan_row(shard.shard_id, item))
            if len(rows) == _BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema=PLAN_SCHEMA)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=PLAN_SCHEMA)


def shards_from_table(table: pa.Table) -> Iterator[Shard]:
    """Read the shards of a plan; ids are read, not computed again. Raises KeyError for a missing column."""
    shard_id: str | None = None
    items: list[Item] = []
    for batch in table.select(PLAN_SCHEMA.names).to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            if row["shard_id"] != shard_id and shard_id is not None:
                yield Shard(shard_id=shard_id, items=tuple(items))
                items = []
            shard_id = row["shard_id"]
            items.append(_item(row))
    if shard_id is not None:
        yield Shard(shard_id=shard_id, items=tuple(items))


def _canonical(item: Item) -> bytes:
    fields = [
        item.item_id,
        item.uri,
        item.kind,
        item.error,
        item.error_detail,
        sorted(item.attributes.items()),
        [_object_values(o) for o in item.objects],
    ]
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


def _object_values(media: MediaObject) -> list[str | int | float | None]:
    return [
        media.uri,
        media.name,
        media.size_bytes,
        media.etag,
        media.offset,
        media.row_group,
        media.row,
        media.column,
        media.frame,
        media.time_s,
    ]


def _plan_row(shard_id: str, item: Item) -> dict[str, Any]:
    return {
        "shard_id": shard_id,
        "item_id": item.item_id,
        "uri": item.uri,
        "kind": item.kind,
        "attributes": sorted(item.attributes.items()),
        "error_code": item.error,
        "error_detail": item.error_detail,
        "objects": [dict(zip(_OBJECT_FIELDS, _object_values(o), strict=True)) for o in item.objects],
    }


def _item(row: dict[str, Any]) -> Item:
    return Item(
        item_id=row["item_id"],
        uri=row["uri"],
        objects=tuple(MediaObject(**o) for o in row["objects"]),
        kind=None if row["kind"] is None else Kind(row["kind"]),
        attributes=dict(row["attributes"]),
        error=None if row["error_code"] is None else ErrorCode(row["error_code"]),
        error_detail=row["error_detail"],
    )

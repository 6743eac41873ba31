"""Where the bytes of a run's items lie: the items as the run planned them, by their ids."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderation.errors import ItemError, UsageError
from moderation.planning.schema import PLAN_SCHEMA
from moderation.planning.shards import shards_from_table
from moderation.planning.slices import find_slices, slice_home
from moderation.results.planned import iterate_plan_files
from moderation.results.reader import StoredRun
from moderation.review.items import QueueItem
from moderation.sources.allow import resolver
from moderation.types import ErrorCode, Item, MediaObject


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedItem:
    """An item of the queue, and the objects that it was planned with."""

    judged: QueueItem
    item: Item


class PlannedItems:
    """The plan of a run as a table, read once when it is first needed. Safe to use from several threads."""

    def __init__(self, run: StoredRun) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._table: pa.Table | None = None
        source = str(run.record.get("source") or "")
        # A verdict that was taken over is in no plan: what its row names must lie where the run's source may lead.
        self._resolve = resolver(f"{source.rstrip('/')}/x" if source else run.out, run.load_config().source.allow)

    def find(self, judged: QueueItem) -> PlannedItem:
        """The item with its objects; `error` says why it may not be read. Raises StorageError, PlanDamagedError."""
        plan = self.read()
        rows = plan.filter(pc.equal(plan["item_id"], judged.item_id)).slice(0, 1)
        planned = [item for shard in shards_from_table(rows) for item in shard.items]
        return PlannedItem(judged=judged, item=planned[0] if planned else self._named(judged))

    def read(self) -> pa.Table:
        """The plan, of schema PLAN_SCHEMA; an item may stand in it twice. Raises StorageError, UsageError."""
        with self._lock:
            if self._table is None:
                tables = [_decode(data) for data in self._files()]
                self._table = pa.concat_tables(tables) if tables else PLAN_SCHEMA.empty_table()
            return self._table

    def _files(self) -> Iterator[bytes]:
        # A rejudge has no plan of its own.
        for out in dict.fromkeys((self._run.out, self._run.votes_out)):
            yield from iterate_plan_files([out, *(slice_home(out, part) for part in find_slices(out))])

    def _named(self, judged: QueueItem) -> Item:
        """The object that a row names."""
        try:
            uri = self._resolve(judged.uri)
        except (ItemError, UsageError, OSError, ValueError) as error:
            code = error.code if isinstance(error, ItemError) else ErrorCode.NOT_FOUND
            detail = error.detail if isinstance(error, ItemError) else str(error)
            return Item(item_id=judged.item_id, uri=judged.uri, objects=(), error=code, error_detail=detail)
        named = MediaObject(uri=uri, name=uri.rpartition("/")[2], etag=judged.etag)
        return Item(item_id=judged.item_id, uri=judged.uri, objects=(named,))


def _decode(data: bytes) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(data), columns=PLAN_SCHEMA.names)
    except (pa.ArrowException, OSError) as error:
        raise UsageError("the plan of this run is not readable: no pictures can be shown") from error

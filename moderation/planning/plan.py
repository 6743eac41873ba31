"""The plan of a run: its shards, written while the source is listed, read again on resume.

The plan lies in `OUT/plan/chunk-*.parquet` until listing ends, then in `OUT/plan.parquet`. A shard is handed out only
after the chunk that holds it is published. So a run that dies while listing never cuts the source into other shards
than those it may have committed: the next call reuses the chunks and lists on for new items.
"""

from __future__ import annotations

import io
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from moderation import storage
from moderation.config.model import Config
from moderation.errors import ModerationError, UsageError, one_line
from moderation.planning.names import chunk_uri, plan_folder, plan_uri
from moderation.planning.ordering import cut_shards
from moderation.planning.schema import PLAN_SCHEMA
from moderation.planning.shards import plan_batches, shards_from_table
from moderation.planning.slices import Slice, take_slice
from moderation.planning.spool import PlanSpool
from moderation.sources import open_source
from moderation.types import Item, Shard

# The first shard is handed out at once; later chunks hold up to this many shards, or those of this time.
_CHUNK_SHARDS = 64
_CHUNK_WAIT_S = 5.0


class PlanDamagedError(UsageError):
    """A plan, or a chunk of one, cannot be read as such."""


def plan_shards(
    source: str,
    out: str,
    config: Config,
    *,
    limit: int | None = None,
    open_items: Callable[[], Iterator[Item]] | None = None,
    slice_: Slice | None = None,
) -> Iterator[Shard]:
    """All shards of a run, in the order of the source; shards planned by an earlier call are reused.

    out: the folder of the plan: OUT, or a slice's own folder in it.
    slice_: plan only the shards of this slice. After an interruption its listing starts over: the chunks have gaps
    where other slices' shards are, and cutting the source around them would change the bounds of shards.

    open_items: yields the items instead of the whole source (the nightly job's difference); called only when listing is
    needed, exhausted before the plan counts as finished.
    Raises UsageError (source missing, empty, unreadable) at once.
    """
    with suppress(FileNotFoundError):
        return _read_shards(storage.open_input(plan_uri(out)), plan_uri(out))
    chunks = _read_chunks(out) if slice_ is None else PlanSpool()
    items = _limited(open_items() if open_items is not None else open_source(source, config.source), limit)
    if slice_ is not None:
        storage.delete_tree(plan_folder(out))
        return _write_plan(take_slice(cut_shards(items, config.shards), slice_, out), out, PlanSpool())
    if not len(chunks):
        return _write_plan(cut_shards(items, config.shards), out, chunks)
    return _resume_listing(items, out, config, chunks)


def list_shards(
    source: str, config: Config, *, limit: int | None = None, slice_: Slice | None = None
) -> Iterator[Shard]:
    """The shards of a source, or of a slice of it, without writing a plan (a dry run)."""
    shards = cut_shards(_limited(open_source(source, config.source), limit), config.shards)
    return shards if slice_ is None else (shard for shard in shards if slice_.holds(shard.shard_id))


def _resume_listing(items: Iterator[Item], out: str, config: Config, chunks: PlanSpool) -> Iterator[Shard]:
    planned_ids: set[str] = set()
    for index, data in enumerate(chunks.pieces()):
        for shard in decode_shards(data, where=chunk_uri(out, index)):
            planned_ids.update(item.item_id for item in shard.items)
            yield shard
    fresh = (item for item in items if item.item_id not in planned_ids)
    yield from _write_plan(cut_shards(fresh, config.shards), out, chunks)


def _write_plan(shards: Iterable[Shard], out: str, chunks: PlanSpool) -> Iterator[Shard]:
    held: list[Shard] = []
    chunk_shards = 1
    began_s = time.monotonic()
    for shard in shards:
        held.append(shard)
        if len(held) >= chunk_shards or time.monotonic() - began_s > _CHUNK_WAIT_S:
            chunks.add(_publish_chunk(held, out, len(chunks)))
            yield from held
            held, chunk_shards, began_s = [], min(chunk_shards * 2, _CHUNK_SHARDS), time.monotonic()
    if held:
        chunks.add(_publish_chunk(held, out, len(chunks)))
    # The finished plan first: nobody who reads the plan may ever see fewer shards than were handed out.
    with storage.open_output(plan_uri(out)) as file:
        chunks.merge_into(file)
    storage.delete_tree(plan_folder(out))
    yield from held


def encode_shards(shards: Iterable[Shard]) -> bytes:
    """Encode shards as a Parquet file with `PLAN_SCHEMA`."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, PLAN_SCHEMA, compression="zstd") as writer:
        for batch in plan_batches(shards):
            writer.write_batch(batch)
    return sink.getvalue()


def read_shard_sizes(uri: str) -> dict[str, int] | None:
    """Items by shard id of a plan or a chunk of one, in order; None where there is none. Reads one column.

    Raises PlanDamagedError where it is not readable as one, PermissionError, StorageError.
    """
    try:
        with storage.open_input(uri) as file, _reading_plan(uri):
            sizes: Counter[str] = Counter()
            for batch in pq.ParquetFile(file).iter_batches(columns=["shard_id"]):
                sizes.update(batch.column("shard_id").to_pylist())
            if not all(isinstance(shard_id, str) for shard_id in sizes):
                raise KeyError("shard_id")
            return dict(sizes)
    except FileNotFoundError:
        return None


@contextmanager
def _reading_plan(uri: str) -> Iterator[None]:
    """What Arrow raises of bytes that are no plan, or a harmed one, as PlanDamagedError."""
    try:
        yield
    except PermissionError:
        raise
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError, TypeError) as error:
        # A read that storage gave up on is no damage.
        if isinstance(error, ModerationError):
            raise
        raise PlanDamagedError(
            f"{uri} is not readable as a plan ({one_line(error, 200)}); `moderation verify OUT --repair`, then the"
            " command of the run, makes it anew"
        ) from error


def _publish_chunk(shards: list[Shard], out: str, index: int) -> bytes:
    data = encode_shards(shards)
    storage.publish(chunk_uri(out, index), data)
    return data


def _read_chunks(out: str) -> PlanSpool:
    chunks = PlanSpool()
    for index in itertools.count():
        data = storage.read_optional(chunk_uri(out, index))
        if data is None:
            return chunks
        chunks.add(data)
    return chunks


def decode_shards(data: bytes, *, where: str = "the plan") -> Iterator[Shard]:
    """Shards of a plan, a row group at a time; a shard may span row groups. Raises PlanDamagedError naming `where`."""
    return _read_shards(io.BytesIO(data), where)


def _read_shards(file: IO[bytes], where: str) -> Iterator[Shard]:
    """Like `decode_shards`, of an open file, which is closed at the end."""
    last: Shard | None = None
    for group in _read_groups(file, where):
        for shard in group:
            if last is not None and last.shard_id == shard.shard_id:
                last = Shard(shard_id=last.shard_id, items=last.items + shard.items)
                continue
            if last is not None:
                yield last
            last = shard
    if last is not None:
        yield last


def _read_groups(source: IO[bytes], where: str) -> Iterator[list[Shard]]:
    with source:
        with _reading_plan(where):
            file = pq.ParquetFile(source)
        for group in range(file.num_row_groups):
            with _reading_plan(where):
                shards = list(shards_from_table(file.read_row_group(group)))
            yield shards


def _limited(items: Iterator[Item], limit: int | None) -> Iterator[Item]:
    return items if limit is None else itertools.islice(items, limit)

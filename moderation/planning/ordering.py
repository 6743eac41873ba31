"""Shards in the order of an attribute: items that matter most are judged first.

Items of one priority share shards, in the order of the source. Shards are spooled to disk, one record batch each, and
read back in order: memory holds one unfinished shard per priority and nothing that grows with the source.
(An Arrow file, not Parquet: a Parquet footer of 40,000 row groups is read whole, 100 MB; here it takes 24 bytes per
shard.)
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from moderation.config.model import ShardConfig
from moderation.errors import UsageError
from moderation.planning.schema import PLAN_SCHEMA
from moderation.planning.shards import Sharder, make_shards, shards_from_table, shards_to_table
from moderation.types import Item, Shard

MAX_PRIORITIES = 1000
# Items in unfinished shards, about 1 KiB each; beyond it the fullest shard is closed early. This depends on the items
# alone, so the same source gives the same shards.
MAX_HELD = 65_536


def cut_shards(items: Iterable[Item], config: ShardConfig) -> Iterator[Shard]:
    """Shards in the order of the source, each as soon as it is full; with `order_by`, the largest value first.

    With `order_by` the first shard comes only after the whole listing. An item without the attribute counts as 0.
    Raises UsageError for a value that is not a number, and for more than MAX_PRIORITIES different ones.
    """
    if config.order_by is None:
        return make_shards(items, config)
    return _ordered(items, config, config.order_by)


def _ordered(items: Iterable[Item], config: ShardConfig, attribute: str) -> Iterator[Shard]:
    # Temporary files hold a few hundred bytes per item, compressed.
    with tempfile.TemporaryDirectory(prefix="moderation-plan-") as folder:
        path = str(Path(folder) / "shards.arrow")
        priorities = _spool(items, config, attribute, path)
        order = sorted(range(len(priorities)), key=lambda n: (-priorities[n], n))
        with pa.memory_map(path) as source:
            file = pa.ipc.open_file(source)
            for n in order:
                yield from shards_from_table(pa.Table.from_batches([file.get_batch(n)]))


def _spool(items: Iterable[Item], config: ShardConfig, attribute: str, path: str) -> list[float]:
    """Write the shards as they fill up; return the priority of each."""
    priorities: list[float] = []
    sharders: dict[float, Sharder] = {}
    held = 0
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, PLAN_SCHEMA, options=options) as writer:

        def write(priority: float, shard: Shard | None) -> None:
            nonlocal held
            if shard is None:
                return
            held -= len(shard.items)
            priorities.append(priority)
            (batch,) = shards_to_table([shard]).combine_chunks().to_batches()
            writer.write_batch(batch)

        for item in items:
            priority = priority_of(item, attribute)
            if priority not in sharders and len(sharders) == MAX_PRIORITIES:
                raise UsageError(
                    f"shards.order_by={attribute}: more than {MAX_PRIORITIES} different values; round them, so that"
                    " items of one value can share a shard"
                )
            held += 1
            write(priority, sharders.setdefault(priority, Sharder(config)).add(item))
            if held > max(MAX_HELD, config.max_items):
                fullest = max(sharders, key=lambda p: (sharders[p].held, p))
                write(fullest, sharders[fullest].close())
        for priority, sharder in sharders.items():
            write(priority, sharder.close())
    return priorities


def priority_of(item: Item, attribute: str) -> float:
    """The item's value of the attribute, 0 without one. Raises UsageError when it is not a number."""
    text = item.attributes.get(attribute)
    if text is None or not text.strip():
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UsageError(f"shards.order_by={attribute}: {item.uri} has {text[:100]!r}, which is not a number")
    return value

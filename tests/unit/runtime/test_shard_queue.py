from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from moderation.errors import UsageError
from moderation.runtime.shard_queue import ShardQueue
from moderation.types import Item, MediaObject, Shard


def shard(number: int) -> Shard:
    item = Item(item_id=f"i{number}", uri="u", objects=(MediaObject(uri="u", name="a.jpg", size_bytes=10),))
    return Shard(shard_id=f"s{number}", items=(item,))


def drain(queue: ShardQueue) -> list[str]:
    shard_ids = []
    while not queue.exhausted:
        taken = queue.take()
        if taken is not None:
            shard_ids.append(taken.shard_id)
        else:
            time.sleep(0.001)
    return shard_ids


def test_committed_shards_are_counted_and_left_out() -> None:
    queue = ShardQueue(lambda: iter([shard(n) for n in range(5)]), {"s1", "s3"}, max_waiting=2)
    assert drain(queue) == ["s0", "s2", "s4"]
    planned = queue.planned
    assert (planned.shards, planned.items, planned.size_bytes, planned.committed_shards) == (5, 5, 50, 2)
    assert planned.ended


def test_planning_waits_when_enough_shards_do() -> None:
    listed: list[int] = []

    def plan() -> Iterator[Shard]:
        for number in range(100):
            listed.append(number)
            yield shard(number)

    queue = ShardQueue(plan, set(), max_waiting=3)
    time.sleep(0.3)
    assert len(listed) <= 5
    assert len(drain(queue)) == 100


def test_what_the_listing_raises_comes_after_what_it_found() -> None:
    def plan() -> Iterator[Shard]:
        yield shard(0)
        raise UsageError("max_manifest_rows")

    queue = ShardQueue(plan, set(), max_waiting=3)
    while (first := queue.take()) is None:
        time.sleep(0.001)
    assert first.shard_id == "s0"
    with pytest.raises(UsageError, match="max_manifest_rows"):
        drain(queue)
    assert not queue.planned.ended


def test_a_closed_queue_ends_its_thread() -> None:
    queue = ShardQueue(lambda: (shard(n) for n in range(1000)), set(), max_waiting=1)
    queue.close()
    deadline = time.monotonic() + 10
    while any(t.name == "plan" and t.is_alive() for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert queue.planned.shards < 1000

"""Handing out among many workers: the driver's work for a shard does not grow with their number."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moderation.config.model import RuntimeConfig
from moderation.runtime.driver import drive
from moderation.runtime.shard_queue import PlanCounts, ShardQueue
from moderation.runtime.state import Stop
from moderation.runtime.worker_pool import WorkerAnswer
from moderation.types import ErrorCode, Item, Kind, MediaObject, Shard
from tests.fake_pool import FakeClock, FakePool, Fate, numbered_shards


class Silent:
    """A `Progress` that tells nobody."""

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        pass

    def tick(self, planned: PlanCounts, in_flight: int) -> None:
        pass

    def note(self, event: str, message: str, **facts: object) -> None:
        pass


class CountedQueue(ShardQueue):
    """Counts how often it is asked."""

    asked = 0

    def take(self) -> Shard | None:
        self.asked += 1
        return super().take()


@dataclass(slots=True, kw_only=True)
class CountedPool(FakePool):
    """Counts the rounds of the driver."""

    rounds: int = 0

    def wait(self, timeout_s: float) -> list[WorkerAnswer]:
        self.rounds += 1
        return FakePool.wait(self, timeout_s)


def test_of_many_workers_only_those_that_answered_are_looked_at() -> None:
    shards = numbered_shards(200)
    clock = FakeClock()
    pool = CountedPool(clock=clock, wanted=60, script=lambda _worker, a: Fate(after_s=10.0 + len(a.shard.shard_id)))
    queue = CountedQueue(lambda: iter(shards), set(), max_waiting=1)
    tally = drive(pool, queue, RuntimeConfig(), Silent(), Stop(clock=clock), clock=clock)
    assert tally.receipts == len(shards)
    # Once for each shard, and once a round in vain; before, up to sixty times a round.
    assert queue.asked <= len(shards) + 2 * pool.rounds


def test_a_shard_is_sent_whole() -> None:
    media = MediaObject(uri="u", name="a.jpg", size_bytes=3, etag="e", offset=7, row=1, column="c", frame=2, time_s=0.5)
    items = (
        Item(item_id="1", uri="u", objects=(media, media), kind=Kind.ALBUM, attributes={"a": "b"}),
        Item(item_id="2", uri="v", objects=(), error=ErrorCode.FORBIDDEN, error_detail="no"),
    )
    shard = Shard(shard_id="s", items=items)
    assert pickle.loads(pickle.dumps(shard)) == shard  # noqa: S301 - its own bytes

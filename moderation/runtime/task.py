"""The task of a worker: load once, run shards, probe suspect ones. Judging and cutting keyframes are tasks.

This module loads neither Ray nor torch: a worker loads what its task needs, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, Protocol, Self

from moderation.config.model import MIB, Config
from moderation.errors import ItemError
from moderation.pipeline.pools import Pools, make_pools
from moderation.runtime.watched_device import WatchedDevice
from moderation.types import Shard

# `small` keeps less in memory, so that a shard that was only too large at once can run whole; `smallest` also scores in
# smaller batches, which may change a score's last bits.
MemoryMode = Literal["normal", "small", "smallest"]
# The least that the configuration allows; one item is always taken, whatever its size.
SMALL_FETCH_BYTES, SMALL_FRAME_BYTES = MIB, 16 * MIB


class WorkerTask(Protocol):
    """What one worker does with its shards. It is sent to the worker unloaded, and loaded there once.

    `run` and `probe` are called from several threads at once (`runtime.shards_in_flight`), but from one alone when
    the memory mode is not `normal`. poison: item id -> why, of items that are known to kill or stall the process.
    """

    def load(self, threads: int) -> dict[str, Any]:
        """Load what every shard needs; facts about it for the summary. Raises UsageError, FatalError."""
        ...

    def run(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> dict[str, Any]:
        """Carry out a shard and commit it; its receipt as a dict. Raises ShardError, FatalError."""
        ...

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> int:
        """Go through a shard without committing, to see whether it kills the process; returns the rows."""
        ...

    def items_in_flight(self) -> int:
        """Items of running shards that have a row already; called from another thread than those that run."""
        ...

    def to_json(self) -> str:
        """Text from which `from_json` makes the same task, in a process of its own."""
        ...

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The task from the output of `to_json`, not loaded."""
        ...


def make_task_pools(config: Config, threads: int) -> Pools:
    """The thread pools of a worker with `threads` cores: as configured, or one decoder per core."""
    decode_threads = config.runtime.decode_threads
    return _watch(make_pools(config, threads if decode_threads == "auto" else decode_threads), config)


def _watch(pools: Pools, config: Config) -> Pools:
    return replace(pools, device=WatchedDevice(config.runtime.score_timeout_s))


@contextmanager
def small_memory(config: Config) -> Iterator[tuple[Config, Pools]]:
    """A configuration with the least memory, and thread pools for it that end with the context."""
    config = small_memory_config(config)
    pools = _watch(make_pools(config, 1), config)
    try:
        yield config, pools
    finally:
        pools.fetch.shutdown(wait=False, cancel_futures=True)
        pools.decode.shutdown(wait=False, cancel_futures=True)


def small_memory_config(config: Config) -> Config:
    """A configuration that decodes one item at a time and lets hardly one wait.

    Scores are the same: frames come to the device in the same batches.
    """
    smallest = {
        "shards_in_flight": 1,
        "fetch_threads": 1,
        "fetch_budget_bytes": SMALL_FETCH_BYTES,
        "frame_budget_bytes": SMALL_FRAME_BYTES,
    }
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=smallest)})

"""The task that cuts videos into keyframe tars. A worker that has it loads no torch and no stack."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Self

from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.pipeline.keyframes import cut_items, cut_shard
from moderation.pipeline.pools import Pools
from moderation.runtime.task import MemoryMode, make_task_pools, small_memory
from moderation.types import Shard


class KeyframeTask:
    """Cuts shards, and commits one tar per shard."""

    def __init__(self, *, config: Config, out: str) -> None:
        self._config = config
        self._out = out

    def load(self, threads: int) -> dict[str, Any]:
        """Start the threads."""
        self._pools = make_task_pools(self._config, threads)
        return {"device": "cpu"}

    def run(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> dict[str, Any]:
        """Cut and commit a shard; its receipt as a dict."""
        with self._working_set(memory) as (config, pools):
            return asdict(cut_shard(shard, out=self._out, config=config, pools=pools, poison=poison))

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> int:
        """Cut the items of a shard, write nothing; returns the rows."""
        with self._working_set(memory) as (config, pools):
            return sum(1 for _ in cut_items(shard.items, config=config, pools=pools, poison=poison))

    def items_in_flight(self) -> int:
        """Always 0: a tar has no rows before it is written."""
        return 0

    @contextmanager
    def _working_set(self, memory: MemoryMode) -> Iterator[tuple[Config, Pools]]:
        """Configuration and threads for a shard, in any memory mode: there are no batches to make smaller."""
        if memory == "normal":
            yield self._config, self._pools
            return
        with small_memory(self._config) as working_set:
            yield working_set

    def to_json(self) -> str:
        """Configuration and output."""
        return json.dumps({"config": self._config.model_dump_json(), "out": self._out})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The task from the output of `to_json`, not loaded."""
        fields = json.loads(text)
        return cls(config=Config.model_validate_json(fields["config"]), out=fields["out"])

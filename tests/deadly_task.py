"""A worker's task that ends its process as it is told to; a file of its own, so that a fresh process imports little."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from moderation.errors import ItemError
from moderation.runtime.task import MemoryMode
from moderation.types import Shard


class DeadlyTask:
    """Ends its process as it is told to."""

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def load(self, threads: int) -> dict[str, Any]:
        return {}

    def run(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> dict[str, Any]:
        raise AssertionError("an isolated run commits nothing")

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> int:
        if self._ending == "raise":
            raise RuntimeError("no")
        if self._ending == "hang":
            signal.pause()
        elif self._ending != "survive":
            os.kill(os.getpid(), signal.Signals[self._ending])
        return len(shard.items)

    def items_in_flight(self) -> int:
        return 0

    def to_json(self) -> str:
        return json.dumps(self._ending)

    @classmethod
    def from_json(cls, text: str) -> DeadlyTask:
        return cls(json.loads(text))

"""A task for workers that does what the names of its items say: a file of its own, so that a worker imports little."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from moderation.errors import FatalError, ItemError
from moderation.runtime.task import MemoryMode
from moderation.storage import StorageError
from moderation.types import ErrorCode, Item, MediaObject, Shard


class OwnArgumentsError(Exception):
    """An error that pickles, and cannot be made again from its message alone."""

    def __init__(self, what: str, *, why: str) -> None:
        super().__init__(f"{what}: {why}")


def shard_of(*fates: str, shard_id: str = "s") -> Shard:
    """A shard of items with these fates."""
    items = (
        Item(item_id=f"{shard_id}-{n}", uri=fate, objects=(MediaObject(uri=fate, name="a.jpg", size_bytes=1),))
        for n, fate in enumerate(fates)
    )
    return Shard(shard_id=shard_id, items=tuple(items))


class ScriptedTask:
    """What becomes of an item is its URI: `ok`, a signal's name, `exit 3`, `hang`, `half`, `child`, an error.

    too_many: so many items at once have the process killed, unless memory is kept small. load: the fate of loading.
    """

    def __init__(self, *, load: str = "ok", too_many: int | None = None) -> None:
        self._load = load
        self._too_many = too_many
        self._rows: Counter[str] = Counter()

    def load(self, threads: int) -> dict[str, Any]:
        _meet(self._load)
        return {"device": "cpu", "openmp": os.environ["OMP_NUM_THREADS"], "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}

    def run(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> dict[str, Any]:
        if memory == "normal" and self._too_many is not None and len(shard.items) >= self._too_many:
            _meet("SIGKILL")
        told = [_meet(item.uri) or self._count(shard) for item in shard.items if item.item_id not in poison]
        rows = len(shard.items)
        counts = {"frames": len(told)}
        return {
            "shard_id": shard.shard_id, "rows_in": rows, "counts": counts, "peak_memory_bytes": 0, "seconds": {},
            "bytes_read": 0, "told": told,
        }  # fmt: skip

    def _count(self, shard: Shard) -> None:
        self._rows[shard.shard_id] += 1

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> int:
        return int(self.run(shard, poison, memory)["rows_in"])

    def items_in_flight(self) -> int:
        return sum(self._rows.values())

    def to_json(self) -> str:
        return json.dumps({"load": self._load, "too_many": self._too_many})

    @classmethod
    def from_json(cls, text: str) -> ScriptedTask:
        return cls(**json.loads(text))


def _meet(fate: str) -> Any:
    """The fate of an item; whatever it has to tell."""
    if fate.startswith("SIG"):
        sys.stderr.write(f"about to meet {fate}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.Signals[fate])
        time.sleep(60)
    if fate.startswith("exit "):
        os._exit(int(fate.removeprefix("exit ")))
    if fate == "hang":
        time.sleep(3600)
    if fate == "child":
        return subprocess.Popen(["sleep", "3600"]).pid
    if fate == "half":  # an answer of a thousand bytes, of which ten come
        os.write(int(sys.argv[1]), struct.pack("!i", 1000) + b"0123456789")
        os.kill(os.getpid(), signal.SIGKILL)
    errors: dict[str, BaseException] = {
        "item": ItemError(ErrorCode.SCORE_FAILED, "no"),
        "storage": StorageError("the store is away"),
        "fatal": FatalError("no room on the disk"),
        "own arguments": OwnArgumentsError("bad", why="really"),
        "leaves": SystemExit(7),
    }
    if fate in errors:
        raise errors[fate]
    return None

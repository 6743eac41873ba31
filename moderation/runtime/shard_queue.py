"""Shards as they are planned, a bounded number ahead of the workers: listing goes on while the first are judged."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moderation.types import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCounts:
    """How much is planned so far; the whole plan once the listing has `ended`."""

    shards: int
    items: int
    size_bytes: int
    committed_shards: int  # by earlier calls
    committed_items: int
    ended: bool


class ShardQueue:
    """The shards that have no receipt yet, from a thread that plans them."""

    def __init__(self, open_plan: Callable[[], Iterator[Shard]], committed: set[str], max_waiting: int) -> None:
        """open_plan: lists the shards. max_waiting: planning pauses while this many shards wait."""
        self._open_plan = open_plan
        self._committed = committed
        self._waiting: queue.Queue[Shard] = queue.Queue(maxsize=max_waiting)
        self._error: BaseException | None = None
        self._closed = threading.Event()
        self._shards = self._items = self._bytes = self._done_shards = self._done_items = 0
        self._ended = False
        self.ids: list[str] = []
        # A daemon: a listing that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="plan", daemon=True)
        self._thread.start()

    def take(self) -> Shard | None:
        """The next shard, or None when none is ready now. After the last shard, raises what the listing raised."""
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            if self._error is not None and self._waiting.empty():
                raise self._error from None
            return None

    @property
    def exhausted(self) -> bool:
        """Whether no shard waits and no more will come."""
        return self._ended and self._waiting.empty() and self._error is None

    @property
    def planned(self) -> PlanCounts:
        """Counts so far."""
        return PlanCounts(
            shards=self._shards,
            items=self._items,
            size_bytes=self._bytes,
            committed_shards=self._done_shards,
            committed_items=self._done_items,
            ended=self._ended and self._error is None,
        )

    def close(self) -> None:
        """Stop planning."""
        self._closed.set()

    def _run(self) -> None:
        try:
            for shard in self._open_plan():
                self._shards += 1
                self._items += len(shard.items)
                self._bytes += shard.size_bytes
                self.ids.append(shard.shard_id)
                if shard.shard_id in self._committed:
                    self._done_shards += 1
                    self._done_items += len(shard.items)
                    continue
                while not self._closed.is_set():
                    try:
                        self._waiting.put(shard, timeout=0.5)
                        break
                    except queue.Full:
                        continue
                if self._closed.is_set():
                    return
            self._ended = True
        except BaseException as error:  # noqa: BLE001 - handed to the driver, which raises it
            self._error = error

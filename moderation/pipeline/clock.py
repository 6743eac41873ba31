"""Where the seconds of a shard go: busy time by step, and waiting time by who waits for what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

_Out = TypeVar("_Out")


# Who waits for what: `starved` for input, `blocked` by the next step, `memory` for what other decoders hold (summed
# over the threads), `lock` for another shard on the device.
WAITS = (
    "fetch:starved",
    "fetch:blocked",
    "decode:starved",
    "decode:blocked",
    "decode:memory",
    "device:starved",
    "device:lock",
)
STEPS = ("fetch", "decode", "score", "judge", "write")
# Of each shard, for the report: it shows ten of the run.
_SLOWEST = 5


@dataclass(slots=True)
class Clock:
    """Busy seconds by step and by item, waiting seconds, and encoded bytes read; steps run in several threads.

    item_seconds: of fetching and decoding; items are scored in batches, so that no time of the device is one item's.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    waits: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WAITS, 0.0))
    item_seconds: dict[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def timed(self, step: str, call: Callable[[], _Out], *, item_id: str | None = None) -> _Out:
        """Run `call()` and add its time to the step, and to the item that it was for."""
        began = time.perf_counter()
        try:
            return call()
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self.seconds[step] += spent
                if item_id is not None:
                    self.item_seconds[item_id] = self.item_seconds.get(item_id, 0.0) + spent

    def slowest(self) -> dict[str, float]:
        """The five items that took longest to fetch and decode, with their seconds, the slowest first."""
        ordered = sorted(self.item_seconds.items(), key=lambda pair: (-pair[1], pair[0]))
        return {item_id: round(seconds, 3) for item_id, seconds in ordered[:_SLOWEST]}

    def waited(self, who: str, kind: str, seconds: float) -> None:
        """Add to the idle time of `who` (fetch, decode, device)."""
        with self._lock:
            self.waits[f"{who}:{kind}"] += seconds

    def count_read(self, size_bytes: int) -> None:
        """Add to the bytes read."""
        with self._lock:
            self.bytes_read += size_bytes

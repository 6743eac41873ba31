"""Where the seconds of a shard go: busy time by step, and waiting time by who waits for what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

_Out = TypeVar("_Out")


# Who waits for what: `starved` for input, `blocked` by the next step, `lock` for another shard on the device.
WAITS = ("fetch:starved", "fetch:blocked", "decode:starved", "decode:blocked", "device:starved", "device:lock")
STEPS = ("fetch", "decode", "score", "judge", "write")


@dataclass(slots=True)
class Clock:
    """Busy seconds by step, waiting seconds, and encoded bytes read; steps run in several threads."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    waits: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WAITS, 0.0))
    bytes_read: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def timed(self, step: str, call: Callable[[], _Out]) -> _Out:
        """Run `call()` and add its time to the step."""
        began = time.perf_counter()
        try:
            return call()
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self.seconds[step] += spent

    def waited(self, who: str, kind: str, seconds: float) -> None:
        """Add to the idle time of `who` (fetch, decode, device)."""
        with self._lock:
            self.waits[f"{who}:{kind}"] += seconds

    def count_read(self, size_bytes: int) -> None:
        """Add to the bytes read."""
        with self._lock:
            self.bytes_read += size_bytes

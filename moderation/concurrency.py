"""Mapping by a pool, in order, a bounded way ahead of the consumer; and how many cores there are."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_ahead(
    call: Callable[[_In], _Out],
    inputs: Iterable[_In],
    pool: Executor,
    *,
    most: int,
    budget_bytes: int,
    expected_bytes: Callable[[_In], int],
    held_bytes: Callable[[_Out], int],
    waited: Callable[[str, float], None] = lambda _kind, _seconds: None,
) -> Generator[_Out, None, None]:
    """`map(call, inputs)` by a pool, in order, at most `most` inputs and a byte budget ahead of the consumer.

    What is running counts by its expected, what is done by its true size; one input is always allowed, so that a
    large one cannot stall. Overshoot is bounded by what the pool's threads return at once.
    waited: told of the seconds in which no call was running: `starved`, for want of an input; `blocked`, as the
    consumer took no more.
    Raises what `call` or `inputs` raise, where it stands in the order; what has not begun by then, or when the
    generator is closed, never begins.
    """
    waiting: deque[_Ahead[_Out]] = deque()
    source = iter(inputs)
    exhausted = False
    try:
        while True:
            while not exhausted and len(waiting) < most:
                if waiting and sum(a.weight(held_bytes) for a in waiting) >= budget_bytes:
                    break
                began_s = time.perf_counter()
                try:
                    given = next(source)
                except StopIteration:
                    exhausted = True
                    break
                waited("starved", _idle_s(waiting, began_s))
                waiting.append(_Ahead(future=pool.submit(call, given), expected=expected_bytes(given)))
            if not waiting:
                return
            result = waiting.popleft().future.result()
            began_s = time.perf_counter()
            yield result
            if not exhausted:
                waited("blocked", _idle_s(waiting, began_s))
    finally:
        # A shard that failed must not go on reading: its pool is shared with the next.
        for left in waiting:
            left.future.cancel()


@dataclass(slots=True, kw_only=True)
class _Ahead(Generic[_Out]):
    future: Future[_Out]
    expected: int
    ended_s: float | None = None

    def __post_init__(self) -> None:
        self.future.add_done_callback(self._end)

    def _end(self, _: Future[_Out]) -> None:
        self.ended_s = time.perf_counter()

    def weight(self, held_bytes: Callable[[_Out], int]) -> int:
        if self.future.done() and self.future.exception() is None:
            return held_bytes(self.future.result())
        return self.expected


def _idle_s(ahead: Iterable[_Ahead[_Out]], since_s: float) -> float:
    """Seconds from `since_s` until now in which none of these was running."""
    now_s = time.perf_counter()
    for one in ahead:
        if not one.future.done():
            return 0.0
        # Done a moment before it is told: that moment is now.
        since_s = max(since_s, now_s if one.ended_s is None else one.ended_s)
    return max(0.0, now_s - since_s)


def usable_cores() -> int:
    """CPU cores that this process may use: a container or `taskset` may leave it fewer than there are."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))

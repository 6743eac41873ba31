"""Mapping by a pool, in order, boundedly ahead of the consumer; usable cores; processes that end together."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

CGROUPS: Final = Path("/sys/fs/cgroup")
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_ahead(
    call: Callable[[_In], _Out],
    inputs: Iterable[_In],
    pool: Executor,
    *,
    max_ahead: int,
    budget_bytes: int,
    expected_bytes: Callable[[_In], int],
    held_bytes: Callable[[_Out], int],
    waited: Callable[[str, float], None] = lambda _kind, _seconds: None,
) -> Generator[_Out, None, None]:
    """`map(call, inputs)` by a pool, in order, at most `max_ahead` inputs and a byte budget ahead of the consumer.

    Running calls count with their expected bytes, finished ones with their true bytes; one input is always allowed, so
    a large one cannot stall. The budget is exceeded at most by what the pool's threads return at once.
    waited: receives the seconds in which no call was running: `starved`, waiting for an input; `blocked`, waiting for
    the consumer.
    Raises what `call` or `inputs` raise, at its place in the order. Calls that have not begun then, or when the
    generator is closed, never begin.
    """
    waiting: deque[_Ahead[_Out]] = deque()
    source = iter(inputs)
    exhausted = False
    try:
        while True:
            while not exhausted and len(waiting) < max_ahead:
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
            del result
            if not exhausted:
                waited("blocked", _idle_s(waiting, began_s))
    finally:
        # A failed shard must not go on reading: the next one shares its pool.
        for left in waiting:
            left.future.cancel()


@dataclass(slots=True, kw_only=True)
class _Ahead(Generic[_Out]):
    future: Future[_Out]
    expected: int
    ended_s: list[float] = field(default_factory=list)  # when it was done

    def __post_init__(self) -> None:
        # The callback must not refer to this object: a future keeps its callbacks, and in a cycle with it what it
        # returned would stay in memory until the collector runs, hundreds of large pictures later.
        ended_s = self.ended_s
        self.future.add_done_callback(lambda _: ended_s.append(time.perf_counter()))

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
        # Done, but its callback has not run yet: it ended just now.
        since_s = max(since_s, one.ended_s[0] if one.ended_s else now_s)
    return max(0.0, now_s - since_s)


class ByteBudget:
    """Bytes that threads share: who wants some waits until they are free, in the order of asking.

    More than there are is all of them: such a one waits until nobody else holds any, and is alone.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._free = total_bytes
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def take(self, wanted_bytes: int) -> Iterator[None]:
        """Hold so many for the length of a block."""
        wanted = min(max(0, wanted_bytes), self._total)
        place = object()
        with self._changed:
            self._queue.append(place)
            try:
                # A large one at the front is not overtaken by small ones for ever.
                self._changed.wait_for(lambda: self._queue[0] is place and self._free >= wanted)
                self._free -= wanted
            finally:
                self._queue.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """CPU cores that this process may use, at least one; a container or `taskset` may allow fewer than there are."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_quota(cgroups)
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def _read_quota(cgroups: Path) -> float | None:
    """Cores by the processor time that the container gets, of cgroups version 2 or 1."""
    try:
        quota, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            folder = cgroups / "cpu"
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Linux alone can; else does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

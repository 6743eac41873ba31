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
from dataclasses import dataclass
from functools import partial
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
    held_bytes: is called in the pool's threads, once for each result; it must not raise.
    waited: receives the seconds in which no call was running: `starved`, waiting for an input; `blocked`, waiting for
    the consumer.
    Raises what `call` or `inputs` raise, at its place in the order. Calls that have not begun then, or when the
    generator is closed, never begin.
    """
    ahead = _Ahead(held_bytes)
    source = iter(inputs)
    exhausted = False
    try:
        while True:
            while not exhausted and len(ahead) < max_ahead and (not len(ahead) or ahead.held_bytes < budget_bytes):
                began_s = time.perf_counter()
                try:
                    given = next(source)
                except StopIteration:
                    exhausted = True
                    break
                waited("starved", ahead.idle_s(began_s))
                ahead.add(pool.submit(call, given), expected_bytes(given))
            if not len(ahead):
                return
            result = ahead.take()
            began_s = time.perf_counter()
            yield result
            del result
            if not exhausted:
                waited("blocked", ahead.idle_s(began_s))
    finally:
        # A failed shard must not go on reading: the next one shares its pool.
        ahead.cancel()


@dataclass(slots=True, kw_only=True)
class _CallAhead:
    """A call that was submitted. It must not refer to its future, which keeps its callbacks and with them this object:
    in a cycle what it returned would stay in memory until the collector runs, hundreds of large pictures later."""

    bytes: int
    running: bool = True
    taken: bool = False


class _Ahead(Generic[_Out]):
    """Calls that the consumer has not taken yet, in order: their bytes, and since when none of them runs.

    Counted as calls begin and end: with 512 ahead, as for a GPU's batches, going through all of them for each item held
    the interpreter's lock longer than decoding the item.
    """

    def __init__(self, held_bytes: Callable[[_Out], int]) -> None:
        self.held_bytes = 0
        self._held_bytes_of = held_bytes
        self._calls: deque[tuple[Future[_Out], _CallAhead]] = deque()
        self._running = 0
        self._idle_since_s = 0.0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, future: Future[_Out], expected_bytes: int) -> None:
        """The next call, with the bytes that it counts with until it ends."""
        call = _CallAhead(bytes=expected_bytes)
        with self._lock:
            self.held_bytes += expected_bytes
            self._running += 1
        self._calls.append((future, call))
        future.add_done_callback(partial(self._end, call))

    def take(self) -> _Out:
        """The result of the first call, waited for; raises what it raised."""
        future, call = self._calls.popleft()
        result = future.result()
        with self._lock:
            # Who waits may go on before the callback runs.
            self._stop(call)
            call.taken = True
            self.held_bytes -= call.bytes
        return result

    def idle_s(self, since_s: float) -> float:
        """Seconds from `since_s` until now in which no call was running."""
        with self._lock:
            if self._running:
                return 0.0
            return max(0.0, time.perf_counter() - max(since_s, self._idle_since_s))

    def cancel(self) -> None:
        """Cancel the calls that have not begun."""
        for future, _ in self._calls:
            future.cancel()
        # Each refers to this object by its callback, and would stay with what it returned: see `_CallAhead`.
        self._calls.clear()

    def _end(self, call: _CallAhead, future: Future[_Out]) -> None:
        failed = future.cancelled() or future.exception() is not None
        held = call.bytes if failed else self._held_bytes_of(future.result())
        with self._lock:
            self._stop(call)
            if not call.taken:
                self.held_bytes += held - call.bytes
                call.bytes = held

    def _stop(self, call: _CallAhead) -> None:
        if call.running:
            call.running = False
            self._running -= 1
            self._idle_since_s = time.perf_counter()


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

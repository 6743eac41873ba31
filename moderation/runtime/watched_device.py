"""The lock of a worker's stack, which ends the process when a batch never comes back.

Fetching and decoding have deadlines of their own; what hangs in a detector (a GPU that fell off the bus, a library's
deadlock) had only its shard's, which is hours for a shard of long videos. The driver tries the shards of a worker that
died again, and finds the item where one is to blame.
"""

from __future__ import annotations

import faulthandler
import signal
import threading
import time
from contextlib import AbstractContextManager
from typing import Final

_STDERR: Final = 2
_TOLD_S: Final = 1.0  # between the lines that say where all threads stand, and the end


class WatchedDevice(AbstractContextManager[None]):
    """Held while the stack scores; one thread at a time. After `limit_s` SIGALRM ends the process.

    Both timers need no Python, so that they run out though a library holds the interpreter. There is one SIGALRM in a
    process: for the processes of workers alone. One that was set before (see `isolated_run`) goes on.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._set_before_s = self._began_s = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._began_s = time.monotonic()
        self._set_before_s = signal.getitimer(signal.ITIMER_REAL)[0]
        limits = [self._limit_s + _TOLD_S, *([self._set_before_s] if self._set_before_s else [])]
        faulthandler.dump_traceback_later(self._limit_s, file=_STDERR)
        signal.setitimer(signal.ITIMER_REAL, min(limits))

    def __exit__(self, *_: object) -> None:
        left_s = self._set_before_s - (time.monotonic() - self._began_s)
        signal.setitimer(signal.ITIMER_REAL, max(left_s, 1e-3) if self._set_before_s else 0.0)
        faulthandler.cancel_dump_traceback_later()
        self._lock.release()

"""How much a process may retry: per store, a share of its answers, so that retries do not flood a store that is down.

The idea is the retry quota of the AWS SDKs (https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html):
a bucket of tokens that each retry draws on and each answer refills a little.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

# Enough for sixteen threads that meet an outage of ten seconds twice; a longer one ends the run.
MAX_SAVED_RETRIES = 256.0
# If a tenth of the requests fail, there is one retry per nine answers; one per four covers more than a bad night.
RETRIES_PER_ANSWER = 0.25
# The store is at fault if this many other requests failed, and none was answered, while one used up its attempts.
MIN_OTHER_FAILURES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A store's counts when a request began."""

    answered: int
    failed: int


@dataclass(slots=True, kw_only=True)
class _Store:
    tokens: float
    answered: int = 0
    failed: int = 0
    retried: int = 0
    said: int = 0  # retries that the log has told
    said_s: float = -math.inf


class RetryBudget:
    """Tokens for retries, by store (`s3://bucket`); thread-safe."""

    def __init__(self, *, burst: float = MAX_SAVED_RETRIES, share: float = RETRIES_PER_ANSWER) -> None:
        """burst: retries allowed before any answer, and the most saved up. share: retries gained per answer."""
        self._burst, self._share = burst, share
        self._stores: dict[str, _Store] = {}
        self._lock = threading.Lock()

    def mark(self, store: str) -> Mark:
        """The store's counts now, as a request begins."""
        with self._lock:
            counts = self._store(store)
            return Mark(answered=counts.answered, failed=counts.failed)

    def answer(self, store: str) -> None:
        """The store answered (also by "not found"): it is up."""
        with self._lock:
            counts = self._store(store)
            counts.answered += 1
            counts.tokens = min(self._burst, counts.tokens + self._share)

    def fail(self, store: str) -> None:
        """A request failed in a way that a retry may cure."""
        with self._lock:
            self._store(store).failed += 1

    def take(self, store: str) -> bool:
        """Whether one more retry is allowed; it is then counted."""
        with self._lock:
            counts = self._store(store)
            if counts.tokens < 1:
                return False
            counts.tokens -= 1
            counts.retried += 1
            return True

    def is_down(self, store: str, since: Mark, own: int) -> bool:
        """Whether no request got an answer since then, though others tried. own: failures of this request."""
        with self._lock:
            counts = self._store(store)
            return counts.answered == since.answered and counts.failed - since.failed - own >= MIN_OTHER_FAILURES

    def unsaid(self, store: str, now_s: float, every_s: float) -> int | None:
        """Retries not logged yet; None where the last log line is less than `every_s` seconds old."""
        with self._lock:
            counts = self._store(store)
            if now_s - counts.said_s < every_s:
                return None
            unsaid = counts.retried - counts.said
            counts.said, counts.said_s = counts.retried, now_s
            return unsaid

    def retried(self) -> dict[str, int]:
        """Retries so far, by store."""
        with self._lock:
            return {name: counts.retried for name, counts in sorted(self._stores.items())}

    def _store(self, name: str) -> _Store:
        return self._stores.setdefault(name, _Store(tokens=self._burst))

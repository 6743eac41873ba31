"""Prometheus metrics of a run, through Ray's own exporter: counters that add up to the receipts.

The driver counts, from the receipts that it takes: so a worker that dies between its receipt and the next export loses
no count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from moderation.runtime.shard_queue import PlanCounts


class Meters:
    """A `Progress` that counts. Names in Prometheus are these with `ray_` before them."""

    def __init__(self, run_id: str) -> None:
        self._run = {"run": run_id}
        self._items = Counter("moderation_items_total", "Items with a committed row.", ("run",))
        self._frames = Counter("moderation_frames_total", "Frames scored.", ("run",))
        self._bytes = Counter("moderation_bytes_total", "Encoded bytes read.", ("run",))
        self._shards = Counter("moderation_shards_total", "Shards committed.", ("run",))
        self._seconds = Counter("moderation_seconds_total", "Busy seconds, summed over threads.", ("run", "step"))
        self._waits = Counter("moderation_wait_seconds_total", "Idle seconds of a step.", ("run", "step", "wait"))
        self._verdicts = Counter(
            "moderation_verdicts_total", "Verdicts, by the check that decided.", ("run", "check", "verdict")
        )
        self._errors = Counter("moderation_errors_total", "Items with an error or skipped, by code.", ("run", "code"))
        self._retries = Counter("moderation_retries_total", "What had to be done again.", ("run", "reason"))
        self._queue = Gauge("moderation_queue_depth", "Shards that are planned and not committed.", ("run",))
        self._busy = Gauge("moderation_busy_ratio", "Share of the time that a device was scoring.", ("run",))
        self._alarms = Counter(
            "moderation_certificate_alarms_total", "Certificates that a monitor has ended.", ("run", "action")
        )
        self._drift = Gauge(
            "moderation_score_drift", "Population stability index of a score, where it changed.", ("run", "score")
        )
        self._began_s: float | None = None
        self._scored_s = 0.0
        self._done = 0
        self._workers = 0

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """Count a receipt."""
        counts: Mapping[str, int] = receipt["counts"]
        self._items.inc(receipt["rows_in"], self._run)
        self._shards.inc(1, self._run)
        _add(self._frames, counts.get("frames", 0), self._run)
        _add(self._bytes, receipt["bytes_read"], self._run)
        self._count_seconds(receipt)
        self._count_verdicts(counts)
        self._done += 1
        self._queue.set(max(0, planned.shards - planned.committed_shards - self._done), self._run)
        if self._began_s is not None and self._workers:
            elapsed_s = max(time.monotonic() - self._began_s, 1e-3)
            self._busy.set(min(1.0, self._scored_s / elapsed_s / self._workers), self._run)

    def tick(self, planned: PlanCounts, in_flight: int) -> None:
        """Does nothing: counters move by receipts alone, because what is in flight may still be lost."""

    def _count_seconds(self, receipt: Mapping[str, Any]) -> None:
        for step, seconds in receipt["seconds"].items():
            _add(self._seconds, seconds, {**self._run, "step": step})
        for key, seconds in receipt.get("waits", {}).items():
            step, _, wait = key.partition(":")
            _add(self._waits, seconds, {**self._run, "step": step, "wait": wait})
        self._scored_s += receipt["seconds"].get("score", 0.0)

    def _count_verdicts(self, counts: Mapping[str, int]) -> None:
        undecided = {verdict: counts.get(f"verdict:{verdict}", 0) for verdict in ("block", "review", "pass")}
        for key, count in counts.items():
            kind, _, rest = key.partition(":")
            if kind == "check":
                check, _, verdict = rest.rpartition(":")
                undecided[verdict] -= count
                _add(self._verdicts, count, {**self._run, "check": check, "verdict": verdict})
            elif kind == "error":
                _add(self._errors, count, {**self._run, "code": rest})
        # Verdicts that no check decided: errors, and the policy's default.
        for verdict, count in undecided.items():
            _add(self._verdicts, count, {**self._run, "check": "", "verdict": verdict})

    def note(self, event: str, message: str, **facts: object) -> None:
        """Count retries, and events that make certificates and scores doubtful."""
        if event == "worker":
            self._began_s = self._began_s if self._began_s is not None else time.monotonic()
            self._workers += 1
        elif event in ("worker_lost", "worker_failed"):
            self._workers -= event == "worker_lost"
            self._retries.inc(1, {**self._run, "reason": event})
        elif event in ("shard_retry", "search"):
            self._retries.inc(1, {**self._run, "reason": event})
        elif event == "certificate_ended":
            self._alarms.inc(1, {**self._run, "action": str(facts["action"])})
        elif event == "drift":
            self._drift.set(float(str(facts["stability"])), {**self._run, "score": str(facts["score"])})


def _add(counter: Any, amount: float, tags: Mapping[str, str]) -> None:  # noqa: ANN401 - Ray is untyped
    # Ray's counters refuse 0.
    if amount > 0:
        counter.inc(amount, dict(tags))

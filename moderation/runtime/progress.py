"""What a run says while it runs: a bar on a terminal, else JSON lines; both on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any

from moderation.pages.terminal import PlainConsole
from moderation.pages.text import json_text
from moderation.runtime.progress_bar import BarProgress
from moderation.runtime.shard_queue import PlanCounts
from moderation.runtime.state import JudgingClock
from moderation.runtime.state import Progress as ProgressProtocol

MINUTE_S = 60.0
_GOOD_NEWS = frozenset({"worker", "run", "done", "stopping"})
_LOGGER = logging.getLogger("moderation")


class LineProgress:
    """Structured log: one JSON object per line with time, level, run, event and the ids of what it is about.

    Events: `listed` once, `shard` for each shard, `minute` once a minute, `log` for what the library logs, others for
    what went wrong. Rates leave out the start-up, which is `startup_s`.
    """

    def __init__(self, run_id: str, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._run_id = run_id
        self._stream = stream or sys.stderr
        self._clock = clock
        self._pace = JudgingClock(began_s=clock())
        self._items = 0
        self._shards = 0
        self._said_listed = False
        self._minute_s = clock()
        self._handler = _LogLines(self)

    def __enter__(self) -> LineProgress:
        _LOGGER.addHandler(self._handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _LOGGER.removeHandler(self._handler)

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """Log one line: the shard, its rows, its verdicts, its seconds by step, how far the run is."""
        self._items += int(receipt["rows_in"])
        self._shards += 1
        counts = receipt["counts"]
        self._write(
            "info",
            "shard",
            shard=receipt["shard_id"],
            worker=receipt.get("worker", ""),
            rows=receipt["rows_in"],
            verdicts={k.removeprefix("verdict:"): v for k, v in counts.items() if k.startswith("verdict:")},
            errors={k.removeprefix("error:"): v for k, v in counts.items() if k.startswith("error:")},
            seconds=receipt["seconds"],
            storage_retries=receipt.get("storage_retries", 0),
            done_shards=self._shards + planned.committed_shards,
            planned_shards=planned.shards,
            listing_ended=planned.ended,
            items_per_s=self._rate(self._items),
        )

    def tick(self, planned: PlanCounts, in_flight: int) -> None:
        """Log `listed` when the listing has ended, `minute` once a minute."""
        if planned.ended and not self._said_listed:
            self._said_listed = True
            self._write(
                "info", "listed", items=planned.items, shards=planned.shards, committed_shards=planned.committed_shards
            )
        now_s = self._clock()
        if now_s - self._minute_s < MINUTE_S:
            return
        self._minute_s = now_s
        items = self._items + in_flight
        left_s = self._pace.left_s(items, planned, now_s)
        self._write(
            "info",
            "minute",
            done_items=planned.committed_items + items,
            planned_items=planned.items,
            listing_ended=planned.ended,
            startup_s=self._pace.startup_s,
            items_per_s=self._rate(items),
            left_s=None if left_s is None else round(left_s),
        )

    def note(self, event: str, message: str, **facts: object) -> None:
        """Log one line."""
        if event == "worker":
            self._pace.note_ready(self._clock())
        self._write("info" if event in _GOOD_NEWS else "warning", event, message=message, **facts)

    def _rate(self, items: int) -> float | None:
        rate = self._pace.items_per_s(items, self._clock())
        return None if rate is None else round(rate, 2)

    def _write(self, level: str, event: str, **facts: object) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"time": stamp, "level": level, "event": event, "run": self._run_id, **facts}
        self._stream.write(json_text(record) + "\n")
        self._stream.flush()


class _LogLines(logging.Handler):
    """What the library logs, such as retries of storage, as lines of the structured log."""

    def __init__(self, lines: LineProgress) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.note("log", record.getMessage(), logger=record.name)


@dataclass(frozen=True, slots=True)
class ProgressGroup:
    """Passes each call on to its members."""

    members: tuple[ProgressProtocol, ...]

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """A shard is committed."""
        for member in self.members:
            member.shard_done(receipt, planned)

    def tick(self, planned: PlanCounts, in_flight: int) -> None:
        """Time goes on."""
        for member in self.members:
            member.tick(planned, in_flight)

    def note(self, event: str, message: str, **facts: object) -> None:
        """Something that whoever reads the log at night should know."""
        for member in self.members:
            member.note(event, message, **facts)


def make_progress(run_id: str) -> BarProgress | LineProgress:
    """A bar on a terminal, else JSON lines."""
    console = PlainConsole(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress(run_id)

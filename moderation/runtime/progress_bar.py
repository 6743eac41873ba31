"""The bar of a run on a terminal, in 60 columns: items done, rate, time left, verdicts in their colours."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from moderation.pages.terminal import describe_left, verdict_counts
from moderation.pages.text import escaped
from moderation.runtime.shard_queue import PlanCounts
from moderation.runtime.state import JudgingClock

_QUIET = frozenset({"worker", "search"})  # logged, not shown above the bar


class BarProgress:
    """Named phases (planning, loading, judging), items done, their rate without the start-up, and the time left.

    Faults are printed above the bar.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._pace = JudgingClock(began_s=clock())
        self._items = 0
        self._verdicts: Counter[str] = Counter()
        self._left_s: float | None = None
        self._moved = 0
        self._bar = _BarAndLines(console=console, below=self._below)
        self._task = self._bar.add_task("planning", total=None, planned="")

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """Count a shard and move the bar."""
        self._items += int(receipt["rows_in"])
        for key, count in receipt["counts"].items():
            if key.startswith("verdict:"):
                self._verdicts[key.removeprefix("verdict:")] += count
        self.tick(planned, 0)

    def tick(self, planned: PlanCounts, in_flight: int) -> None:
        """Move the bar. in_flight: items judged of shards that are not committed yet."""
        self._moved = max(self._moved, self._items + in_flight)
        done = min(planned.items, self._moved + planned.committed_items)
        self._left_s = self._pace.left_s(self._moved, planned, self._clock())
        self._bar.update(
            self._task,
            description=self._phase(planned),
            completed=done,
            total=planned.items if planned.ended else None,
            planned=f"{done:,}/{planned.items:,}{'' if planned.ended else '+'} items" if planned.shards else "",
        )

    def note(self, event: str, message: str, **facts: object) -> None:
        """Print a line above the bar."""
        if event == "worker":
            self._pace.note_ready(self._clock())
        if event in _QUIET:
            return
        shown = " ".join(f"{k}={v}" for k, v in facts.items())
        self._console.print(escaped(f"{event}: {message} {shown}".rstrip()), style="yellow")

    def _phase(self, planned: PlanCounts) -> str:
        if not planned.shards:
            return "planning"
        return "loading" if self._pace.startup_s is None else "judging"

    def _below(self) -> Iterable[Text]:
        now_s = self._clock()
        startup_s = self._pace.startup_s
        started = "" if startup_s is None else f" ({_minutes(startup_s)} to start)"
        parts = [f"{_minutes(now_s - self._pace.began_s)} elapsed{started}"]
        rate = self._pace.items_per_s(self._moved, now_s)
        if rate is not None and self._moved:
            parts.append(f"{rate:.1f}/s")
        if self._left_s:
            parts.append(describe_left(self._left_s))
        yield Text(", ".join(parts), style="dim")
        if self._verdicts:
            yield verdict_counts(self._verdicts)


class _BarAndLines(Progress):
    """A bar and lines below it, so that it fits a narrow terminal."""

    def __init__(self, *, console: Console, below: Callable[[], Iterable[Text]]) -> None:
        self._lines_below = below
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[planned]}"))
        super().__init__(*columns, console=console, expand=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from self._lines_below()


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

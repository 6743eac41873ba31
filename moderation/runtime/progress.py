"""What a run says while it runs: a bar on a terminal, else one JSON line per shard; both on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from moderation.runtime.shard_queue import PlanCounts
from moderation.runtime.state import Progress as ProgressProtocol

_QUIET = frozenset({"worker", "search"})  # said in the log, not above the bar


class LineProgress:
    """Structured log: one JSON object per line with time, level, run, event and the ids of what it is about."""

    def __init__(self, run_id: str, stream: IO[str] | None = None) -> None:
        self._run_id = run_id
        self._stream = stream or sys.stderr
        self._began_s = time.monotonic()
        self._items = 0
        self._shards = 0

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """One line: the shard, its rows, its verdicts, its seconds by step, how far the run is."""
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
            done_shards=self._shards + planned.committed_shards,
            planned_shards=planned.shards,
            listing_ended=planned.ended,
            items_per_s=round(self._items / max(time.monotonic() - self._began_s, 1e-6), 2),
        )

    def note(self, event: str, message: str, **facts: object) -> None:
        """One line."""
        self._write("info" if event in ("worker", "run", "done") else "warning", event, message=message, **facts)

    def _write(self, level: str, event: str, **facts: object) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"time": stamp, "level": level, "event": event, "run": self._run_id, **facts}
        self._stream.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
        self._stream.flush()


class BarProgress:
    """A bar with items per second and the time left; what goes wrong is said above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._items = 0
        self._verdicts: Counter[str] = Counter()
        self._began_s: float | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.fields[planned]} items"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[verdicts]}"),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=None, planned="?", rate="", verdicts="")

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """Move the bar."""
        self._items += int(receipt["rows_in"])
        for key, count in receipt["counts"].items():
            if key.startswith("verdict:"):
                self._verdicts[key.removeprefix("verdict:")] += count
        began_s = self._began_s if self._began_s is not None else time.monotonic()
        rate = self._items / max(time.monotonic() - began_s, 1e-6)
        self._bar.update(
            self._task,
            description="judging" if planned.ended else "listing, judging",
            completed=self._items + planned.committed_items,
            total=planned.items if planned.ended else None,
            planned=f"{planned.items}{'' if planned.ended else '+'}",
            rate=f"{rate:.1f}/s" if self._items else "",
            verdicts=" ".join(f"{v} {n}" for v, n in sorted(self._verdicts.items())),
        )

    def note(self, event: str, message: str, **facts: object) -> None:
        """A line above the bar."""
        if event == "worker" and self._began_s is None:
            self._began_s = time.monotonic()
        if event in _QUIET:
            self._bar.update(self._task, description="judging")
            return
        shown = " ".join(f"{k}={v}" for k, v in facts.items())
        self._console.print(f"{event}: {message} {shown}", markup=False, highlight=False, style="yellow")


@dataclass(frozen=True, slots=True)
class ProgressGroup:
    """Tells each of its members."""

    members: tuple[ProgressProtocol, ...]

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        """A shard is committed."""
        for member in self.members:
            member.shard_done(receipt, planned)

    def note(self, event: str, message: str, **facts: object) -> None:
        """Something that the one who reads the log at night should know."""
        for member in self.members:
            member.note(event, message, **facts)


def make_progress(run_id: str) -> BarProgress | LineProgress:
    """A bar where somebody watches, lines where a file does."""
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress(run_id)

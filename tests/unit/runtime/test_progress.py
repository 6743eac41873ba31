"""What a run says while it runs: on a terminal of 60 columns, and in a log."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from rich.console import Console

from moderation.runtime.progress import LineProgress, ProgressGroup
from moderation.runtime.progress_bar import BarProgress
from moderation.runtime.shard_queue import PlanCounts
from moderation.runtime.state import JudgingClock, Stop
from tests.fake_pool import FakeClock


def planned(items: int = 100, *, committed: int = 0, ended: bool = True, shards: int = 4) -> PlanCounts:
    return PlanCounts(
        shards=shards, items=items, size_bytes=0, committed_shards=0, committed_items=committed, ended=ended
    )


def receipt(rows: int = 25, **verdicts: int) -> dict[str, Any]:
    counts = {f"verdict:{name}": count for name, count in verdicts.items()}
    return {"shard_id": "s", "rows_in": rows, "counts": counts, "seconds": {}, "storage_retries": 2}


class Screen:
    """A bar on a terminal of 60 columns."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, width=60, color_system="truecolor")
        self.bar = BarProgress(self.console, self.clock)

    def lines(self) -> list[str]:
        """What stands there now, without colours."""
        plain = Console(file=io.StringIO(), width=60)
        plain.print(self.bar._bar.get_renderable())
        assert isinstance(plain.file, io.StringIO)
        return [line.rstrip() for line in plain.file.getvalue().splitlines()]


def test_the_phases_have_names() -> None:
    screen = Screen()
    screen.bar.tick(planned(0, ended=False, shards=0), 0)
    assert screen.lines()[0].startswith("planning")
    screen.bar.tick(planned(ended=False), 0)
    assert screen.lines()[0].startswith("loading")
    screen.bar.note("worker", "worker ready")
    screen.bar.tick(planned(ended=False), 0)
    assert screen.lines()[0].startswith("judging")
    assert "0/100+ items" in screen.lines()[0]


def test_the_bar_moves_within_a_shard_and_never_back() -> None:
    screen = Screen()
    screen.bar.note("worker", "worker ready")
    screen.bar.tick(planned(), 20)
    assert "20/100 items" in screen.lines()[0]
    # A shard that is run again begins anew; what was seen of it stays.
    screen.bar.tick(planned(), 0)
    assert "20/100 items" in screen.lines()[0]
    screen.bar.shard_done(receipt(25), planned())
    assert "25/100 items" in screen.lines()[0]


def test_the_rate_is_without_the_start_up_and_the_rest_is_told_roughly() -> None:
    screen = Screen()
    screen.clock.now_s += 40
    screen.bar.note("worker", "worker ready")
    assert screen.lines()[1] == "0:40 elapsed (0:40 to start)"
    screen.clock.now_s += 10
    screen.bar.shard_done(receipt(25, block=1, review=4, **{"pass": 20}), planned(1000))
    assert screen.lines()[1] == "0:50 elapsed (0:40 to start), 2.5/s, about 6 min left"
    assert screen.lines()[2] == "block 1  review 4  pass 20"


def test_nothing_is_said_of_the_rest_while_it_is_unknown() -> None:
    screen = Screen()
    screen.bar.note("worker", "worker ready")
    screen.clock.now_s += 10
    screen.bar.shard_done(receipt(25), planned(ended=False))
    assert "left" not in " ".join(screen.lines())


def test_every_line_fits_sixty_columns() -> None:
    screen = Screen()
    screen.bar.note("worker", "worker ready")
    screen.clock.now_s += 36_000
    screen.bar.shard_done(receipt(1_000_000, block=123_456, review=234_567, **{"pass": 641_977}), planned(9_999_999))
    assert max(map(len, screen.lines())) <= 60
    assert len(screen.lines()) == 3
    assert "about 90 h left" in screen.lines()[1]


def test_verdicts_have_their_colours() -> None:
    screen = Screen()
    screen.bar.shard_done(receipt(3, block=1, review=1, **{"pass": 1}), planned())
    screen.console.print(screen.bar._bar.get_renderable())
    shown = screen.file.getvalue()
    assert "\x1b[1;31mblock 1" in shown
    assert "\x1b[32mpass 1" in shown


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_log_has_lines_for_listing_shards_and_minutes() -> None:
    stream, clock = io.StringIO(), FakeClock()
    lines = LineProgress("run", stream, clock)
    lines.tick(planned(ended=False), 0)
    clock.now_s += 30
    lines.note("worker", "worker ready")
    lines.tick(planned(), 5)
    lines.tick(planned(), 5)
    lines.shard_done(receipt(25), planned())
    clock.now_s += 30
    lines.tick(planned(), 5)
    lines.tick(planned(), 5)
    events = read(stream)
    assert [line["event"] for line in events] == ["worker", "listed", "shard", "minute"]
    minute = events[-1]
    assert (minute["done_items"], minute["startup_s"], minute["items_per_s"], minute["left_s"]) == (30, 30.0, 1.0, 70)
    assert events[2]["storage_retries"] == 2
    assert all(line["level"] == "info" for line in events)


def test_what_the_library_logs_is_a_line_of_the_log() -> None:
    stream = io.StringIO()
    with LineProgress("run", stream):
        logging.getLogger("moderation.storage.retry").warning("%s: %d retries", "s3://b", 3)
    logging.getLogger("moderation.storage.retry").warning("not in it")
    (line,) = read(stream)
    assert (line["event"], line["level"], line["message"]) == ("log", "warning", "s3://b: 3 retries")


def test_a_group_tells_each_member() -> None:
    streams = [io.StringIO(), io.StringIO()]
    group = ProgressGroup(tuple(LineProgress("run", stream) for stream in streams))
    group.tick(planned(), 0)
    group.note("stopping", "soon")
    group.shard_done(receipt(), planned())
    assert [line["event"] for line in read(streams[0])] == ["listed", "stopping", "shard"]
    assert len(read(streams[1])) == 3


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("SIGINT", "SIGINT: shards in flight are finished, at most 60 s; Ctrl-C again stops at once; the same command"),
        ("SIGTERM", "SIGTERM: shards in flight are finished, at most 60 s; the same command goes on later"),
        ("enough", "as much as was asked for is judged; shards in flight are finished"),
    ],
)
def test_a_request_to_stop_says_once_what_happens(reason: str, said: str) -> None:
    stream = io.StringIO()
    lines = LineProgress("run", stream)
    stop = Stop()
    stop.tell(lines, 60.0)
    stop.request(reason, 60.0)
    stop.tell(lines, 60.0)
    stop.tell(lines, 60.0)
    (line,) = read(stream)
    assert line["message"].startswith(said)


def test_the_first_worker_ends_the_start_up() -> None:
    pace = JudgingClock(began_s=10.0)
    assert pace.startup_s is None
    assert pace.items_per_s(5, 20.0) is None
    pace.note_ready(15.0)
    pace.note_ready(18.0)
    assert pace.startup_s == 5.0
    assert pace.items_per_s(10, 20.0) == 2.0
    assert pace.left_s(10, planned(30, committed=10), 20.0) == 5.0

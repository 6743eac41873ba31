"""The driver's loop with real processes of this machine: deaths, hangs and full memory cost nobody but the guilty."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import pytest

from moderation.config.model import RuntimeConfig
from moderation.errors import FatalError
from moderation.runtime import driver
from moderation.runtime.driver import drive
from moderation.runtime.process_pool import ProcessWorkerPool
from moderation.runtime.shard_queue import ShardQueue
from moderation.runtime.sizing import WorkerSize
from moderation.runtime.state import RunTally, Stop
from moderation.runtime.worker_pool import WorkerAnswer, WorkerHandle
from moderation.types import ErrorCode, Shard
from tests.scripted_task import ScriptedTask, shard_of
from tests.unit.runtime.test_driver import EventLog

# Each death costs a start, which takes a second of a processor.
pytestmark = pytest.mark.long


def drive_processes(
    shards: Sequence[Shard],
    task: ScriptedTask,
    *,
    make: Callable[..., ProcessWorkerPool] = ProcessWorkerPool,
    limit_s: float = 120.0,
    **options: object,
) -> tuple[RunTally, EventLog, dict[str, ErrorCode]]:
    config = RuntimeConfig.model_validate({"pool": "processes", "workers": 1, "num_cpus": 1, **options})
    pool, log = make(task=task, config=config), EventLog()
    queue = ShardQueue(lambda: iter(shards), set(), 10)
    poison: dict[str, ErrorCode] = {}

    def keep(found: object) -> None:
        poison.update({name: error.code for name, error in dict(found).items()})  # type: ignore[call-overload]

    stop = Stop()
    timer = threading.Timer(limit_s, lambda: stop.request("the test took too long", 0.0))
    timer.start()
    try:
        tally = drive(pool, queue, config, log, stop, keep_poison=keep)
    finally:
        timer.cancel()
    assert not pool.workers and not tally.partial
    return tally, log, poison


def test_an_item_that_kills_is_set_aside_with_its_signal_and_its_neighbours_are_judged() -> None:
    shards = [shard_of("ok", "SIGSEGV", "ok", shard_id="bad"), shard_of("ok", "ok", shard_id="good")]
    tally, log, poison = drive_processes(shards, ScriptedTask())
    assert log.shards == {"bad": 1, "good": 1} and tally.items == 5
    assert poison == {"bad-1": ErrorCode.DECODER_CRASHED}
    assert "shard died SIGSEGV" in log.messages("shard_retry")
    assert set(log.messages("worker_lost")) == {"worker died"}


def test_an_item_that_hangs_is_found_by_the_watchdog() -> None:
    tally, log, poison = drive_processes([shard_of("hang", "ok")], ScriptedTask(), shard_timeout_s=2, shard_attempts=1)
    assert log.shards == {"s": 1} and tally.items == 2
    assert poison == {"s-0": ErrorCode.TIMEOUT}
    assert set(log.messages("worker_lost")) == {"worker hung and was killed"}


def test_a_shard_that_is_too_much_at_once_is_judged_whole_in_steps() -> None:
    tally, log, poison = drive_processes([shard_of("ok", "ok", "ok")], ScriptedTask(too_many=3), shard_attempts=1)
    assert log.shards == {"s": 1} and tally.items == 3 and poison == {}
    assert log.messages("search") == ["run of 3 items (small memory): done"]


def test_a_task_that_never_loads_ends_the_run_with_its_last_words() -> None:
    with pytest.raises(FatalError, match=r"5 workers in a row did not start; the last: .* SIGABRT: about to meet"):
        drive_processes([shard_of("ok")], ScriptedTask(load="SIGABRT"))


def test_a_worker_that_is_started_after_many_calls_becomes_ready() -> None:
    """Its calls have numbers that Python does not keep as one object each."""
    made = partial(ProcessWorkerPool, _numbers=count(1000))
    tally, log, _ = drive_processes([shard_of("ok", "SIGSEGV", shard_id="s")], ScriptedTask(), make=made)
    assert tally.items == 2 and log.shards == {"s": 1}


class _LookingLate(ProcessWorkerPool):
    """Hears of a shard that failed and of one that is done at once."""

    late_s = 1.5

    def wait(self, timeout_s: float) -> list[WorkerAnswer]:
        if any(worker.assignments for worker in self.workers):
            time.sleep(self.late_s)
            type(self).late_s = 0.0
        return ProcessWorkerPool.wait(self, timeout_s)


def test_a_shard_that_is_done_is_not_done_again_because_another_one_failed() -> None:
    shards = [shard_of("item", "ok", shard_id="bad"), shard_of("ok", shard_id="good")]
    tally, log, _ = drive_processes(shards, ScriptedTask(), make=_LookingLate, shards_in_flight=2)
    assert log.shards["good"] == 1 and "neighbour" not in tally.retries


class _Frozen(ProcessWorkerPool):
    """Its processes stand still before they say where they are."""

    def _start(self, size: WorkerSize) -> WorkerHandle:
        worker = ProcessWorkerPool._start(self, size)
        os.kill(worker.actor.pid, signal.SIGSTOP)
        return worker


def test_a_process_that_hangs_before_it_answers_is_a_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LOAD_TIMEOUT_S", 1.0)
    with pytest.raises(FatalError, match="not loaded after 1 s"):
        drive_processes([shard_of("ok")], ScriptedTask(), make=_Frozen, limit_s=30)

"""The pool of plain processes: real ones, with a task that needs no torch; how each of their ends is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from moderation.config.model import RuntimeConfig
from moderation.errors import FatalError, ItemError, ShardError, UsageError
from moderation.runtime.assigning import assign_shard
from moderation.runtime.machine import WorkerShare
from moderation.runtime.process_channel import WorkerEndedError
from moderation.runtime.process_pool import ProcessWorkerPool
from moderation.runtime.worker_pool import WorkerAnswer, WorkerHandle
from moderation.storage import StorageError
from tests.job_runs import REPOSITORY, is_running
from tests.scripted_task import ScriptedTask, shard_of

CONFIG = RuntimeConfig(pool="processes", workers=1, num_cpus=1)


@pytest.fixture
def pool() -> Iterator[ProcessWorkerPool]:
    made = ProcessWorkerPool(task=ScriptedTask(), config=CONFIG)
    yield made
    made.close()


def answers(pool: ProcessWorkerPool, wanted: int, timeout_s: float = 60.0) -> list[WorkerAnswer]:
    told: list[WorkerAnswer] = []
    until_s = time.monotonic() + timeout_s
    while len(told) < wanted and time.monotonic() < until_s:
        told += pool.wait(0.5)
    assert len(told) == wanted, told
    return told


def start(pool: ProcessWorkerPool) -> WorkerHandle:
    """A worker that has loaded, as the driver leaves it."""
    pool.fill(1)
    (worker,) = pool.workers
    placed, loaded = sorted(answers(pool, 2), key=lambda answer: answer.call)
    assert (placed.call, loaded.call) == (worker.placing, worker.loading)
    worker.facts = dict(loaded.value)
    worker.placing = worker.loading = None
    return worker


def run(pool: ProcessWorkerPool, worker: WorkerHandle, *fates: str) -> WorkerAnswer:
    pool.submit(worker, assign_shard(shard_of(*fates), CONFIG, 0.0, decode_s=60.0))
    (answer,) = answers(pool, 1)
    worker.assignments.clear()
    return answer


def test_a_worker_tells_what_it_is_and_errors_arrive_as_they_were_raised(pool: ProcessWorkerPool) -> None:
    worker = start(pool)
    pid = worker.facts["pid"]
    assert pid != os.getpid() and pid == worker.actor.pid
    assert (worker.facts["openmp"], worker.facts["gpus"], worker.facts["gpu_ids"]) == ("1", "", [])
    done = run(pool, worker, "ok", "ok")
    assert (done.ending, done.value["rows_in"]) == ("done", 2)
    assert done.value["worker"] == f"{worker.facts['node'][:12]}/{pid}"
    for fate, kind in (("item", ItemError), ("storage", StorageError), ("fatal", FatalError), ("leaves", SystemExit)):
        raised = run(pool, worker, fate)
        assert (raised.ending, type(raised.error)) == ("raised", kind), fate
    # No shard of a stranger's error ends the run: what cannot be made again here arrives as text.
    told = run(pool, worker, "own arguments")
    assert (told.ending, type(told.error)) == ("raised", ShardError)
    assert "OwnArgumentsError: bad: really" in told.detail


@pytest.mark.parametrize(
    ("fate", "ended_by"),
    [("SIGSEGV", "SIGSEGV"), ("SIGKILL", "SIGKILL"), ("exit 3", "exit code 3"), ("half", "SIGKILL")],
)
def test_a_worker_that_is_gone_is_told_with_how_it_ended(pool: ProcessWorkerPool, fate: str, ended_by: str) -> None:
    worker = start(pool)
    answer = run(pool, worker, fate)
    assert (answer.ending, answer.ended_by, type(answer.error)) == ("died", ended_by, WorkerEndedError)
    assert ended_by in answer.detail and ("about to meet" in answer.detail) == fate.startswith("SIG")
    # A driver that does not know yet may still ask: it is told again.
    assert run(pool, worker, "ok").ending == "died"
    pool.remove(worker)
    assert not pool.workers and not is_running(worker.actor.pid)


def test_removing_a_worker_that_hangs_ends_what_it_has_started(pool: ProcessWorkerPool) -> None:
    worker = start(pool)
    child = run(pool, worker, "child").value["told"][0]
    pool.submit(worker, assign_shard(shard_of("ok", "hang"), CONFIG, 0.0, decode_s=60.0))
    until_s = time.monotonic() + 30
    while pool.items_in_flight() != 1 and time.monotonic() < until_s:
        pool.wait(0.2)
    assert pool.items_in_flight() == 1  # told by another thread than that which hangs
    assert is_running(child)
    pool.remove(worker)
    assert not is_running(worker.actor.pid)
    until_s = time.monotonic() + 10
    while is_running(child) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert not is_running(child)
    assert pool.items_in_flight() == 0 and pool.wait(0.1) == []


def test_workers_end_with_a_driver_that_is_killed() -> None:
    program = (
        "import time\n"
        "from moderation.runtime.process_pool import ProcessWorkerPool\n"
        "from tests.unit.runtime.test_process_pool import CONFIG\n"
        "from tests.scripted_task import ScriptedTask\n"
        "pool = ProcessWorkerPool(task=ScriptedTask(), config=CONFIG)\n"
        "pool.fill(1)\n"
        "print(pool.workers[0].actor.pid, flush=True)\n"
        "time.sleep(3600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        assert is_running(pid)
        driver.send_signal(signal.SIGKILL)
    until_s = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert not is_running(pid)


def test_a_load_that_fails_is_told_as_what_was_raised() -> None:
    pool = ProcessWorkerPool(task=ScriptedTask(load="fatal"), config=CONFIG)
    try:
        pool.fill(1)
        told = {answer.ending: answer for answer in answers(pool, 2)}
        assert type(told["raised"].error) is FatalError and told["done"].call == pool.workers[0].placing
    finally:
        pool.close()


def test_this_machine_holds_no_more_workers_than_it_has_cores_and_says_where_it_holds_none() -> None:
    resources = {"CPU": 4.0}
    assert WorkerShare.of(RuntimeConfig(workers=9, num_cpus=2), resources).workers == 2
    assert WorkerShare.of(RuntimeConfig(workers=8), resources).workers == 8  # half a core each
    assert WorkerShare.of(RuntimeConfig(), resources).size.threads == 4
    with pytest.raises(UsageError, match=r"runtime\.num_cpus is 8, and this machine has 4"):
        WorkerShare.of(RuntimeConfig(num_cpus=8), resources)
    with pytest.raises(UsageError, match=r"runtime\.num_gpus is 1, and this machine has 0"):
        WorkerShare.of(RuntimeConfig(num_gpus=1, num_cpus=1), resources)

"""A run begun on a cluster and gone on with by processes of one machine; killed, stopped, and the same bytes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.job_runs import JobProcess, job_env, log_lines, make_pictures, make_tiny_config, part_bytes, run_job, summary

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long, pytest.mark.usefixtures("ray_cluster")]

PROCESSES = ["--set", "runtime.pool=processes"]


def pids(job: JobProcess) -> list[int]:
    return [line["pid"] for line in log_lines(job.stderr, "worker")]


def wait_for(job: JobProcess, event: str, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(log_lines(job.stderr, event)) < count and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(log_lines(job.stderr, event)) >= count, job.stderr


def wait_until_gone(*gone: int) -> None:
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in gone) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in gone if psutil.pid_exists(pid)]


def record(out: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads((out / "run.json").read_text())
    return told


def test_a_run_goes_on_by_processes_through_killed_workers_and_drivers_to_the_same_bytes(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 80)
    config = make_tiny_config(tmp_path / "config", slow_s=0.05)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_job("backfill", folder, "--out", whole, "--config", config).returncode == 0
    command = ["backfill", folder, "--out", out, "--config", config]
    assert run_job(*command, "--max-items", "8").returncode == 5
    assert record(out)["pool"] == "ray"
    with JobProcess(*command, *PROCESSES, env=job_env()) as job:
        wait_for(job, "worker", 1)
        os.kill(pids(job)[0], signal.SIGKILL)
        wait_for(job, "worker", 2)
        wait_for(job, "shard", 1)
        job.kill()
        job.wait()
        wait_until_gone(*pids(job))
        assert [line["message"] for line in log_lines(job.stderr, "worker_lost")] == ["worker died"]
    ended = run_job(*command, *PROCESSES)
    assert ended.returncode == 0, ended.stderr
    assert part_bytes(out) == part_bytes(whole)
    assert (summary(out)["pool"], record(out)["pool"]) == ("processes", "processes")
    assert summary(out)["run_id"] == summary(whole)["run_id"]


def test_ctrl_c_finishes_what_is_in_flight_and_again_stops_at_once(tmp_path: Path) -> None:
    folder, gate = make_pictures(tmp_path / "in", 16), tmp_path / "gate"
    config = make_tiny_config(tmp_path / "config", waits_for=str(gate))
    command = ["backfill", folder, "--out", tmp_path / "out", "--config", config, *PROCESSES]
    with JobProcess(*command, env=job_env()) as job:
        wait_for(job, "worker", 1)
        job.interrupt()
        wait_for(job, "stopping", 1)
        assert psutil.pid_exists(pids(job)[0])
        job.interrupt()
        assert job.wait(60) == 5, job.stderr
        wait_until_gone(*pids(job))
        assert "Traceback" not in job.stderr
    assert summary(tmp_path / "out")["stopped_by"] == "SIGINT"

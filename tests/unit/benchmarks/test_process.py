"""A command in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from benchmarks.peers.process import run_measured

# A child that would live for a minute, and the number of it.
_PARENT = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print(child.pid, flush=True); time.sleep(60)"
)


def test_a_command_over_its_limit_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    # Long enough for a second sample of memory, also while other tests keep the cores busy.
    outcome = run_measured([sys.executable, "-c", _PARENT], limit_s=4.0, env={}, logs=tmp_path)
    assert outcome.code is None
    assert outcome.failure() == f"not done after {outcome.seconds:.0f} s"
    assert outcome.peak_bytes > 2**20
    child = int(outcome.stdout)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_failure_is_told_by_the_last_line_of_its_errors(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('a', file=sys.stderr); sys.exit('the reason')"]
    outcome = run_measured(command, limit_s=30, env={}, logs=tmp_path)
    assert outcome.failure() == "exit code 1: the reason"

"""A batch that never comes back ends its process; one that does leaves no timer behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# What hangs holds the interpreter, too: a regular expression that never ends.
HANGS = "import re; re.match('(a|a|a)*b', 'a' * 60)"


def run(code: str) -> subprocess.CompletedProcess[str]:
    before = "from moderation.runtime.watched_device import WatchedDevice\nimport signal, time\n"
    command = [sys.executable, "-c", before + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_batch_that_hangs_ends_the_process_and_says_where_it_stood() -> None:
    ended = run(f"with WatchedDevice(0.2):\n    {HANGS}")
    assert ended.returncode == -signal.SIGALRM
    assert "most recent call first" in ended.stderr and "re/__init__.py" in ended.stderr


def test_afterwards_nothing_is_timed() -> None:
    ended = run("with WatchedDevice(0.2):\n    pass\ntime.sleep(1.5)\nprint(signal.getitimer(signal.ITIMER_REAL)[0])")
    assert (ended.returncode, ended.stdout.strip()) == (0, "0.0"), ended.stderr


def test_an_alarm_that_was_set_goes_on() -> None:
    ended = run("signal.alarm(1)\nwith WatchedDevice(30):\n    time.sleep(0.1)\ntime.sleep(5)")
    assert ended.returncode == -signal.SIGALRM
    within = run("signal.alarm(1)\nwith WatchedDevice(30):\n    time.sleep(5)")
    assert within.returncode == -signal.SIGALRM

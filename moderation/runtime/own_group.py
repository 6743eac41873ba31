"""Processes that end together: with the one that started them, and with their own children."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def be_killed_first() -> None:
    """Where memory runs out, have the kernel end this process before others: it can be replaced. Ray does the same."""
    with suppress(OSError):  # Linux alone
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def kill_group(leader: int) -> None:
    """SIGKILL to a process that leads a group of its own, and to all that it has started."""
    with suppress(ProcessLookupError, PermissionError):  # all gone; macOS says so of zombies
        os.killpg(leader, signal.SIGKILL)


def kill_own_group() -> None:
    """End this process and all that it has started, at once. Does not return."""
    if os.getpgrp() == os.getpid():  # else it was started by hand, in the group of a shell
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def describe_exit(status: int) -> str:
    """How a process ended, from its `returncode`: the name of a signal, or its exit code."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"

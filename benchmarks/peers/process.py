"""A command in a process of its own: its time, its output, and the most memory of it and all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
# Reading a process's shares of pages takes the kernel milliseconds a gigabyte: once a second costs below 1%.
SAMPLE_S = 1.0
_WAIT_S = 0.05
# A pipeline that takes more of the machine's memory is ended before the kernel ends somebody else's process.
MEMORY_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutcome:
    """How a command ended.

    peak_bytes: of the process tree, a page that several map divided among them. code: None where the time was over or
    the memory too much, and all was killed: `stopped` says why.
    """

    seconds: float
    peak_bytes: int
    code: int | None
    stopped: str
    stdout: str
    stderr: str

    def failure(self) -> str:
        """What went wrong in a line; empty where nothing did."""
        if self.code == 0:
            return ""
        if self.code is None:
            return self.stopped
        lines = [line for line in self.stderr.splitlines() if line.strip()] or ["no message"]
        return f"exit code {self.code}: {lines[-1].strip()[:300]}"


def run_measured(command: Sequence[str], *, limit_s: float, env: Mapping[str, str], logs: Path) -> CommandOutcome:
    """Run to the end or to the limit; what the tree still has then is killed. logs: a folder for its two outputs."""
    logs.mkdir(parents=True, exist_ok=True)
    out, err = logs / "stdout", logs / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        began_s = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=REPOSITORY, env={**os.environ, **env}, stdout=stdout, stderr=stderr, start_new_session=True
        )
        seen: dict[int, psutil.Process] = {}
        try:
            peak = _watch(child, began_s + limit_s, seen)
            seconds = time.perf_counter() - began_s
            code = child.poll()
            stopped = _describe_stop(peak, seconds) if code is None else ""
        finally:  # Ctrl-C does not reach a process of another session
            seen.update((process.pid, process) for process in _tree(child.pid))
            _kill(seen)
            child.wait()
    return CommandOutcome(
        seconds=seconds,
        peak_bytes=peak,
        code=code,
        stopped=stopped,
        stdout=out.read_text(errors="replace"),
        stderr=err.read_text(errors="replace"),
    )


def _watch(child: subprocess.Popen[bytes], ends_s: float, seen: dict[int, psutil.Process]) -> int:
    """The peak of the tree's memory until it ends or the time is over; every process that it had goes into `seen`."""
    peak, next_s = 0, time.perf_counter()
    while child.poll() is None and time.perf_counter() < ends_s and peak < _most_bytes():
        if time.perf_counter() >= next_s:
            tree = _tree(child.pid)
            seen.update((process.pid, process) for process in tree)
            peak = max(peak, sum(_share_of_pages(process.pid) for process in tree))
            next_s = time.perf_counter() + SAMPLE_S
        time.sleep(_WAIT_S)
    return peak


def _most_bytes() -> float:
    return MEMORY_SHARE * psutil.virtual_memory().total


def _describe_stop(peak: int, seconds: float) -> str:
    if peak >= _most_bytes():
        return f"took {peak / 2**30:.1f} GiB, over {MEMORY_SHARE:.0%} of the machine's memory"
    return f"not done after {seconds:.0f} s"


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _share_of_pages(pid: int) -> int:
    """Bytes in memory, shared ones divided among those who map them; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return _resident(pid)
    shares = [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
    return shares[0] * 1024 if shares else 0


def _resident(pid: int) -> int:
    """Where the kernel tells no shares: all that is resident."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _kill(seen: Mapping[int, psutil.Process]) -> None:
    """End what is left. psutil compares start times, so that a number used again is nobody else's process."""
    left = [process for process in seen.values() if process.is_running()]
    for process in left:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
    psutil.wait_procs(left, timeout=10)

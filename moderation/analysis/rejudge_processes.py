"""Processes of this machine that rejudge parts: `python -m moderation.analysis.rejudge_processes`.

A process reads the settings from its first line of input, then portions of part ids, one per line, and answers each
with a line. When its parent is gone, its input ends and so does the process. Plain processes instead of a pool of
`multiprocessing`, which would import the caller's script a second time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from moderation.analysis.rejudge_parts import rejudge_shards, use_one_core
from moderation.errors import FatalError, ModerationError, UsageError, one_line

_MODULE = "moderation.analysis.rejudge_processes"


def judge_by_processes(told: str, chunks: Sequence[Sequence[str]], processes: int) -> None:
    """Have all portions judged and committed. Raises the error of a process: UsageError, FatalError."""
    waiting, lock, failed = iter(chunks), threading.Lock(), threading.Event()

    def feed(_: int) -> None:
        with _RejudgeProcess(told) as process:
            for chunk in _locked(waiting, lock, failed):
                try:
                    _ask(process, chunk)
                except BaseException:
                    failed.set()
                    raise

    with ThreadPoolExecutor(processes, "rejudge") as pool:
        for _ in pool.map(feed, range(processes)):
            pass


class _RejudgeProcess:
    """A process that has the settings; ended when the block ends."""

    def __init__(self, told: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        self.say(told)

    def __enter__(self) -> _RejudgeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def say(self, line: str) -> None:
        """Send a line. Raises FatalError where nobody reads it any more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def hear(self) -> str:
        """The answer. Raises FatalError where the process died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._gone()
        return line.decode()

    def _gone(self) -> FatalError:
        status = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2]
        return FatalError(f"a process that rejudges parts ended with status {status}: {last[:300] or 'no message'}")


def _ask(process: _RejudgeProcess, chunk: Sequence[str]) -> None:
    process.say(json.dumps(list(chunk)))
    answer = json.loads(process.hear())
    if answer.get("error"):
        kind = UsageError if answer["usage"] else FatalError
        raise kind(answer["error"])


def _locked(chunks: Iterator[Sequence[str]], lock: threading.Lock, failed: threading.Event) -> Iterator[Sequence[str]]:
    """The remaining portions, taken by several threads; none after a failure."""
    while not failed.is_set():
        with lock:
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def main(lines: IO[str], answers: IO[str]) -> None:
    """Judge portion after portion until the input ends."""
    use_one_core()
    told = lines.readline()
    for line in lines:
        try:
            answer: dict[str, object] = {"parts": rejudge_shards(told, json.loads(line))}
        except ModerationError as error:
            answer = {"error": one_line(error, 1000), "usage": isinstance(error, UsageError)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)

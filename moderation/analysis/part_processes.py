"""Processes of this machine that work on stored parts: `python -m MODULE`, where MODULE calls `serve`.

A process reads its settings from its first line of input, then portions of work, one JSON value per line, and answers
each with a line. When its parent is gone, its input ends and so does the process. Plain processes instead of a pool of
`multiprocessing`, which would import the caller's script a second time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import pyarrow as pa

from moderation.errors import FatalError, ModerationError, UsageError, one_line
from moderation.lean_imports import leave_pandas_out


def work_by_processes(
    module: str, told: str, portions: Iterable[Any], processes: int, *, what: str = "works on parts"
) -> list[Any]:
    """Have all portions done by processes that run `module`; returns their answers, in the order of the portions.

    portions: each is taken when a process is free for it. told: the settings, one line. what: what a process does, for
    the message about one that died. Raises the error of a process: UsageError, FatalError.
    """
    waiting, lock, failed = iter(enumerate(portions)), threading.Lock(), threading.Event()
    answers: dict[int, Any] = {}

    def feed(_: int) -> None:
        with _PartProcess(module, told, what) as process:
            for place, portion in _locked(waiting, lock, failed):
                try:
                    answers[place] = _ask(process, portion)
                except BaseException:
                    failed.set()
                    raise

    with ThreadPoolExecutor(processes, "parts") as pool:
        for _ in pool.map(feed, range(processes)):
            pass
    return [answers[place] for place in sorted(answers)]


class _PartProcess:
    """A process that has the settings; ended when the block ends."""

    def __init__(self, module: str, told: str, what: str) -> None:
        self._what = what
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        self.say(told)

    def __enter__(self) -> _PartProcess:
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
        return FatalError(f"a process that {self._what} ended with status {status}: {last[:300] or 'no message'}")


def _ask(process: _PartProcess, portion: object) -> Any:  # noqa: ANN401 - what the module answers
    process.say(json.dumps(portion))
    answer = json.loads(process.hear())
    if answer.get("error"):
        kind = UsageError if answer["usage"] else FatalError
        raise kind(answer["error"])
    return answer["done"]


def _locked(
    portions: Iterator[tuple[int, Any]], lock: threading.Lock, failed: threading.Event
) -> Iterator[tuple[int, Any]]:
    """The remaining portions, taken by several threads; none after a failure."""
    while not failed.is_set():
        with lock:
            portion = next(portions, None)
        if portion is None:
            return
        yield portion


def serve(begin: Callable[[str], Callable[[Any], object]], lines: IO[str], answers: IO[str]) -> None:
    """Do portion after portion until the input ends. begin: makes the worker from the settings, on the first portion.

    An error of this package is answered; the process goes on.
    """
    use_one_core()
    leave_pandas_out()
    told = lines.readline()
    work: Callable[[Any], object] | None = None
    for line in lines:
        try:
            work = work or begin(told)
            answer: dict[str, object] = {"done": work(json.loads(line))}
        except ModerationError as error:
            answer = {"error": one_line(error, 1000), "usage": isinstance(error, UsageError)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def use_one_core() -> None:
    """Limit Arrow's threads, which are as many as the machine's cores: each of several processes has one core."""
    pa.set_cpu_count(1)

"""A worker process as its driver sees it: started, told, listened to, ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import IO, Any, Final

from moderation.errors import FatalError, one_line
from moderation.runtime.messages import MethodAnswer, MethodCall, WorkerSetup, pack, unpack
from moderation.runtime.own_group import describe_exit, kill_group

# How soon the end of a process is noticed whose pipe somebody still holds, such as a child that it has forked.
_LOOK_EVERY_S: Final = 0.2
# From the end of the pipe to that of the process; one that only closed its pipe is killed then.
_END_S: Final = 1.0
# A process in a system call that cannot be broken off outlives SIGKILL; it is not waited for any longer.
_REAP_S: Final = 5.0
# A receipt takes kilobytes; a length beyond this is that of a process whose memory is broken.
_MAX_ANSWER_BYTES: Final = 1 << 30
_LAST_WORDS_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnd:
    """A process is gone. ended_by: a signal, or an exit code. detail: one line, with what it last wrote to stderr."""

    ended_by: str
    detail: str


class WorkerEndedError(Exception):
    """The error of a call whose process is gone."""


class ProcessChannel:
    """One worker process: `ask` sends it calls, `tell` is called with its answers and, last, its end.

    Two threads: a process that hangs, or dies within a message, holds up nobody else.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        environment: Mapping[str, str],
        tell: Callable[[ProcessChannel, MethodAnswer | ProcessEnd], None],
    ) -> None:
        """Raises FatalError where this machine starts no more processes."""
        ours, theirs = Pipe(duplex=True)
        # -P: the folder that the driver was called in may hold modules of anybody.
        command = [sys.executable, "-P", "-m", "moderation.runtime.worker_process", str(theirs.fileno())]
        try:
            self._popen: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # A group of its own: Ctrl-C is for the driver alone, and its end is that of its children.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise FatalError(f"a worker process does not start on this machine: {one_line(error)}") from error
        finally:
            theirs.close()
        self.gpu_ids = setup.place.gpu_ids
        self._connection = ours
        self._tell = tell
        self._calls: SimpleQueue[bytes | None] = SimpleQueue()
        self._last_words = b""
        self.end: ProcessEnd | None = None
        self._calls.put(pack(setup))
        self._writer = threading.Thread(target=self._write, name="worker-calls", daemon=True)
        self._reader = threading.Thread(target=self._listen, name="worker-answers", daemon=True)
        self._writer.start()
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._popen.pid

    def ask(self, call: MethodCall) -> None:
        """Send a call; never waits for the process."""
        self._calls.put(pack(call))

    def kill(self) -> None:
        """End the process and all that it has started, and wait until it is gone."""
        if self._popen.returncode is None:
            kill_group(self.pid)
        self._reader.join(_REAP_S)

    def _write(self) -> None:
        with suppress(OSError):  # it is gone, which `_listen` reports
            while (message := self._calls.get()) is not None:
                self._connection.send_bytes(message)

    def _listen(self) -> None:
        stderr = self._popen.stderr
        assert stderr is not None
        sources: list[Any] = [self._connection, stderr]
        with suppress(Exception):  # the end of the pipe, maybe within a message, or one that is none of ours
            while self._popen.poll() is None:
                self._read(sources, _LOOK_EVERY_S)
            while wait([self._connection], 0):
                self._take_answer()
        self._reap()
        self._hear_last_words(stderr)
        self._calls.put(None)
        self._writer.join()
        self._connection.close()
        stderr.close()
        self.end = self._describe_end()
        self._tell(self, self.end)

    def _read(self, sources: list[Any], timeout_s: float) -> None:
        for source in wait(sources, timeout_s):
            if isinstance(source, Connection):
                self._take_answer()
            elif words := os.read(source.fileno(), _LAST_WORDS_BYTES):  # type: ignore[union-attr] # a file, see above
                self._last_words = (self._last_words + words)[-_LAST_WORDS_BYTES:]
            else:
                sources.remove(source)

    def _take_answer(self) -> None:
        answer: MethodAnswer = unpack(self._connection.recv_bytes(_MAX_ANSWER_BYTES))
        self._tell(self, answer)

    def _reap(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_END_S)
        kill_group(self.pid)  # itself, or what it has left behind
        self._popen.wait()

    def _hear_last_words(self, stderr: IO[bytes]) -> None:
        with suppress(OSError):
            while wait([stderr.fileno()], 0) and (words := os.read(stderr.fileno(), _LAST_WORDS_BYTES)):
                self._last_words = (self._last_words + words)[-_LAST_WORDS_BYTES:]

    def _describe_end(self) -> ProcessEnd:
        ended_by = describe_exit(self._popen.returncode)
        lines = self._last_words.decode("utf-8", "replace").strip().splitlines()
        said = f": {' '.join(lines[-1].split())[:200]}" if lines else ""
        return ProcessEnd(ended_by=ended_by, detail=f"the worker process ended by {ended_by}{said}")

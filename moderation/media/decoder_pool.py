"""Decoding in separate processes: each decoding thread owns one and starts another when it is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.limits import MemberLimits
from moderation.media.objects import Payload
from moderation.media.wire import receive_media, send_request
from moderation.types import ErrorCode, Item, Kind, Media

# The variables of the worker's environment that a decoder needs; no credentials.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
# Freed pictures stay in the process, as in a worker (see runtime.worker.MALLOC_ENV).
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}
# A decoder stops at the item's deadline by itself; native code may prevent that, then it is killed.
_LATE_S = 5.0
_START_S = 60.0


class DecoderPool:
    """`decode()` works like `media.decode_item`, in a process owned by the calling thread."""

    def __init__(self, config: MediaConfig, memory_bytes: int) -> None:
        self._config = config
        self._memory_bytes = memory_bytes
        self._own = threading.local()
        self._processes: weakref.WeakSet[DecoderProcess] = weakref.WeakSet()

    def decode(self, item: Item, payloads: Sequence[Payload], limits: MemberLimits | None = None) -> Media:
        """The frames of an item, or why there are none; a lost process costs this item only."""
        process: DecoderProcess | None = getattr(self._own, "process", None)
        if process is None or not process.alive:
            process = self._own.process = DecoderProcess(self._config, self._memory_bytes)
            self._processes.add(process)
        try:
            return process.decode(item, payloads, limits)
        except ItemError as error:
            process.close()
            return Media(kind=item.kind or Kind.UNKNOWN, error=error.code, error_detail=error.detail)

    def close(self) -> None:
        """End all processes; items being decoded are lost."""
        for process in list(self._processes):
            process.close()


class DecoderProcess:
    """One decoder process, used by one thread at a time."""

    def __init__(self, config: MediaConfig, memory_bytes: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        settings = json.dumps({"media": config.model_dump(mode="json"), "memory_bytes": memory_bytes})
        command = [sys.executable, "-P", "-m", "moderation.media.decoder_process", str(theirs.fileno()), settings]
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment = {**kept, **_MALLOC, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        theirs.close()
        self._socket = ours
        self._timeout_s = config.decode_timeout_s
        self._answered = False
        # The process ends when this object is collected, at the latest with the interpreter.
        self._finalizer = weakref.finalize(self, _end, self._process, ours)

    @property
    def alive(self) -> bool:
        """Whether it can decode."""
        return self._finalizer.alive and self._process.poll() is None

    def decode(self, item: Item, payloads: Sequence[Payload], limits: MemberLimits | None = None) -> Media:
        """Raises ItemError when the process is lost: TIMEOUT, OUT_OF_MEMORY, DECODER_CRASHED."""
        began_s = time.monotonic()
        start_s = 0.0 if self._answered else _START_S
        self._socket.settimeout(self._timeout_s + _LATE_S + start_s)
        try:
            send_request(self._socket, item, payloads, limits)
            media = receive_media(self._socket)
        except TimeoutError as error:
            raise ItemError(ErrorCode.TIMEOUT, f"decoding took more than {self._timeout_s:g} s") from error
        except (OSError, ValueError) as error:
            raise self._lost() from error
        if media is None:
            raise self._lost()
        self._answered = True
        if media.error is ErrorCode.TIMEOUT or time.monotonic() - began_s > self._timeout_s + start_s:
            # A native call may still run in an abandoned thread: do not use this process again.
            self.close()
        return media

    def close(self) -> None:
        """End the process."""
        self._finalizer()

    def _lost(self) -> ItemError:
        try:
            code = self._process.wait(timeout=_LATE_S)
        except subprocess.TimeoutExpired:
            return ItemError(ErrorCode.DECODER_CRASHED, "the decoder's answer is unreadable")
        if code == -signal.SIGKILL:
            return ItemError(ErrorCode.OUT_OF_MEMORY, "the decoder was killed, most likely for its memory")
        if code < 0:
            return ItemError(ErrorCode.DECODER_CRASHED, f"the decoder died of {signal.Signals(-code).name}")
        return ItemError(ErrorCode.DECODER_CRASHED, f"the decoder ended with exit code {code}")


def _end(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    sock.close()
    process.kill()
    process.wait()

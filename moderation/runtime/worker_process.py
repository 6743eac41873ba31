"""A worker as a process of the driver's machine: takes calls from a pipe that it has inherited, and answers them.

`python -P -m moderation.runtime.worker_process FD` is that process. It ends with its driver: by the end of the pipe,
and on Linux by the kernel.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from multiprocessing.connection import Connection

from moderation.concurrency import die_with_parent
from moderation.runtime.messages import MethodAnswer, MethodCall, WorkerSetup, pack, pack_error, unpack
from moderation.runtime.own_group import be_killed_first, kill_own_group
from moderation.runtime.task import WorkerTask
from moderation.runtime.worker import ShardWorker


def main(fd: int) -> None:
    """Answer calls until the driver is gone. Does not return."""
    die_with_parent()
    be_killed_first()
    connection = Connection(fd)
    try:
        setup: WorkerSetup = unpack(connection.recv_bytes())
        worker = ShardWorker(_make_task(*setup.task), setup.threads, lambda: setup.place)
        answering = _Answering(worker, connection)
        threads = ThreadPoolExecutor(setup.calls, "call")  # never shut down: that would wait for what is running
        while True:
            threads.submit(answering.answer, unpack(connection.recv_bytes()))
    except (EOFError, OSError):
        kill_own_group()
    except BaseException:  # noqa: BLE001 - whatever it is, nothing is left to answer
        traceback.print_exc()  # the driver tells its last line
        sys.stderr.flush()
        os._exit(1)  # an exit would wait for the calls that are running


def _make_task(name: str, told: str) -> WorkerTask:
    module, _, class_name = name.partition(":")
    task_class: type[WorkerTask] = getattr(import_module(module), class_name)
    return task_class.from_json(told)


class _Answering:
    """Answers calls, several at once; one answer is written after the other."""

    def __init__(self, worker: ShardWorker, connection: Connection) -> None:
        self._worker = worker
        self._connection = connection
        self._writing = threading.Lock()

    def answer(self, call: MethodCall) -> None:
        """Carry out a call and write its answer."""
        try:
            value = pack(getattr(self._worker, call.method)(*call.arguments))
            answer = MethodAnswer(number=call.number, ending="done", told=value)
        except BaseException as error:  # noqa: BLE001 - the driver decides what becomes of it
            answer = MethodAnswer(number=call.number, ending="raised", told=pack_error(error))
        try:
            with self._writing:
                self._connection.send_bytes(pack(answer))
        except OSError:
            kill_own_group()


if __name__ == "__main__":
    main(int(sys.argv[1]))

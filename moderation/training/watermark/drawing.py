"""Work on backgrounds by processes beside the one that trains. The backgrounds are in one file that all of them map."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeVar

import numpy as np
import torch

from moderation.errors import FatalError
from moderation.types import U8

_Made = TypeVar("_Made")
_AHEAD: Final = 3  # tasks a process, so that none waits for the one that trains
_grounds: list[U8] = []  # of a drawing process


def draw_ahead(
    grounds: Sequence[U8], processes: int, work: Callable[..., _Made], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[_Made]:
    """work(grounds, *task) of each task, in order. work: a function of a module; what it makes is pickled.

    The processes end with this one, however it ends. Raises FatalError where one of them is killed, or where the
    folder for temporary files is full.
    """
    with tempfile.TemporaryDirectory(prefix="moderation-marks-") as folder:
        _write(grounds, Path(folder))
        # Not forked: a process that has begun to use a GPU or threads cannot be copied safely.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(folder,)) as pool:
            waiting: deque[Future[bytes]] = deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(_call, work, task))
                    if len(waiting) > _AHEAD * processes:
                        yield pickle.loads(waiting.popleft().result())  # noqa: S301 - of our own processes
                while waiting:
                    yield pickle.loads(waiting.popleft().result())  # noqa: S301 - of our own processes
            except BrokenProcessPool as error:
                raise FatalError(
                    f"a process that draws was ended from outside, perhaps for want of memory; fewer than {processes}"
                    " --workers need less"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _write(grounds: Sequence[U8], folder: Path) -> None:
    try:
        with (folder / "pixels").open("wb") as file:
            for ground in grounds:
                file.write(np.ascontiguousarray(ground).data)
        (folder / "shapes.json").write_text(json.dumps([ground.shape for ground in grounds]))
    except OSError as error:
        size = sum(ground.nbytes for ground in grounds)
        raise FatalError(
            f"{folder}: {size / 1e9:.1f} GB of backgrounds cannot be written: {error.strerror}; TMPDIR names another"
            " folder, and --workers 0 needs none"
        ) from error


def _start(folder: str) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that trains ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    torch.set_num_threads(1)
    pixels = np.memmap(Path(folder) / "pixels", dtype=np.uint8, mode="r")
    begin = 0
    for shape in json.loads((Path(folder) / "shapes.json").read_text()):
        size = int(np.prod(shape))
        _grounds.append(np.asarray(pixels[begin : begin + size]).reshape(shape))
        begin += size


def _end_with_parent(folder: str) -> None:
    """Wait for the end of the process that trains. One that is killed can neither end others nor remove its folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def _call(work: Callable[..., _Made], task: tuple[Any, ...]) -> bytes:
    # Pickled here: `multiprocessing` would put each tensor into a file in /dev/shm, of which containers have 64 MB, and
    # hold it open.
    return pickle.dumps(work(_grounds, *task), protocol=pickle.HIGHEST_PROTOCOL)

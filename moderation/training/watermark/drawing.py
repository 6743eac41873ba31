"""Work on backgrounds by processes beside the one that trains. The backgrounds are in one file that all of them map."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch

from moderation.types import U8

_Made = TypeVar("_Made")
_AHEAD: Final = 3  # tasks a process, so that none waits for the one that trains
_grounds: list[U8] = []  # of a drawing process


def draw_ahead(
    grounds: Sequence[U8], processes: int, work: Callable[..., _Made], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[_Made]:
    """work(grounds, *task) of each task, in order. work: a function of a module; what it makes is pickled."""
    with tempfile.TemporaryDirectory(prefix="moderation-marks-") as folder:
        _write(grounds, Path(folder))
        # Not forked: a process that has begun to use a GPU or threads cannot be copied safely.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(folder,)) as pool:
            waiting: deque[Future[_Made]] = deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(_call, work, task))
                    if len(waiting) > _AHEAD * processes:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _write(grounds: Sequence[U8], folder: Path) -> None:
    with (folder / "pixels").open("wb") as file:
        for ground in grounds:
            file.write(np.ascontiguousarray(ground).data)
    (folder / "shapes.json").write_text(json.dumps([ground.shape for ground in grounds]))


def _start(folder: str) -> None:
    torch.set_num_threads(1)
    pixels = np.memmap(Path(folder) / "pixels", dtype=np.uint8, mode="r")
    begin = 0
    for shape in json.loads((Path(folder) / "shapes.json").read_text()):
        size = int(np.prod(shape))
        _grounds.append(np.asarray(pixels[begin : begin + size]).reshape(shape))
        begin += size


def _call(work: Callable[..., _Made], task: tuple[Any, ...]) -> _Made:
    return work(_grounds, *task)

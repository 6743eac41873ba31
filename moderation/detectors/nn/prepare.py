"""Networks prepared for inference, and batches cut into parts that run side by side.

Without parts each operator uses all cores, and a batch waits a hundred times for the slowest thread, which takes long
where decoding (or another job) shares the cores. Measured for image_safety on two shared cores, batch 16: in two parts
34 to 36 images/s and 31 ms of CPU time each; with each operator over both cores 12 to 39 images/s and 50 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from threading import Barrier
from typing import Final, TypeVar

import torch
from torch import nn

from moderation.detectors.nn.conv import Conv, can_fuse

# Smaller parts leave threads idle; and at most this many parts wait for one slow core.
_MAX_PARTS: Final = 4
_Network = TypeVar("_Network", bound=nn.Module)
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def prepare(network: _Network, device: torch.device, dtype: torch.dtype) -> _Network:
    """The same network on its device, frozen, channels_last, its convolutions in the forms that are fast there.

    Do not move or cast it afterwards.
    """
    network = network.eval().requires_grad_(False).to(device, dtype).to(memory_format=torch.channels_last)
    if device.type == "cuda":
        for module in network.modules():
            if isinstance(module, Conv):
                module.suit_gpu()
    if device.type == "cpu" and can_fuse(dtype):
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, Conv):
                    module.pack()
        threads = torch.get_num_threads()
        _thread_pool(threads, count_parts(threads))
    return network


def infer(network: nn.Module, x: torch.Tensor, *, max_frames: int = 0) -> torch.Tensor:
    """network(x), [B,...] -> [B,...], of a prepared network; on a CPU in parts of the batch, side by side.

    max_frames: per part (0: any number). Set it for a network whose widest features of more frames exceed the 32 MiB
    that glibc keeps: larger ones are mapped again, page by page, at every call.
    """
    threads = torch.get_num_threads()
    side_by_side = count_parts(threads)
    turns = -(-len(x) // (side_by_side * max_frames)) if max_frames else 1
    parts = min(side_by_side * turns, len(x))
    if x.device.type != "cpu" or parts < 2 or not _is_fused(network):
        return _call(network, x)
    pool = _thread_pool(threads, side_by_side)
    return torch.cat(list(pool.map(_as_here(partial(_call, network)), x.chunk(parts))))


def work_each(work: Callable[[_Given], _Made], given: Sequence[_Given], device: torch.device) -> list[_Made]:
    """work(x) of each; on a CPU side by side: for inputs of different sizes, which cannot share a batch.

    Fewer inputs than a batch has parts share all threads.
    """
    if device.type != "cpu" or not given:
        return [work(x) for x in given]
    threads = torch.get_num_threads()
    return list(_thread_pool(threads, count_parts(threads, len(given))).map(_as_here(work), given))


def _as_here(work: Callable[[_Given], _Made]) -> Callable[[_Given], _Made]:
    """The same work for another thread: inference mode, gradients and autocast are per thread."""
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def run(given: _Given) -> _Made:
        with (
            torch.inference_mode(inference),
            torch.set_grad_enabled(gradients),
            torch.autocast("cpu", dtype, enabled=autocast),
        ):
            return work(given)

    return run


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for what takes microseconds: a second one, where others use its core, is waited for a thousandfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def count_parts(threads: int, limit: int = _MAX_PARTS) -> int:
    """The number of parts of a batch: 1 to 4, such that all parts have equally many of these threads."""
    return max(parts for parts in range(1, min(limit, _MAX_PARTS) + 1) if threads % parts == 0)


def _call(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = network(x)
    return out


def _is_fused(network: nn.Module) -> bool:
    return any(isinstance(module, Conv) and module.packed for module in network.modules())


@lru_cache(maxsize=8)
def _thread_pool(threads: int, parts: int) -> ThreadPoolExecutor:
    """One thread per part, each with its share of `threads`; kept, like torch's own threads."""
    gathered = Barrier(parts + 1)

    def start() -> None:
        # A GELU far below zero is a denormal float32, which a core multiplies a hundred times as slowly: two layers of
        # the text detector took 70% of its time. Threads that torch starts from this one inherit the setting.
        torch.set_flush_denormal(True)
        # On first query a thread takes the process's number, which would override one set before.
        torch.get_num_threads()
        torch.set_num_threads(threads // parts)
        gathered.wait()

    pool = ThreadPoolExecutor(parts, thread_name_prefix="infer")
    for _ in range(parts):
        pool.submit(start)
    gathered.wait()
    # The number is per thread, but the last one set is also that of every future thread.
    torch.set_num_threads(threads)
    return pool

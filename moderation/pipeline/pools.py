"""The threads of a worker, shared by its shards in flight."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from moderation.config.model import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Threads of a worker, shared by its shards in flight. `device` guards the stack, which is not thread-safe."""

    fetch: Executor
    decode: Executor
    fetch_threads: int
    decode_threads: int
    device: AbstractContextManager[object]


def make_pools(config: Config, decode_threads: int) -> Pools:
    """Pools of a worker; their threads end with the process."""
    return Pools(
        fetch=ThreadPoolExecutor(config.runtime.fetch_threads, "fetch"),
        decode=ThreadPoolExecutor(decode_threads, "decode"),
        fetch_threads=config.runtime.fetch_threads,
        decode_threads=decode_threads,
        device=threading.Lock(),
    )

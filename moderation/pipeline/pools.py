"""The threads of a worker, shared by its shards in flight."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from moderation.concurrency import ByteBudget
from moderation.config.model import Config, RuntimeConfig
from moderation.media.decoder_pool import DecoderPool
from moderation.media.limits import MemberLimits
from moderation.media.objects import Payload
from moderation.types import Item, Media


class Decode(Protocol):
    """Decodes an item, or within `limits` one object of an item of several; see `media.decode_item`."""

    def __call__(self, item: Item, payloads: Sequence[Payload], /, *, limits: MemberLimits | None = None) -> Media:
        """The frames, or why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Threads of a worker, shared by its shards in flight. `device` guards the stack, which is not thread-safe."""

    fetch: Executor
    decode: Executor
    fetch_threads: int
    decode_threads: int
    device: AbstractContextManager[object]
    # Decodes in processes of their own; None: in the calling thread.
    decode_item: Decode | None = None
    decode_budget: ByteBudget = field(default_factory=lambda: ByteBudget(RuntimeConfig().decoding_bytes(1)))


def make_pools(config: Config, decode_threads: int) -> Pools:
    """Make the pools of a worker; their threads end with the process."""
    return Pools(
        fetch=ThreadPoolExecutor(config.runtime.fetch_threads, "fetch"),
        decode=ThreadPoolExecutor(decode_threads, "decode"),
        fetch_threads=config.runtime.fetch_threads,
        decode_threads=decode_threads,
        device=threading.Lock(),
        decode_item=_make_decoder(config),
        decode_budget=ByteBudget(config.runtime.decoding_bytes(decode_threads)),
    )


def _make_decoder(config: Config) -> Decode | None:
    if config.runtime.decoder == "thread":
        return None
    return DecoderPool(config.media, config.runtime.decoder_memory_bytes).decode

"""Frames of decoded items -> batches -> votes, again item by item."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch

from moderation.errors import ItemError, ShardError
from moderation.scoring.stack import Stack
from moderation.scoring.votes import BatchVotes, join_votes, slice_votes
from moderation.types import ErrorCode, Frame, Item, Media

_Out = TypeVar("_Out")


class ScoringClock(Protocol):
    """Measures where the time of scoring goes; see `pipeline.clock`."""

    def timed(self, step: str, call: Callable[[], _Out]) -> _Out:
        """Run `call()` and add its time to the step."""

    def waited(self, who: str, kind: str, seconds: float) -> None:
        """Add to the idle time of `who`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """An item with what was decoded of it.

    position: where this is one object of an item of several, its number; the rest is of that object alone.
    """

    item: Item
    media: Media
    size_bytes: int | None
    content_hash: str | None
    position: int | None = None

    @property
    def held_bytes(self) -> int:
        """Size of its pixels in memory."""
        return sum(f.pixels.nbytes for f in self.media.frames)


@dataclass(slots=True, kw_only=True)
class _Pending:
    decoded: Decoded
    votes: list[BatchVotes] = field(default_factory=list)
    left: int
    failed: ItemError | None = None


def score_items(
    decoded: Iterable[Decoded], stack: Stack, clock: ScoringClock, device: AbstractContextManager[object] | None = None
) -> Iterator[tuple[Decoded, BatchVotes | ItemError | None]]:
    """Score items in order. Frames of several items share a batch; a long item spans several batches.

    Yields each item with its frames' votes; None where it has no frames; ItemError where a detector failed on one.
    Raises ShardError when the device itself failed.
    """
    guard = device or nullcontext()
    pending: deque[_Pending] = deque()
    batch: list[tuple[_Pending, Frame]] = []
    for decoded_item in _each(decoded, clock):
        entry = _Pending(decoded=decoded_item, left=len(decoded_item.media.frames))
        pending.append(entry)
        for frame in decoded_item.media.frames:
            batch.append((entry, frame))
            # Not `==`: another shard may shrink the stack's batch size while this one gathers.
            if len(batch) >= stack.batch_size:
                _score_batch(batch, stack, clock, guard)
                batch = []
        yield from _finished(pending)
    if batch:
        _score_batch(batch, stack, clock, guard)
    yield from _finished(pending)


def _each(decoded: Iterable[Decoded], clock: ScoringClock) -> Iterator[Decoded]:
    source = iter(decoded)
    while True:
        began_s = time.perf_counter()
        decoded_item = next(source, None)
        clock.waited("device", "starved", time.perf_counter() - began_s)
        if decoded_item is None:
            return
        yield decoded_item


def _score_batch(
    batch: Sequence[tuple[_Pending, Frame]], stack: Stack, clock: ScoringClock, guard: AbstractContextManager[object]
) -> None:
    frames = [frame for _, frame in batch]
    began_s = time.perf_counter()
    with guard:
        clock.waited("device", "lock", time.perf_counter() - began_s)
        try:
            votes = clock.timed("score", lambda: stack.score(frames))
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            _fail_each(batch, stack, clock, ItemError(ErrorCode.OUT_OF_MEMORY, str(error)))
            return
        except torch.AcceleratorError as error:
            # The process's device context is lost: every later frame would fail too and become an error row.
            raise ShardError(f"the device failed: {error}") from error
        except (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, OSError) as error:
            # A detector is a plug-in: it may fail on a frame.
            _fail_each(batch, stack, clock, ItemError(ErrorCode.SCORE_FAILED, f"{type(error).__name__}: {error}"))
            return
    start = 0
    while start < len(batch):
        entry = batch[start][0]
        stop = start
        while stop < len(batch) and batch[stop][0] is entry:
            stop += 1
        entry.votes.append(slice_votes(votes, start, stop))
        entry.left -= stop - start
        start = stop


def _fail_each(batch: Sequence[tuple[_Pending, Frame]], stack: Stack, clock: ScoringClock, error: ItemError) -> None:
    """Find the frames that made a batch fail by scoring each alone; the caller holds the device."""
    if len(batch) > 1:
        for pair in batch:
            _score_batch([pair], stack, clock, nullcontext())
        return
    entry = batch[0][0]
    entry.failed = entry.failed or error
    entry.left -= 1


def _finished(pending: deque[_Pending]) -> Iterator[tuple[Decoded, BatchVotes | ItemError | None]]:
    while pending and pending[0].left == 0:
        entry = pending.popleft()
        if entry.failed is not None:
            yield entry.decoded, entry.failed
        elif not entry.votes:
            yield entry.decoded, None
        else:
            yield entry.decoded, join_votes(entry.votes)

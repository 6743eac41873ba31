"""One shard, end to end: fetch, decode, score, judge, write, commit. The one composition; collaborators are passed in.

Threads fetch and decode ahead, bounded by bytes; the calling thread gathers frames into batches, scores and judges
them. Rows come out in the order of the shard's items, one an item, whatever happens to it.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from moderation import __version__
from moderation.commit import Receipt, commit_shard
from moderation.config import Config
from moderation.errors import ItemError
from moderation.media import decode_item
from moderation.policy import BoundPolicy, judge
from moderation.sources.fetch import Fetcher
from moderation.stack import BatchVotes, Stack
from moderation.types import (
    ErrorCode,
    Frame,
    Item,
    ItemVotes,
    Judgement,
    Kind,
    Media,
    Shard,
    Status,
    Verdict,
)
from moderation.writer import Row, encode_table, verdicts_table, votes_table

_In = TypeVar("_In")
_Out = TypeVar("_Out")
STEPS = ("fetch", "decode", "score", "judge", "write")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What every part of a run says of its origin, in its schema's metadata."""

    run_id: str
    stack_fingerprint: str
    policy_hash: str

    def metadata(self) -> dict[str, str]:
        """As strings, for Arrow."""
        return {
            "run_id": self.run_id,
            "stack_fingerprint": self.stack_fingerprint,
            "policy_hash": self.policy_hash,
            "code_version": __version__,
        }


@dataclass(slots=True)
class Clock:
    """Busy seconds by step; steps run in several threads."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def timed(self, step: str, call: Callable[[], _Out]) -> _Out:
        """`call()`, its time added to the step's."""
        began = time.perf_counter()
        try:
            return call()
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self.seconds[step] += spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """An item with what was read of it."""

    item: Item
    media: Media
    size_bytes: int | None
    content_hash: str | None

    @property
    def held_bytes(self) -> int:
        """Pixels in memory."""
        return sum(f.pixels.nbytes for f in self.media.frames)


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


def moderate_shard(
    shard: Shard,
    *,
    out: str,
    config: Config,
    stack: Stack,
    policy: BoundPolicy,
    facts: RunFacts,
    pools: Pools,
    poison: Mapping[str, str] | None = None,
) -> Receipt:
    """Judge a shard and commit it.

    poison: item id -> detail, of items that are known to kill the process; they are not touched.
    Raises ShardError (retried by the driver), FatalError.
    """
    clock = Clock()
    rows = list(
        moderate_items(
            shard.items, config=config, stack=stack, policy=policy, pools=pools, clock=clock, poison=poison or {}
        )
    )
    checks = tuple(policy.policy.checks)

    def encode() -> tuple[dict[str, bytes], dict[str, int]]:
        metadata = facts.metadata()
        votes = votes_table(rows, stack.labels, stack.blob_sizes, stack.embedding_dims, metadata)
        verdicts = verdicts_table(rows, checks, metadata)
        parts = {"votes": encode_table(votes, config.output), "verdicts": encode_table(verdicts, config.output)}
        return parts, {"votes": votes.num_rows, "verdicts": verdicts.num_rows}

    parts, counts = clock.timed("write", encode)
    return commit_shard(
        out,
        shard,
        parts=parts,
        rows=counts,
        format_=config.output.format,
        facts={
            "counts": count_rows(rows),
            "seconds": {step: round(s, 4) for step, s in clock.seconds.items()},
            "bytes_read": sum(r.size_bytes or 0 for r in rows),
            "peak_memory_bytes": peak_memory_bytes(),
        },
    )


def moderate_items(
    items: Sequence[Item],
    *,
    config: Config,
    stack: Stack,
    policy: BoundPolicy,
    pools: Pools,
    clock: Clock | None = None,
    poison: Mapping[str, str] | None = None,
    fetch: Callable[[Item], Sequence[bytes | ItemError]] | None = None,
) -> Iterator[Row]:
    """Rows of items, in their order, one an item. Pure of output: nothing is written.

    fetch: how encoded bytes are read; by default from storage.
    """
    clock = clock or Clock()
    read = fetch or Fetcher(items, config.media)
    poisoned = {i: ItemError(ErrorCode.DECODER_CRASHED, detail) for i, detail in (poison or {}).items()}

    def fetch_one(item: Item) -> tuple[Item, Sequence[bytes | ItemError]]:
        known = poisoned.get(item.item_id)
        if known is not None:
            return item, [known for _ in item.objects]
        return item, clock.timed("fetch", lambda: read(item))

    def decode_one(fetched: tuple[Item, Sequence[bytes | ItemError]]) -> Decoded:
        return clock.timed("decode", lambda: _decode(*fetched, config))

    fetched = map_ahead(
        fetch_one,
        items,
        pools.fetch,
        most=pools.fetch_threads * 2,
        budget_bytes=config.runtime.fetch_budget_bytes // config.runtime.shards_in_flight,
        expected_bytes=lambda item: item.size_bytes,
        held_bytes=lambda pair: sum(len(p) for p in pair[1] if isinstance(p, bytes)),
    )
    # Two batches ahead of the device, and never fewer than keep the threads busy.
    decoded = map_ahead(
        decode_one,
        fetched,
        pools.decode,
        most=max(2 * stack.batch_size, 2 * pools.decode_threads),
        budget_bytes=config.runtime.frame_budget_bytes // config.runtime.shards_in_flight,
        expected_bytes=lambda _: 3 * config.media.canvas_px * config.media.canvas_px * 2,
        held_bytes=lambda d: d.held_bytes,
    )
    for found, votes in score_items(decoded, stack, clock, pools.device):
        yield clock.timed("judge", lambda found=found, votes=votes: _judge(found, votes, stack, policy))  # type: ignore[misc] # mypy does not infer default arguments of lambdas


def map_ahead(
    call: Callable[[_In], _Out],
    inputs: Iterable[_In],
    pool: Executor,
    *,
    most: int,
    budget_bytes: int,
    expected_bytes: Callable[[_In], int],
    held_bytes: Callable[[_Out], int],
) -> Iterator[_Out]:
    """`map(call, inputs)` by a pool, in order, at most `most` inputs and a byte budget ahead of the consumer.

    What is running counts by its expected, what is done by its true size; one input is always allowed, so that a
    large one cannot stall. Overshoot is bounded by what the pool's threads return at once.
    """
    waiting: deque[_Ahead[_Out]] = deque()
    source = iter(inputs)
    exhausted = False
    while True:
        while not exhausted and len(waiting) < most:
            if waiting and sum(a.weight(held_bytes) for a in waiting) >= budget_bytes:
                break
            try:
                given = next(source)
            except StopIteration:
                exhausted = True
                break
            waiting.append(_Ahead(future=pool.submit(call, given), expected=expected_bytes(given)))
        if not waiting:
            return
        yield waiting.popleft().future.result()


@dataclass(slots=True, kw_only=True)
class _Ahead(Generic[_Out]):
    future: Future[_Out]
    expected: int

    def weight(self, held_bytes: Callable[[_Out], int]) -> int:
        if self.future.done() and self.future.exception() is None:
            return held_bytes(self.future.result())
        return self.expected


@dataclass(slots=True, kw_only=True)
class _Pending:
    decoded: Decoded
    votes: list[BatchVotes] = field(default_factory=list)
    left: int
    failed: ItemError | None = None


def score_items(
    decoded: Iterable[Decoded], stack: Stack, clock: Clock, device: AbstractContextManager[object] | None = None
) -> Iterator[tuple[Decoded, BatchVotes | ItemError | None]]:
    """Items with their frames' votes, in order. Frames of several items share a batch; a long item spans several.

    None where an item has no frames; ItemError where a detector failed on one of them.
    """
    guard = device or nullcontext()
    pending: deque[_Pending] = deque()
    batch: list[tuple[_Pending, Frame]] = []
    for found in decoded:
        entry = _Pending(decoded=found, left=len(found.media.frames))
        pending.append(entry)
        for frame in found.media.frames:
            batch.append((entry, frame))
            if len(batch) == stack.batch_size:
                _score_batch(batch, stack, clock, guard)
                batch = []
        yield from _finished(pending)
    if batch:
        _score_batch(batch, stack, clock, guard)
    yield from _finished(pending)


def _score_batch(
    batch: Sequence[tuple[_Pending, Frame]], stack: Stack, clock: Clock, guard: AbstractContextManager[object]
) -> None:
    frames = [frame for _, frame in batch]
    with guard:
        try:
            votes = clock.timed("score", lambda: stack.score(frames))
        except (RuntimeError, ValueError, ArithmeticError, IndexError, KeyError, TypeError, MemoryError) as error:
            # A detector is a plug-in and may fail on a frame; which one is found by asking each alone.
            if len(batch) > 1:
                for pair in batch:
                    _score_batch([pair], stack, clock, nullcontext())
                return
            batch[0][0].failed = ItemError(ErrorCode.SCORE_FAILED, f"{type(error).__name__}: {error}")
            batch[0][0].left -= 1
            return
    start = 0
    while start < len(batch):
        entry = batch[start][0]
        stop = start
        while stop < len(batch) and batch[stop][0] is entry:
            stop += 1
        entry.votes.append(_slice_votes(votes, start, stop))
        entry.left -= stop - start
        start = stop


def _slice_votes(votes: BatchVotes, start: int, stop: int) -> BatchVotes:
    return BatchVotes(
        scores=votes.scores[start:stop],
        regions=votes.regions[start:stop],
        blobs={name: values[start:stop] for name, values in votes.blobs.items()},
        embeddings={name: values[start:stop] for name, values in votes.embeddings.items()},
        ran={},
    )


def _finished(pending: deque[_Pending]) -> Iterator[tuple[Decoded, BatchVotes | ItemError | None]]:
    while pending and pending[0].left == 0:
        entry = pending.popleft()
        if entry.failed is not None:
            yield entry.decoded, entry.failed
        elif not entry.votes:
            yield entry.decoded, None
        else:
            yield entry.decoded, _join_votes(entry.votes)


def _join_votes(parts: Sequence[BatchVotes]) -> BatchVotes:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return BatchVotes(
        scores=np.concatenate([p.scores for p in parts]),
        regions=tuple(r for p in parts for r in p.regions),
        blobs={name: tuple(b for p in parts for b in p.blobs[name]) for name in first.blobs},
        embeddings={name: np.concatenate([p.embeddings[name] for p in parts]) for name in first.embeddings},
        ran={},
    )


def _decode(item: Item, payloads: Sequence[bytes | ItemError], config: Config) -> Decoded:
    read = [p for p in payloads if isinstance(p, bytes)]
    if not read:
        # Nothing could be read: the first reason stands for all.
        known = next((p for p in payloads if isinstance(p, ItemError)), None)
        code = item.error or (known.code if known else ErrorCode.EMPTY)
        detail = item.error_detail or (known.detail if known else "")
        media = Media(kind=item.kind or Kind.UNKNOWN, error=code, error_detail=detail)
    else:
        media = decode_item(item, payloads, config.media)
    return Decoded(
        item=item,
        media=media,
        size_bytes=sum(len(p) for p in read) if read else (item.size_bytes or None),
        content_hash=_content_hash(read) if len(read) == len(payloads) and read else None,
    )


def _content_hash(payloads: Sequence[bytes]) -> str:
    """sha256 of the bytes; of an item of several objects, of their hashes in order."""
    digests = [hashlib.sha256(p) for p in payloads]
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(d.digest() for d in digests)).hexdigest()


def _judge(found: Decoded, scored: BatchVotes | ItemError | None, stack: Stack, policy: BoundPolicy) -> Row:
    media = found.media
    code, detail = media.error, media.error_detail
    if isinstance(scored, ItemError):
        code, detail = scored.code, scored.detail
    votes = None
    if isinstance(scored, BatchVotes):
        votes = ItemVotes(
            labels=stack.labels,
            frames=tuple(f.index for f in media.frames),
            times_s=tuple(f.time_s for f in media.frames),
            scores=scored.scores,
            regions=scored.regions,
            blobs=scored.blobs,
        )
    if votes is None and code is None:
        code = ErrorCode.NO_FRAMES
    judgement = None if code is ErrorCode.NOT_MEDIA else judge_item(votes, code, policy)
    hashes = scored.blobs.get("pdq.hash", ()) if isinstance(scored, BatchVotes) else ()
    # One hash an item: that of the frame in the middle, which titles and fades leave alone.
    middle = hashes[len(hashes) // 2] if hashes else None
    return Row(
        item=found.item,
        status=Status.OK if code is None else Status.SKIPPED if code is ErrorCode.NOT_MEDIA else Status.ERROR,
        kind=media.kind,
        judgement=judgement,
        votes=votes,
        embeddings=scored.embeddings if isinstance(scored, BatchVotes) else None,
        frames_total=media.frames_total,
        duration_s=media.duration_s,
        widest_gap_s=media.widest_gap_s,
        width=media.width,
        height=media.height,
        size_bytes=found.size_bytes,
        content_hash=found.content_hash,
        pdq=middle.hex() if middle is not None else None,
        error_code=code,
        error_detail=detail,
    )


def judge_item(votes: ItemVotes | None, code: ErrorCode | None, policy: BoundPolicy) -> Judgement:
    """The policy's judgement; an item with an error is never passed, but what was scored of it may block it."""
    if votes is None:
        return Judgement(
            verdict=Verdict.REVIEW, reason=f"error:{code}", check=None, score=None, confidence=None, scores={}
        )
    judged = judge(policy, votes)
    if code is None or judged.verdict is Verdict.BLOCK:
        return judged
    return Judgement(
        verdict=Verdict.REVIEW,
        reason=judged.reason if judged.verdict is Verdict.REVIEW else f"error:{code}",
        check=judged.check if judged.verdict is Verdict.REVIEW else None,
        score=judged.score if judged.verdict is Verdict.REVIEW else None,
        confidence=judged.confidence if judged.verdict is Verdict.REVIEW else None,
        evidence=judged.evidence,
        scores=judged.scores,
    )


def count_rows(rows: Sequence[Row]) -> dict[str, int]:
    """Counters of a shard; those of a run are their sums."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[f"status:{row.status}"] += 1
        counts[f"kind:{row.kind}"] += 1
        counts["frames"] += row.frames_scored
        if row.judgement is not None:
            counts[f"verdict:{row.judgement.verdict}"] += 1
            if row.judgement.check:
                counts[f"check:{row.judgement.check}:{row.judgement.verdict}"] += 1
        if row.error_code is not None:
            counts[f"error:{row.error_code}"] += 1
        if row.votes is not None:
            asked = (~np.isnan(row.votes.scores)).sum(axis=0)
            # A detector's labels are asked together: any one of them counts its frames.
            by_detector = {label.partition(".")[0]: int(n) for label, n in zip(row.votes.labels, asked, strict=True)}
            counts.update({f"asked:{detector}": n for detector, n in by_detector.items()})
    return dict(sorted(counts.items()))


def peak_memory_bytes() -> int:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux says KiB

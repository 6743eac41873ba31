"""One shard, end to end: fetch, decode, score, judge, write, commit. The one composition; collaborators are passed in.

Threads fetch and decode ahead, bounded by bytes; the calling thread gathers frames into batches, scores and judges
them. Rows come out in the order of the shard's items, one an item, whatever happens to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from moderation.concurrency import map_ahead
from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.media import decode_item
from moderation.pipeline.clock import Clock
from moderation.pipeline.counters import count_rows, peak_memory_bytes
from moderation.pipeline.pools import Pools
from moderation.policy.bind import BoundPolicy
from moderation.policy.judge import judge_item
from moderation.results.receipts import Receipt, commit_shard
from moderation.results.tables import Row, encode_table, verdicts_table, votes_table
from moderation.scoring.batching import Decoded, score_items
from moderation.scoring.stack import BatchVotes, Stack
from moderation.sources.fetch import Fetcher
from moderation.types import (
    ErrorCode,
    Item,
    ItemVotes,
    Kind,
    Media,
    Role,
    Shard,
    Status,
)
from moderation.version import __version__


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


def moderate_shard(
    shard: Shard,
    *,
    out: str,
    config: Config,
    stack: Stack,
    policy: BoundPolicy,
    facts: RunFacts,
    pools: Pools,
    poison: Mapping[str, ItemError] | None = None,
) -> Receipt:
    """Judge a shard and commit it.

    poison: item id -> why, of items that are known to kill or stall the process; they are not touched.
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
            "waits": {wait: round(s, 4) for wait, s in clock.waits.items()},
            "bytes_read": clock.bytes_read,
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
    poison: Mapping[str, ItemError] | None = None,
    fetch: Callable[[Item], Sequence[bytes | ItemError]] | None = None,
) -> Iterator[Row]:
    """Rows of items, in their order, one an item. Pure of output: nothing is written.

    fetch: how encoded bytes are read; by default from storage.
    """
    clock = clock or Clock()
    read = fetch or Fetcher(items, config.media)
    poisoned = poison or {}

    def fetch_one(item: Item) -> tuple[Item, Sequence[bytes | ItemError]]:
        known = poisoned.get(item.item_id)
        if known is not None:
            return item, [known for _ in item.objects]
        try:
            payloads = clock.timed("fetch", lambda: read(item))
        except ItemError as error:
            payloads = [error for _ in item.objects]
        clock.count_read(_read_bytes(payloads))
        return item, payloads

    def decode_one(fetched: tuple[Item, Sequence[bytes | ItemError]]) -> Decoded:
        return clock.timed("decode", lambda: _decode(*fetched, config))

    fetched = map_ahead(
        fetch_one,
        items,
        pools.fetch,
        most=pools.fetch_threads * 2,
        budget_bytes=config.runtime.fetch_budget_bytes // config.runtime.shards_in_flight,
        expected_bytes=lambda item: item.size_bytes,
        held_bytes=lambda pair: _read_bytes(pair[1]),
        waited=partial(clock.waited, "fetch"),
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
        waited=partial(clock.waited, "decode"),
    )
    # Closed in this order when a shard fails, so that nothing of it goes on in the pools.
    with closing(fetched), closing(decoded):
        for found, votes in score_items(decoded, stack, clock, pools.device):
            yield clock.timed("judge", partial(_judge, found, votes, stack, policy))


def _read_bytes(payloads: Sequence[bytes | ItemError]) -> int:
    return sum(len(p) for p in payloads if isinstance(p, bytes))


def _decode(item: Item, payloads: Sequence[bytes | ItemError], config: Config) -> Decoded:
    if len(payloads) != len(item.objects):
        # A mistake of whoever fetched; it must not cost the shard its other rows.
        wrong = f"{len(payloads)} payloads for {len(item.objects)} objects"
        payloads = [ItemError(ErrorCode.FETCH_FAILED, wrong) for _ in item.objects]
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
    related = any(f.parent is not None or f.role is not Role.FRAME for f in media.frames)
    if isinstance(scored, BatchVotes):
        votes = ItemVotes(
            labels=stack.labels,
            frames=tuple(f.index for f in media.frames),
            times_s=tuple(f.time_s for f in media.frames),
            scores=scored.scores,
            regions=scored.regions,
            blobs=scored.blobs,
            roles=tuple(f.role for f in media.frames) if related else (),
            parents=tuple(f.parent for f in media.frames) if related else (),
            boxes=tuple(f.box for f in media.frames) if related else (),
        )
    if votes is None and code is None:
        code = ErrorCode.NO_FRAMES
    judgement = None if code is ErrorCode.NOT_MEDIA else judge_item(votes, code, policy)
    hashes = scored.blobs.get("pdq.hash", ()) if isinstance(scored, BatchVotes) else ()
    hashes = tuple(h for h, f in zip(hashes, media.frames, strict=False) if f.role is Role.FRAME)
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

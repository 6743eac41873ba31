"""Items to rows: fetched and decoded ahead by threads, scored in batches, judged."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from moderation.concurrency import map_ahead
from moderation.config.model import Config, MediaConfig
from moderation.errors import ItemError
from moderation.media import decode_item
from moderation.media.keyframes import as_keyframe
from moderation.media.need import estimate_need
from moderation.media.objects import Payload
from moderation.pipeline.clock import Clock
from moderation.pipeline.judging import judge_decoded
from moderation.pipeline.members import Member, ObjectRange, gather_items, split_item, split_members
from moderation.pipeline.pools import Decode, Pools
from moderation.policy.bind import BoundPolicy
from moderation.results.tables import ItemRow
from moderation.scoring.batching import Decoded, score_items
from moderation.scoring.stack import Stack
from moderation.scoring.votes import BatchVotes
from moderation.sources.content import content_hash
from moderation.sources.fetch import Fetcher
from moderation.types import (
    ErrorCode,
    Item,
    Kind,
    Media,
    TypedBytes,
)

# A range of a large album takes so small a share of the bytes that may wait: the next is read while one is decoded.
RANGES_AHEAD = 4


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
) -> Iterator[ItemRow]:
    """Rows of items, in their order, one row per item. Writes nothing.

    fetch: reads the encoded bytes; by default from storage.
    """
    clock = clock or Clock()
    scored = score_fetched(
        items, config=config, stack=stack, pools=pools, clock=clock, poison=poison or {}, fetch=fetch
    )
    with closing(scored):
        for item, votes in scored:
            yield clock.timed("judge", partial(judge_decoded, item, votes, policy, stack.illegal))


def score_fetched(
    items: Sequence[Item],
    *,
    config: Config,
    stack: Stack,
    pools: Pools,
    clock: Clock,
    poison: Mapping[str, ItemError],
    fetch: Callable[[Item], Sequence[bytes | ItemError]] | None = None,
    changed: Callable[[Decoded], Decoded] | None = None,
) -> Generator[tuple[Decoded, BatchVotes | ItemError | None], None, None]:
    """Items with what was decoded of them and their frames' votes, in order; see `batching.score_items`.

    changed: what is scored instead of what was decoded; called by the threads that decode, for items as a whole, so
    that large albums are held then.
    """
    media = config.media
    read = fetch or Fetcher(items, media)
    decode: Decode = pools.decode_item or partial(decode_item, config=media)
    fetch_bytes = config.runtime.fetch_budget_bytes // config.runtime.shards_in_flight

    def fetch_one(part: ObjectRange) -> tuple[ObjectRange, Sequence[Payload]]:
        wanted = part.request
        poison_error = poison.get(wanted.item_id)
        if poison_error is not None:
            return part, [poison_error for _ in wanted.objects]
        try:
            payloads = clock.timed("fetch", lambda: read(wanted), item_id=wanted.item_id)
        except ItemError as error:
            payloads = [error for _ in wanted.objects]
        clock.count_read(_read_bytes(payloads))
        return part, _one_per_object(wanted, payloads)

    def decode_one(member: Member) -> Decoded:
        need = _estimate(member, media)
        began_s = time.perf_counter()
        # Before the item's deadline begins: waiting for memory is no fault of its own.
        with pools.decode_budget.take(need):
            clock.waited("decode", "memory", time.perf_counter() - began_s)
            decoding = partial(_decode, member, decode, media.decode_timeout_s)
            decoded_item = clock.timed("decode", decoding, item_id=member.item.item_id)
            return decoded_item if changed is None else changed(decoded_item)

    whole = changed is not None
    # What a caller fetches by itself is in memory already; else a large album is read in ranges.
    range_bytes = fetch_bytes // RANGES_AHEAD if fetch is None else sys.maxsize
    fetched = map_ahead(
        fetch_one,
        (part for item in items for part in split_item(item, range_bytes, media, whole=whole)),
        pools.fetch,
        max_ahead=pools.fetch_threads * 2,
        budget_bytes=fetch_bytes,
        expected_bytes=lambda part: part.expected_bytes,
        held_bytes=lambda pair: _read_bytes(pair[1]),
        waited=partial(clock.waited, "fetch"),
    )
    canvas_bytes = 3 * media.canvas_px * media.canvas_px * 2
    # Decoders wait with their encoded bytes, which the fetched ones no longer count.
    waiting_bytes = (
        config.runtime.waiting_frame_bytes(on_gpu=stack.device.type == "cuda") + config.runtime.fetch_budget_bytes
    )
    # Two batches ahead of the device, and at least enough to keep the threads busy.
    decoded = map_ahead(
        decode_one,
        (member for part, payloads in fetched for member in split_members(part, payloads, media, whole=whole)),
        pools.decode,
        max_ahead=max(2 * stack.batch_size, 2 * pools.decode_threads),
        budget_bytes=waiting_bytes // config.runtime.shards_in_flight,
        expected_bytes=lambda member: canvas_bytes + member.held_bytes,
        held_bytes=lambda d: d.held_bytes,
        waited=partial(clock.waited, "decode"),
    )
    # Closed in this order when a shard fails, so that none of its work goes on in the pools.
    with closing(fetched), closing(decoded):
        yield from gather_items(score_items(decoded, stack, clock, pools.device), media)


def _read_bytes(payloads: Sequence[Payload]) -> int:
    return sum(len(p) for p in payloads if isinstance(p, bytes))


def _one_per_object(item: Item, payloads: Sequence[Payload]) -> Sequence[Payload]:
    if len(payloads) == len(item.objects):
        return payloads
    # A mistake of `fetch`; it must not cost the shard its other rows.
    wrong = f"{len(payloads)} payloads for {len(item.objects)} objects"
    return [ItemError(ErrorCode.FETCH_FAILED, wrong) for _ in item.objects]


def decode_fetched(
    item: Item, payloads: Sequence[Payload], decode: Callable[[Item, Sequence[Payload]], Media]
) -> Decoded:
    """An item with what was decoded of the bytes that were read, and their hash; never raises for an item."""
    payloads = _one_per_object(item, payloads)
    asked = _with_types(item, payloads)
    is_read = any(isinstance(payload, bytes) for payload in payloads)
    return Decoded(
        item=asked,
        media=decode(asked, payloads) if is_read else _unread(asked, payloads),
        size_bytes=_read_bytes(payloads) if is_read else (item.size_bytes or None),
        content_hash=_hash(payloads),
    )


def _decode(member: Member, decode: Decode, timeout_s: float) -> Decoded:
    if member.position is None:
        return decode_fetched(member.item, member.payloads, decode)
    began_s = time.monotonic()

    def decode_member(asked: Item, payloads: Sequence[Payload]) -> Media:
        if not member.wanted:
            return Media(kind=Kind.KEYFRAMES)
        if member.is_late(timeout_s):
            detail = "decoding the pictures before it took all the time of the item"
            return Media(kind=Kind.UNKNOWN, error=ErrorCode.TIMEOUT, error_detail=detail)
        media = decode(asked, payloads, limits=member.limits)
        return as_keyframe(media) if member.item.kind is Kind.KEYFRAMES else media

    decoded = decode_fetched(member.request, member.payloads, decode_member)
    member.spent.add(time.monotonic() - began_s)
    size_bytes = decoded.size_bytes if isinstance(member.payloads[0], bytes) else None
    return replace(decoded, item=member.item, size_bytes=size_bytes, position=member.position)


def _hash(payloads: Sequence[Payload]) -> str | None:
    """None unless all could be read."""
    read = [payload for payload in payloads if isinstance(payload, bytes)]
    return content_hash(read) if read and len(read) == len(payloads) else None


def _estimate(member: Member, config: MediaConfig) -> int:
    limited = config if member.limits is None else member.limits.apply(config)
    return estimate_need(member.request, member.payloads, limited) if member.wanted else 0


def _with_types(item: Item, payloads: Sequence[bytes | ItemError]) -> Item:
    """Add the content types that the store reported: claims, like a name."""
    if not any(isinstance(payload, TypedBytes) for payload in payloads):
        return item
    objects = (
        replace(source, content_type=payload.content_type) if isinstance(payload, TypedBytes) else source
        for source, payload in zip(item.objects, payloads, strict=True)
    )
    return replace(item, objects=tuple(objects))


def _unread(item: Item, payloads: Sequence[bytes | ItemError]) -> Media:
    """The result for an item of which nothing could be read: the first reason stands for all."""
    error = next((payload for payload in payloads if isinstance(payload, ItemError)), ItemError(ErrorCode.EMPTY))
    return Media(
        kind=item.kind or Kind.UNKNOWN,
        error=item.error or error.code,
        error_detail=item.error_detail or error.detail,
    )

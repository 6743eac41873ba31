"""Items to rows: fetched and decoded ahead by threads, scored in batches, judged."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from moderation.concurrency import map_ahead
from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.media import decode_item
from moderation.media.need import estimate_need
from moderation.media.objects import Payload
from moderation.pipeline.clock import Clock
from moderation.pipeline.judging import judge_decoded
from moderation.pipeline.pools import Pools
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
            yield clock.timed("judge", partial(judge_decoded, item, votes, policy))


def score_fetched(
    items: Sequence[Item],
    *,
    config: Config,
    stack: Stack,
    pools: Pools,
    clock: Clock,
    poison: Mapping[str, ItemError],
    fetch: Callable[[Item], Sequence[bytes | ItemError]] | None = None,
    changed: Callable[[Decoded], Decoded] = lambda decoded: decoded,
) -> Generator[tuple[Decoded, BatchVotes | ItemError | None], None, None]:
    """Items with what was decoded of them and their frames' votes, in order; see `batching.score_items`.

    changed: what is scored instead of what was decoded; called by the threads that decode.
    """
    read = fetch or Fetcher(items, config.media)
    decode = pools.decode_item or partial(decode_item, config=config.media)

    def fetch_one(item: Item) -> tuple[Item, Sequence[bytes | ItemError]]:
        poison_error = poison.get(item.item_id)
        if poison_error is not None:
            return item, [poison_error for _ in item.objects]
        try:
            payloads = clock.timed("fetch", lambda: read(item), item_id=item.item_id)
        except ItemError as error:
            payloads = [error for _ in item.objects]
        clock.count_read(_read_bytes(payloads))
        return item, payloads

    def decode_one(fetched: tuple[Item, Sequence[bytes | ItemError]]) -> Decoded:
        # Before the item's deadline begins: waiting for memory is no fault of its own.
        with pools.decode_budget.take(estimate_need(*fetched, config.media)):
            decoded_item = clock.timed("decode", lambda: decode_fetched(*fetched, decode), item_id=fetched[0].item_id)
            return changed(decoded_item)

    fetched = map_ahead(
        fetch_one,
        items,
        pools.fetch,
        max_ahead=pools.fetch_threads * 2,
        budget_bytes=config.runtime.fetch_budget_bytes // config.runtime.shards_in_flight,
        expected_bytes=lambda item: item.size_bytes,
        held_bytes=lambda pair: _read_bytes(pair[1]),
        waited=partial(clock.waited, "fetch"),
    )
    frame_bytes = config.runtime.waiting_frame_bytes(on_gpu=stack.device.type == "cuda")
    # Two batches ahead of the device, and at least enough to keep the threads busy.
    decoded = map_ahead(
        decode_one,
        fetched,
        pools.decode,
        max_ahead=max(2 * stack.batch_size, 2 * pools.decode_threads),
        budget_bytes=frame_bytes // config.runtime.shards_in_flight,
        expected_bytes=lambda _: 3 * config.media.canvas_px * config.media.canvas_px * 2,
        held_bytes=lambda d: d.held_bytes,
        waited=partial(clock.waited, "decode"),
    )
    # Closed in this order when a shard fails, so that none of its work goes on in the pools.
    with closing(fetched), closing(decoded):
        yield from score_items(decoded, stack, clock, pools.device)


def _read_bytes(payloads: Sequence[bytes | ItemError]) -> int:
    return sum(len(p) for p in payloads if isinstance(p, bytes))


def decode_fetched(
    item: Item, payloads: Sequence[bytes | ItemError], decode: Callable[[Item, Sequence[Payload]], Media]
) -> Decoded:
    """An item with what was decoded of the bytes that were read, and their hash; never raises for an item."""
    if len(payloads) != len(item.objects):
        # A mistake of `fetch`; it must not cost the shard its other rows.
        wrong = f"{len(payloads)} payloads for {len(item.objects)} objects"
        payloads = [ItemError(ErrorCode.FETCH_FAILED, wrong) for _ in item.objects]
    read = [payload for payload in payloads if isinstance(payload, bytes)]
    item = _with_types(item, payloads)
    return Decoded(
        item=item,
        media=decode(item, payloads) if read else _unread(item, payloads),
        size_bytes=sum(map(len, read)) if read else (item.size_bytes or None),
        content_hash=content_hash(read) if read and len(read) == len(payloads) else None,
    )


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

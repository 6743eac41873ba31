"""Videos -> WebDataset tars of the frames that would be scored, so that a GPU node never decodes video.

The tar of a shard holds, item by item, `<item id>/000123.jpg`, its time in `<item id>/000123.json`, and
`<item id>/item.json`: the item's attributes and, under `cut_from`, the source video, its length and its problems.
Items that are not videos are passed on unchanged, so that a backfill over the tars judges all items of the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from moderation.concurrency import map_ahead
from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.media import decode_item, sniff
from moderation.media.need import estimate_need
from moderation.pipeline.clock import Clock
from moderation.pipeline.counters import peak_memory_bytes
from moderation.pipeline.keyframe_tar import Cut, cut_media, pass_on, write_tar
from moderation.pipeline.pools import Pools
from moderation.results.layout import TARS
from moderation.results.receipts import Receipt, commit_shard
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode, Item, Kind, Media, Shard, Status

CUT_VERSION = "3"  # part of the run's identity: changes whenever the same video may give other tars

Payloads = Sequence[bytes | ItemError]


def cut_shard(
    shard: Shard, *, out: str, config: Config, pools: Pools, poison: Mapping[str, ItemError] | None = None
) -> Receipt:
    """Cut the videos of a shard and commit its tar, `OUT/tars/part-<shard>.tar`.

    poison: item id -> why, for items known to kill or stall the process; they are not touched.
    Raises ShardError (retried by the driver), FatalError.
    """
    clock = Clock()
    cuts = list(cut_items(shard.items, config=config, pools=pools, clock=clock, poison=poison))
    data = clock.timed("write", lambda: write_tar(cuts))
    return commit_shard(
        out,
        shard,
        parts={TARS: data},
        rows={TARS: len(cuts)},
        counted=TARS,
        format_="tar",
        facts={
            "counts": count_cuts(cuts),
            "seconds": {step: round(s, 4) for step, s in clock.seconds.items()},
            "bytes_read": clock.bytes_read,
            "peak_memory_bytes": peak_memory_bytes(),
        },
    )


def cut_items(
    items: Sequence[Item],
    *,
    config: Config,
    pools: Pools,
    clock: Clock | None = None,
    poison: Mapping[str, ItemError] | None = None,
) -> Iterator[Cut]:
    """Cut each item, in order, one result per item; fetched and decoded by threads, bounded by bytes."""
    clock = clock or Clock()
    read = Fetcher(items, config.media)
    poisoned = poison or {}

    def fetch(item: Item) -> tuple[Item, Payloads]:
        poison_error = poisoned.get(item.item_id)
        if poison_error is not None:
            return item, [poison_error for _ in item.objects]
        payloads = clock.timed("fetch", lambda: read(item))
        clock.count_read(_size(payloads))
        return item, payloads

    def cut(fetched: tuple[Item, Payloads]) -> Cut:
        with pools.decode_budget.take(estimate_need(*fetched, config.media)):
            return clock.timed("decode", lambda: cut_item(*fetched, config))

    in_flight = config.runtime.shards_in_flight
    fetched = map_ahead(
        fetch,
        items,
        pools.fetch,
        max_ahead=pools.fetch_threads * 2,
        budget_bytes=config.runtime.fetch_budget_bytes // in_flight,
        expected_bytes=lambda item: item.size_bytes,
        held_bytes=lambda pair: _size(pair[1]),
    )
    # A video's frames are held as pixels while it is cut: this bounds how many videos are cut at once.
    pixels = 3 * config.media.canvas_px * config.media.canvas_px * 2 * config.media.max_frames
    cuts = map_ahead(
        cut,
        fetched,
        pools.decode,
        max_ahead=2 * pools.decode_threads,
        budget_bytes=config.runtime.waiting_frame_bytes(on_gpu=False) // in_flight,
        expected_bytes=lambda _: pixels,
        held_bytes=lambda cut: cut.held_bytes,
    )
    # Closed in this order when a shard fails, so that none of its work goes on in the pools.
    with closing(fetched), closing(cuts):
        yield from cuts


def cut_item(item: Item, payloads: Payloads, config: Config) -> Cut:
    """Cut one item. Frames are chosen and scaled as for scoring; of an item that fails only the reason is kept."""
    failure = _failure(item, payloads)
    if failure is not None:
        return cut_media(item, Media(kind=item.kind or Kind.UNKNOWN, error=failure.code, error_detail=failure.detail))
    data = [p for p in payloads if isinstance(p, bytes)]
    if _is_video(item, data):
        return cut_media(item, decode_item(item, data, config.media))
    return Cut(item=item, members=tuple(pass_on(item, data)), kind=item.kind or Kind.UNKNOWN)


def _failure(item: Item, payloads: Payloads) -> ItemError | None:
    """Why an item cannot be cut: the source's reason first, then that of one of its objects."""
    failure = next((p for p in payloads if isinstance(p, ItemError)), None)
    if item.error is None and failure is None and payloads:
        return None
    reason = failure or ItemError(ErrorCode.EMPTY)
    return ItemError(item.error or reason.code, item.error_detail or reason.detail)


def _is_video(item: Item, data: Sequence[bytes]) -> bool:
    if item.kind is not None or len(data) != 1:
        return False
    sniffed = sniff(data[0])
    return sniffed is not None and sniffed.is_video


def count_cuts(cuts: Iterable[Cut]) -> dict[str, int]:
    """Count the cuts of a shard; the counters of a run are the sums."""
    counts: Counter[str] = Counter()
    for cut in cuts:
        counts[f"status:{Status.OK if cut.error is None else Status.ERROR}"] += 1
        counts[f"kind:{cut.kind}"] += 1
        counts["frames"] += cut.frames
        if cut.error is not None:
            counts[f"error:{cut.error}"] += 1
    return dict(sorted(counts.items()))


def _size(payloads: Payloads) -> int:
    return sum(len(p) for p in payloads if isinstance(p, bytes))

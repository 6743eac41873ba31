"""Videos -> WebDataset tars of the frames that would be scored, so that a node with a GPU never decodes video.

The tar of a shard holds, an item after the other, `<item id>/000123.jpg` with its time in `<item id>/000123.json`, and
`<item id>/item.json`: the item's attributes, and under `cut_from` which video it was, its length and what was wrong
with it. What is no video is passed on as it is, so that a backfill over the tars judges all that the source holds.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from moderation.concurrency import map_ahead
from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.media import decode_item, encode_jpeg, sniff
from moderation.pipeline.clock import Clock
from moderation.pipeline.counters import peak_memory_bytes
from moderation.pipeline.pools import Pools
from moderation.results.layout import TARS
from moderation.results.receipts import Receipt, commit_shard
from moderation.sources.fetch import Fetcher
from moderation.sources.items import make_id
from moderation.sources.keys import PICTURES, VIDEOS
from moderation.sources.tar import MAX_SIDECAR
from moderation.types import ErrorCode, Item, Kind, Media, Shard, Status

CUT_VERSION = "1"  # part of the run's identity: changes whenever the same video may give other tars
# Ids of manifests are anybody's text: others than these stand for themselves only in item.json.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")

Member = tuple[str, bytes]
Payloads = Sequence[bytes | ItemError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The members of one item in a tar. frames: how many were cut; 0 of what was passed on or failed."""

    item: Item
    members: tuple[Member, ...]
    kind: Kind
    frames: int = 0
    error: ErrorCode | None = None

    @property
    def held_bytes(self) -> int:
        """Encoded bytes in memory."""
        return sum(len(data) for _, data in self.members)


def cut_shard(
    shard: Shard, *, out: str, config: Config, pools: Pools, poison: Mapping[str, ItemError] | None = None
) -> Receipt:
    """Cut the videos of a shard and commit its tar, `OUT/tars/part-<shard>.tar`.

    poison: item id -> why, of items that are known to kill or stall the process; they are not touched.
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
    """What each item becomes, in their order, one an item; fetched and decoded by threads, bounded by bytes."""
    clock = clock or Clock()
    read = Fetcher(items, config.media)
    poisoned = poison or {}

    def fetch(item: Item) -> tuple[Item, Payloads]:
        known = poisoned.get(item.item_id)
        if known is not None:
            return item, [known for _ in item.objects]
        payloads = clock.timed("fetch", lambda: read(item))
        clock.count_read(_size(payloads))
        return item, payloads

    def cut(fetched: tuple[Item, Payloads]) -> Cut:
        return clock.timed("decode", lambda: cut_item(*fetched, config))

    in_flight = config.runtime.shards_in_flight
    fetched = map_ahead(
        fetch,
        items,
        pools.fetch,
        most=pools.fetch_threads * 2,
        budget_bytes=config.runtime.fetch_budget_bytes // in_flight,
        expected_bytes=lambda item: item.size_bytes,
        held_bytes=lambda pair: _size(pair[1]),
    )
    # While it is cut, a video's frames are held as pixels: that is what bounds how many are at once.
    pixels = 3 * config.media.canvas_px * config.media.canvas_px * 2 * config.media.max_frames
    done = map_ahead(
        cut,
        fetched,
        pools.decode,
        most=2 * pools.decode_threads,
        budget_bytes=config.runtime.waiting_frame_bytes(on_gpu=False) // in_flight,
        expected_bytes=lambda _: pixels,
        held_bytes=lambda one: one.held_bytes,
    )
    # Closed in this order when a shard fails, so that nothing of it goes on in the pools.
    with closing(fetched), closing(done):
        yield from done


def cut_item(item: Item, payloads: Payloads, config: Config) -> Cut:
    """The members of one item. Frames are chosen and scaled as for scoring; an item that fails is its reason."""
    failed = next((p for p in payloads if isinstance(p, ItemError)), None)
    if item.error is not None or failed is not None or not payloads:
        code = item.error or (failed.code if failed is not None else ErrorCode.EMPTY)
        detail = item.error_detail or (failed.detail if failed is not None else "")
        return _cut(item, Media(kind=item.kind or Kind.UNKNOWN, error=code, error_detail=detail))
    data = [p for p in payloads if isinstance(p, bytes)]
    found = sniff(data[0])
    if item.kind is None and len(data) == 1 and found is not None and found.is_video:
        return _cut(item, decode_item(item, data, config.media))
    return Cut(item=item, members=tuple(_passed_on(item, data)), kind=item.kind or Kind.UNKNOWN)


def write_tar(cuts: Iterable[Cut]) -> bytes:
    """A tar of all members, in order; the same cuts give the same bytes."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for cut in cuts:
                for name, data in cut.members:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()


def count_cuts(cuts: Iterable[Cut]) -> dict[str, int]:
    """Counters of a shard; those of a run are their sums."""
    counts: Counter[str] = Counter()
    for cut in cuts:
        counts[f"status:{Status.OK if cut.error is None else Status.ERROR}"] += 1
        counts[f"kind:{cut.kind}"] += 1
        counts["frames"] += cut.frames
        if cut.error is not None:
            counts[f"error:{cut.error}"] += 1
    return dict(sorted(counts.items()))


def folder_name(item_id: str) -> str:
    """What an item is called in the tar: its id where that is a plain name, else a hash of it."""
    return item_id if _PLAIN_ID.fullmatch(item_id) else make_id("keyframes", item_id)


def _cut(item: Item, media: Media) -> Cut:
    folder = folder_name(item.item_id)
    members: list[Member] = []
    for frame in media.frames:
        members.append((f"{folder}/{frame.index:06d}.jpg", encode_jpeg(frame.pixels)))
        members.append((f"{folder}/{frame.index:06d}.json", _json({"time_s": frame.time_s})))
    members.append((f"{folder}/item.json", _about(item, media)))
    return Cut(item=item, members=tuple(members), kind=media.kind, frames=len(media.frames), error=media.error)


def _passed_on(item: Item, payloads: Sequence[bytes]) -> Iterator[Member]:
    """An item that is no video, so that the tar's reader makes the same item of it."""
    folder = folder_name(item.item_id)
    suffixes = [o.name.rpartition(".")[2].lower() for o in item.objects]
    known = [s if s in PICTURES | VIDEOS else "" for s in suffixes]
    if item.kind is Kind.KEYFRAMES:
        for place, (source, suffix, data) in enumerate(zip(item.objects, known, payloads, strict=True)):
            name = f"{folder}/{place if source.frame is None else source.frame:06d}"
            yield f"{name}.{suffix or 'jpg'}", data
            if source.time_s is not None:
                yield f"{name}.json", _json({"time_s": source.time_s})
        yield f"{folder}/item.json", _about(item)
        return
    if len(payloads) > 1 or item.kind is Kind.ALBUM:
        # A name that says nothing would not be counted to the album; what it is, is decided by content.
        yield from ((f"{folder}.{n}.{s or 'jpg'}", d) for n, (s, d) in enumerate(zip(known, payloads, strict=True)))
    else:
        # Without a known suffix it is taken by content alone, as it was in the source.
        yield f"{folder}.{known[0]}" if known[0] else folder, payloads[0]
    yield f"{folder}.json", _about(item)


def _about(item: Item, media: Media | None = None) -> bytes:
    cut_from: dict[str, object] = {"item_id": item.item_id, "uri": item.uri}
    if len(item.objects) == 1:
        cut_from |= {"etag": item.objects[0].etag, "size_bytes": item.objects[0].size_bytes}
    if media is not None:
        cut_from |= {
            "duration_s": media.duration_s,
            "frames_total": media.frames_total or None,
            "width": media.width,
            "height": media.height,
            "error_code": media.error,
            "error_detail": media.error_detail or None,
        }
    known = {name: value for name, value in cut_from.items() if value is not None}
    whole = _json({**item.attributes, "cut_from": known})
    if len(whole) <= MAX_SIDECAR:
        return whole
    # A reader would leave out the whole file, and with it which video this was.
    return _json({"cut_from": {**known, "left_out": "attributes: too large"}})


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _size(payloads: Payloads) -> int:
    return sum(len(p) for p in payloads if isinstance(p, bytes))

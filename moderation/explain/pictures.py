"""The pictures of chosen items, fetched again as the run fetched them; only content that was judged is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from moderation.concurrency import map_ahead
from moderation.config.model import Config
from moderation.errors import ItemError, UsageError
from moderation.explain.deciding import ExplainTarget
from moderation.media import decode_item
from moderation.media.decoder_pool import DecoderPool
from moderation.media.objects import Payload
from moderation.pipeline.items import decode_fetched
from moderation.planning.slices import find_slices, slice_home
from moderation.results.planned import iterate_planned
from moderation.results.reader import StoredRun
from moderation.sources.allow import resolver
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode, Frame, Item, Media, MediaObject, Role

_THREADS: Final = 2
_HELD_BYTES: Final = 256 << 20
_STRIP_FRAMES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedTarget:
    """An item to explain with the frame that decided, or why there is none.

    others: some of its frames, evenly spread, the deciding one (or the frame that it is cut from) among them; empty for
    an item of one frame.
    """

    target: ExplainTarget
    frame: Frame | None = None
    others: tuple[Frame, ...] = ()
    error_code: str = ""
    error_detail: str = ""


def fetch_targets(run: StoredRun, config: Config, targets: Sequence[ExplainTarget]) -> Iterator[FetchedTarget]:
    """Each target with its deciding frame, in order; two are decoded ahead.

    Raises CredentialsError, StoreDownError where storage answers nobody.
    """
    items = _plan_items(run, config, targets)
    fetcher = Fetcher([item for item in items.values() if isinstance(item, Item)], config.media)
    decode = _decoder(config)

    def fetch(target: ExplainTarget) -> FetchedTarget:
        item = items[target.item_id]
        if isinstance(item, ItemError):
            return FetchedTarget(target=target, error_code=str(item.code), error_detail=item.detail)
        return _fetch_one(target, item, fetcher, decode)

    with ThreadPoolExecutor(_THREADS, "explain") as pool:
        yield from map_ahead(
            fetch,
            targets,
            pool,
            max_ahead=_THREADS,
            budget_bytes=_HELD_BYTES,
            expected_bytes=lambda _: 64 << 20,
            held_bytes=lambda one: sum(f.pixels.nbytes for f in (*one.others, *([one.frame] if one.frame else []))),
        )


def _decoder(config: Config) -> Callable[[Item, Sequence[Payload]], Media]:
    if config.runtime.decoder == "process":
        return DecoderPool(config.media, config.runtime.decoder_memory_bytes).decode
    return partial(decode_item, config=config.media)


def _plan_items(run: StoredRun, config: Config, targets: Sequence[ExplainTarget]) -> Mapping[str, Item | ItemError]:
    """The items as they were planned; of a row in no plan (a verdict that was taken over) what its URI names."""
    wanted = {target.item_id for target in targets}
    items: dict[str, Item | ItemError] = {}
    # A rejudge has no plan of its own.
    for out in dict.fromkeys((run.out, run.votes_out)):
        for shard in iterate_planned([out, *(slice_home(out, part) for part in find_slices(out))]):
            items.update({item.item_id: item for item in shard.items if item.item_id in wanted})
            if len(items) == len(wanted):
                return items
    for target in targets:
        if target.item_id not in items:
            items[target.item_id] = _unplanned_item(run, config, target)
    return items


def _unplanned_item(run: StoredRun, config: Config, target: ExplainTarget) -> Item | ItemError:
    uri = str(target.row["uri"])
    try:
        allowed = resolver(str(run.record.get("source") or uri), config.source.allow)(uri)
    except ItemError as error:
        return error
    except UsageError as error:
        return ItemError(ErrorCode.FORBIDDEN, str(error))
    media = MediaObject(uri=allowed, name=uri.rpartition("/")[2], etag=target.row.get("etag"))
    return Item(item_id=target.item_id, uri=uri, objects=(media,))


def _fetch_one(
    target: ExplainTarget, item: Item, fetcher: Fetcher, decode: Callable[[Item, Sequence[Payload]], Media]
) -> FetchedTarget:
    decoded = decode_fetched(item, fetcher(item), decode)
    if _has_changed(decoded.content_hash, target):
        detail = "its content is not the one that was judged"
        return FetchedTarget(target=target, error_code=str(ErrorCode.CHANGED), error_detail=detail)
    assert target.vote is not None  # the others are not fetched
    frames = decoded.media.frames
    frame = next((one for one in frames if one.index == target.vote.frame), None)
    if frame is None:
        return _without_frame(target, decoded.media, target.vote.frame)
    return FetchedTarget(target=target, frame=frame, others=_spread(frames, _shown(frame)))


def _has_changed(content_hash: str | None, target: ExplainTarget) -> bool:
    judged = target.row.get("content_hash")
    return content_hash is not None and judged is not None and content_hash != judged


def _without_frame(target: ExplainTarget, media: Media, index: int) -> FetchedTarget:
    code = media.error or ErrorCode.NO_FRAMES
    detail = media.error_detail or f"frame {index} is not among its {len(media.frames)} frames"
    return FetchedTarget(target=target, error_code=str(code), error_detail=detail)


def _shown(frame: Frame) -> int:
    """The frame of an item that people see: of a tile, the one that it is cut from."""
    return frame.index if frame.parent is None else frame.parent


def _spread(frames: Sequence[Frame], shown: int) -> tuple[Frame, ...]:
    """At most 8 of the item's frames, evenly spread, and the shown one; empty where there is but one."""
    own = [frame for frame in frames if frame.role is Role.FRAME]
    if len(own) < 2:
        return ()
    count = min(_STRIP_FRAMES, len(own))
    places = {round(i * (len(own) - 1) / (count - 1)) for i in range(count)}
    deciding = next((i for i, frame in enumerate(own) if frame.index == shown), None)
    if deciding is not None and deciding not in places:
        # It takes the place of the nearest, so that the strip stays as long.
        places = (places - {min(places, key=lambda i: abs(i - deciding))}) | {deciding}
    return tuple(own[i] for i in sorted(places))

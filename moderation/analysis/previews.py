"""Small pictures of a run's items for its pages: read again from their source, made small by our decoder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from moderation.config.model import MediaConfig
from moderation.media import decode_item
from moderation.media.preview import encode_preview
from moderation.planning.slices import find_slices, slice_home
from moderation.results.intact import PartMissingError
from moderation.results.layout import VERDICTS
from moderation.results.planned import iterate_planned
from moderation.results.reader import StoredRun, open_run
from moderation.sources.content import content_hash
from moderation.sources.fetch import Fetcher
from moderation.types import Item, Role

PREVIEW_PX: Final = 160
_THREADS: Final = 4
# For a page at the end of a run, which must not wait for one slow video.
_QUICK: Final = {"max_frames": 3, "frame_budget": 3, "decode_timeout_s": 5.0, "tiles": "off", "wholes": "off"}


def make_previews(out: str, item_ids: Iterable[str], *, budget_s: float | None = None) -> dict[str, bytes]:
    """item_id -> a JPEG of the middle frame, at most 160 pixels per side.

    Left out are items that cannot be read, and those of which the content is no longer the one that was judged.

    budget_s: where it is given, only three frames of a video are decoded, and none is begun after so many seconds.
    """
    ends_s = None if budget_s is None else time.monotonic() + budget_s
    run = open_run(out)
    limits = run.load_config().media
    if budget_s is not None:
        limits = limits.model_copy(update=_QUICK)
    items, shard_ids = _planned(out, set(item_ids), ends_s)
    contents = _judged_contents(run, shard_ids)
    fetch = Fetcher(list(items.values()), limits)
    with ThreadPoolExecutor(_THREADS) as pool:
        made = pool.map(
            lambda item: None if _is_over(ends_s) else _preview(item, fetch, limits, contents.get(item.item_id)),
            items.values(),
        )
        return {item_id: data for item_id, data in zip(items, made, strict=True) if data is not None}


def make_quick_previews(out: str, item_ids: Iterable[str]) -> dict[str, bytes]:
    """As `make_previews`, in twenty seconds at most."""
    return make_previews(out, item_ids, budget_s=20.0)


def _preview(item: Item, fetch: Fetcher, limits: MediaConfig, judged: str | None) -> bytes | None:
    payloads = fetch(item)
    read = [p for p in payloads if isinstance(p, bytes)]
    if not read or (judged is not None and content_hash(read) != judged):
        return None
    frames = [f for f in decode_item(item, payloads, limits).frames if f.role is Role.FRAME]
    return encode_preview(frames[len(frames) // 2].pixels, PREVIEW_PX) if frames else None


def _is_over(ends_s: float | None) -> bool:
    return ends_s is not None and time.monotonic() > ends_s


def _planned(out: str, wanted: set[str], ends_s: float | None) -> tuple[Mapping[str, Item], list[str]]:
    """The items of the plan (of every slice's) with these ids, and their shards; reading ends with the last of them."""
    items: dict[str, Item] = {}
    shard_ids: list[str] = []
    for shard in iterate_planned((out, *(slice_home(out, part) for part in find_slices(out)))):
        own = {item.item_id: item for item in shard.items if item.item_id in wanted}
        items.update(own)
        shard_ids += [shard.shard_id] if own else []
        if len(items) == len(wanted) or _is_over(ends_s):
            break
    return items, shard_ids


def _judged_contents(run: StoredRun, shard_ids: Iterable[str]) -> dict[str, str | None]:
    """The content that was judged, by item id; of a part that is gone, none."""
    contents: dict[str, str | None] = {}
    for shard_id in shard_ids:
        with contextlib.suppress(PartMissingError):
            part = run.read_present(VERDICTS, shard_id, ("item_id", "content_hash"))
            hashes = part["content_hash"].to_pylist() if "content_hash" in part.column_names else [None] * len(part)
            contents.update(zip(part["item_id"].to_pylist(), hashes, strict=True))
    return contents

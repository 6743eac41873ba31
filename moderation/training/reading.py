"""Labelled items read one after another, each as one frame and the hash of its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from moderation.concurrency import map_ahead
from moderation.config.model import Config
from moderation.media import decode_item
from moderation.sources.fetch import Fetcher
from moderation.types import Frame, Item

READ_THREADS = 8
_BUDGET_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadItem:
    """An item as read. name: sha256 of its bytes; None where they could not be read.

    frame: what is to be looked at; None where the caller had it already. problem: why nothing can be, else "".
    """

    item: Item
    name: str | None
    frame: Frame | None = None
    problem: str = ""


def hold_to_contents(items: Iterable[Item], contents: Mapping[str, str]) -> list[Item]:
    """The items with the `content_hash` of their labels, by item_id or URI: a file that changed since is not learned.

    The fetcher compares it with what it reads, as it does for a manifest: of items of one object and no stated kind.
    """
    listed = list(items)
    told = [contents.get(item.item_id) or contents.get(item.uri) for item in listed]
    return [
        item if content is None else replace(item, attributes={**item.attributes, "content_hash": content})
        for item, content in zip(listed, told, strict=True)
    ]


def read_items(
    items: Sequence[Item], have: Callable[[str], bool], config: Config, pool: Executor
) -> Generator[ReadItem, None, None]:
    """The items in order, read ahead by the pool; what `have` knows by its name is not decoded.

    Of an item with several frames the one in the middle stands for it.
    """
    fetch = Fetcher(items, config.media)

    def read(item: Item) -> ReadItem:
        if item.error is not None:
            return ReadItem(item=item, name=None, problem=f"{item.error}: {item.error_detail}")
        payloads = fetch(item)
        whole = [p for p in payloads if isinstance(p, bytes)]
        if len(whole) != len(payloads) or not whole:
            problem = next((p for p in payloads if not isinstance(p, bytes)), "nothing to read")
            return ReadItem(item=item, name=None, problem=str(problem))
        name = hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in whole)).hexdigest()
        if have(name):
            return ReadItem(item=item, name=name)
        media = decode_item(item, payloads, config.media)
        if not media.frames:
            return ReadItem(item=item, name=name, problem=f"{media.error}: {media.error_detail}")
        return ReadItem(item=item, name=name, frame=media.frames[len(media.frames) // 2])

    return map_ahead(
        read,
        items,
        pool,
        max_ahead=4 * READ_THREADS,
        budget_bytes=_BUDGET_BYTES,
        expected_bytes=lambda item: item.size_bytes + 3 * config.media.canvas_px**2 * 2,
        held_bytes=lambda read_item: read_item.frame.pixels.nbytes if read_item.frame is not None else 0,
    )

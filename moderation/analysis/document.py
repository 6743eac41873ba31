"""`moderation document`: an inventory as JSON and as a page with small previews, blurred until somebody asks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import torch

from moderation import storage
from moderation.analysis.ask import read_run
from moderation.analysis.inventory import Inventory
from moderation.config.model import Config
from moderation.media import decode_item, encode_jpeg
from moderation.pages.render import render
from moderation.planning.plan import decode_shards, plan_uri
from moderation.sources.fetch import Fetcher
from moderation.types import U8, Item, Role

PREVIEW_PX = 160
_THREADS = 4
_MOST_PREVIEWS = 400  # on one page; 10 KB each


def write_document(found: Inventory, out: str, to: str, *, previews: bool = True) -> str:
    """`<to>/inventory.json` and `<to>/index.html`; returns the page's URI.

    previews: read the examples again from where they lay. What cannot be read has none.
    """
    wanted = dict.fromkeys(e.item_id for c in found.concepts for e in c.examples) if previews else {}
    shown = make_previews(out, list(wanted)[:_MOST_PREVIEWS]) if wanted else {}
    concepts = [{**asdict(c), "share": c.share} for c in found.concepts]
    text = json.dumps({**asdict(found), "concepts": concepts}, indent=1, ensure_ascii=False)
    storage.publish(storage.join(to, "inventory.json"), text.encode())
    page = storage.join(to, "index.html")
    storage.publish(page, render("document.html", found=found, out=out, previews=shown).encode())
    return page


def make_previews(out: str, item_ids: Iterable[str]) -> dict[str, bytes]:
    """item_id -> a JPEG of at most 160 pixels a side, of the frame in the middle; of those that can be read."""
    config: Config = read_run(out)["config"]
    items = _planned(out, set(item_ids))
    fetch = Fetcher(list(items.values()), config.media)

    def preview(item: Item) -> bytes | None:
        payloads = fetch(item)
        if not any(isinstance(p, bytes) for p in payloads):
            return None
        frames = [f for f in decode_item(item, payloads, config.media).frames if f.role is Role.FRAME]
        return encode_jpeg(shrink(frames[len(frames) // 2].pixels)) if frames else None

    with ThreadPoolExecutor(_THREADS) as pool:
        made = zip(items, pool.map(preview, items.values()), strict=True)
        return {item_id: data for item_id, data in made if data is not None}


def shrink(pixels: U8, side: int = PREVIEW_PX) -> U8:
    """uint8 [H,W,3] with the longer side at most `side`."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)
    found: U8 = small[0].permute(1, 2, 0).contiguous().numpy()
    return found


def _planned(out: str, wanted: set[str]) -> Mapping[str, Item]:
    """The items of the plan (of every slice's) with these ids."""
    found: dict[str, Item] = {}
    for uri in _plans(out):
        data = storage.read_optional(uri)
        for shard in decode_shards(data) if data is not None else ():
            found.update({item.item_id: item for item in shard.items if item.item_id in wanted})
    return found


def _plans(out: str) -> list[str]:
    whole = plan_uri(out)
    try:
        sliced = [info.uri for info in storage.list_objects(storage.join(out, "slices"))]
    except FileNotFoundError:
        sliced = []
    return [whole, *(uri for uri in sliced if uri.endswith("/plan.parquet"))]

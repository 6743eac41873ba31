"""`moderation document`: an inventory as JSON and as a page with small previews, blurred until a reader clicks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import torch

from moderation import storage
from moderation.analysis.inventory import Inventory
from moderation.media import decode_item, encode_jpeg
from moderation.pages.render import render
from moderation.planning.names import plan_uri
from moderation.planning.plan import decode_shards
from moderation.planning.slices import find_slices, slice_home
from moderation.results.layout import INVENTORY_FILE, PAGE_FILE
from moderation.results.reader import open_run
from moderation.sources.fetch import Fetcher
from moderation.types import U8, Item, Role

PREVIEW_PX = 160
_THREADS = 4
_MAX_PREVIEWS = 400  # on one page; 10 KB each


def write_document(inventory: Inventory, out: str, to: str, *, previews: bool = True) -> str:
    """Write `<to>/inventory.json` and `<to>/index.html`; returns the page's URI.

    previews: read the examples again from their source. An example that cannot be read has none.
    """
    wanted = dict.fromkeys(e.item_id for c in inventory.concepts for e in c.examples) if previews else {}
    shown = make_previews(out, list(wanted)[:_MAX_PREVIEWS]) if wanted else {}
    concepts = [{**asdict(c), "share": c.share} for c in inventory.concepts]
    text = json.dumps({**asdict(inventory), "concepts": concepts}, indent=1, ensure_ascii=False)
    storage.publish(storage.join(to, INVENTORY_FILE), text.encode())
    page = storage.join(to, PAGE_FILE)
    storage.publish(page, render("document.html", found=inventory, out=out, previews=shown).encode())
    return page


def make_previews(out: str, item_ids: Iterable[str]) -> dict[str, bytes]:
    """item_id -> a JPEG of the middle frame, at most 160 pixels per side; items that cannot be read are left out."""
    limits = open_run(out).load_config().media
    items = _planned(out, set(item_ids))
    fetch = Fetcher(list(items.values()), limits)

    def preview(item: Item) -> bytes | None:
        payloads = fetch(item)
        if not any(isinstance(p, bytes) for p in payloads):
            return None
        frames = [f for f in decode_item(item, payloads, limits).frames if f.role is Role.FRAME]
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
    shrunk: U8 = small[0].permute(1, 2, 0).contiguous().numpy()
    return shrunk


def _planned(out: str, wanted: set[str]) -> Mapping[str, Item]:
    """The items of the plan (of every slice's) with these ids."""
    items: dict[str, Item] = {}
    for home in (out, *(slice_home(out, part) for part in find_slices(out))):
        data = storage.read_optional(plan_uri(home))
        for shard in decode_shards(data) if data is not None else ():
            items.update({item.item_id: item for item in shard.items if item.item_id in wanted})
    return items

"""`moderation document`: an inventory as JSON and as a page with small previews, blurred until a reader clicks."""

from __future__ import annotations

import json
from dataclasses import asdict

from moderation import storage
from moderation.analysis.inventory import Inventory
from moderation.analysis.previews import make_previews
from moderation.pages.render import render
from moderation.results.layout import INVENTORY_FILE, PAGE_FILE

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

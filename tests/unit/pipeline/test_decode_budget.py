"""Decoders of a worker share a budget of bytes: large pictures are not decoded beside each other."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image

from moderation.config.model import Config
from moderation.media.objects import Payload
from moderation.pipeline import items as items_module
from moderation.pipeline.pools import make_pools
from moderation.types import Item, Kind, Media, MediaObject


def large_picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (3000, 2000)).save(sink, "PNG")  # 48 MB while it is decoded
    return sink.getvalue()


@pytest.mark.parametrize(("budget_mib", "most"), [(64, 1), (1024, 4)])
def test_as_many_are_decoded_at_once_as_the_budget_has_room_for(
    budget_mib: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate({"runtime": {"decode_budget_bytes": budget_mib << 20}})
    items = [
        Item(item_id=str(n), uri=str(n), objects=(MediaObject(uri=str(n), name=f"{n}.png"),), kind=None)
        for n in range(8)
    ]
    lock, running, seen = threading.Lock(), 0, 0
    together = threading.Barrier(most)

    def decode(item: Item, payloads: Sequence[Payload], *, limits: object = None) -> Media:
        nonlocal running, seen
        with lock:
            running += 1
            seen = max(seen, running)
        together.wait(30)  # as many as there may be are there at once
        with lock:
            running -= 1
        return Media(kind=Kind.IMAGE)

    pools = replace(make_pools(config, 4), decode_item=decode)
    data = large_picture()
    monkeypatch.setattr(items_module, "score_items", lambda decoded, *_: ((d, None) for d in decoded))
    monkeypatch.setattr(items_module, "judge_decoded", lambda item, *_: item)

    stack = SimpleNamespace(batch_size=16, illegal=(), device=SimpleNamespace(type="cpu"))

    rows = list(
        items_module.moderate_items(
            items,
            config=config,
            stack=stack,
            policy=None,
            pools=pools,
            fetch=lambda item: [data],  # type: ignore[arg-type] # no stack, no policy
        )
    )
    assert len(rows) == 8
    assert seen == most

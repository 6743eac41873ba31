"""Keyframes of a video of which something was not seen say so, too."""

from __future__ import annotations

from moderation.config.model import MediaConfig
from moderation.media import decode_item
from moderation.types import Item, Kind, MediaObject
from tests.drawn_media import jpegs


def test_what_the_cutting_did_not_see_is_unseen_in_the_keyframes() -> None:
    objects = (MediaObject(uri="a.jpg", name="a.jpg", frame=0, time_s=0.0),)
    item = Item(
        item_id="v", uri="v", objects=objects, kind=Kind.KEYFRAMES, attributes={"cut_from.unseen": "track,picture"}
    )
    assert decode_item(item, jpegs(1), MediaConfig()).unseen == ("track", "picture")

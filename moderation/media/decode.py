"""One item: the bytes of its objects -> its frames, or the code of what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

from moderation.config.model import MediaConfig
from moderation.media.album import decode_album
from moderation.media.keyframes import decode_keyframes
from moderation.media.limits import MemberLimits, start_deadline
from moderation.media.objects import Payload, claims_media, decode_object
from moderation.types import Item, Kind, Media


def decode_item(
    item: Item, payloads: Sequence[Payload], config: MediaConfig, limits: MemberLimits | None = None
) -> Media:
    """Decode one item; `payloads` are its objects' bytes (or why there are none), in order.

    limits: where it is one object of an item of several, what that may have.

    Every frame's `index` is unique in the item. An ItemError, a decoder's error or a MemoryError becomes
    `Media(error=..., error_detail=...)`. An album or keyframe set with failed members has the frames of the others and
    the first failure's code. The whole item has `config.decode_timeout_s` seconds.
    Raises ValueError when there is not one payload per object (a mistake of the caller).
    """
    if item.error is not None:
        return Media(kind=item.kind or Kind.UNKNOWN, error=item.error, error_detail=item.error_detail)
    if len(payloads) != len(item.objects):
        raise ValueError(f"{len(payloads)} payloads for {len(item.objects)} objects of {item.item_id}")
    config = config if limits is None else limits.apply(config)
    deadline = start_deadline(config.decode_timeout_s)
    claims = [claims_media(o) for o in item.objects]
    if item.kind is Kind.KEYFRAMES:
        return decode_keyframes(item, payloads, config, deadline)
    if item.kind is Kind.ALBUM or len(payloads) != 1:
        return decode_album(claims, payloads, config, deadline)
    return decode_object(claims[0], payloads[0], config, deadline)

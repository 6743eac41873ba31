"""The members of a tar -> its items."""

from __future__ import annotations

from collections.abc import Sequence

from moderation.sources.clips import clip_items
from moderation.sources.items import error_item, make_id
from moderation.sources.keys import by_key, hidden_items, key_items, key_of
from moderation.sources.tar import TarMember
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item, Kind


def tar_items(info: ObjectInfo, indexed: Sequence[TarMember], *, keyframes: bool) -> list[Item]:
    """The items of a tar in the order of their first members, and a row for a fault of the archive.

    indexed: as `read_members` yields them. An album or a set of keyframes at which a broken archive ends is an error
    row: how many of its pictures are missing is unknown.
    """
    members = [member for member in indexed if member.name]
    faults = [member for member in indexed if not member.name]
    keys = by_key(members)
    if keyframes:
        items = list(clip_items(info, keys))
    else:
        items = [item for key, parts in keys.items() for item in key_items(info, key, parts)]
    items += list(hidden_items(info, members, items))
    if faults and members:
        items = [_cut(item, faults[0]) if _holds(item, members[-1]) else item for item in items]
    # An id that no key has.
    archive_id = make_id(info.uri, "archive")
    return [*items, *(error_item(archive_id, info.uri, f.error or ErrorCode.CORRUPT, f.detail) for f in faults)]


def _holds(item: Item, last: TarMember) -> bool:
    """Whether the last member belongs to this album or set of keyframes: one of its pictures, or a text beside them."""
    if item.kind not in (Kind.ALBUM, Kind.KEYFRAMES):
        return False
    keys = {key_of(source.name) for source in item.objects}
    if item.kind is Kind.ALBUM:
        return key_of(last.name) in keys
    folders = {key.rpartition("/")[0] for key in keys}
    return bool(folders & {key_of(last.name), key_of(last.name).rpartition("/")[0]})


def _cut(item: Item, fault: TarMember) -> Item:
    detail = f"the last item of a tar that is broken behind it; there may be more of it: {fault.detail}"
    return error_item(item.item_id, item.uri, fault.error or ErrorCode.CORRUPT, detail, item.attributes)

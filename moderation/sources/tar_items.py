"""The members of a tar -> its items."""

from __future__ import annotations

from collections.abc import Sequence

from moderation.sources.clips import clip_items
from moderation.sources.items import error_item, make_id
from moderation.sources.keys import PICTURES, Parts, by_key, hidden_items, key_items, key_of
from moderation.sources.tar import TarMember, suffix_of
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item, Kind


def tar_items(info: ObjectInfo, indexed: Sequence[TarMember], *, keyframes: bool) -> list[Item]:
    """The items of a tar in the order of their first members, and a row for a fault of the archive.

    indexed: as `read_members` yields them. An album or a set of keyframes at which a broken archive ends is an error
    row: how many of its pictures are missing is unknown. So is a picture that is named as one of several (`a.0.jpg`).
    """
    members = [member for member in indexed if member.name]
    faults = [member for member in indexed if not member.name]
    items = _keyed_items(info, by_key(members), keyframes=keyframes)
    items += list(hidden_items(info, members, items))
    for fault in faults[:1] if members else ():
        items = [_cut(item, fault) if _holds(item, members[-1]) else item for item in items]
    # An id that no key has.
    archive_id = make_id(info.uri, "archive")
    return [*items, *(error_item(archive_id, info.uri, _code(fault), fault.detail) for fault in faults)]


def _code(fault: TarMember) -> ErrorCode:
    return fault.error or ErrorCode.CORRUPT


def _keyed_items(info: ObjectInfo, keys: dict[str, Parts], *, keyframes: bool) -> list[Item]:
    if keyframes:
        return list(clip_items(info, keys))
    return [item for key, parts in keys.items() for item in key_items(info, key, parts)]


def _holds(item: Item, last: TarMember) -> bool:
    """Whether the last member belongs to this album or set of keyframes: one of its pictures, or a text beside them."""
    keys = {key_of(source.name) for source in item.objects}
    if item.kind is not Kind.KEYFRAMES:
        return key_of(last.name) in keys and (item.kind is Kind.ALBUM or _is_of_several(item.objects[0].name))
    folders = {key.rpartition("/")[0] for key in keys}
    return bool(folders & {key_of(last.name), key_of(last.name).rpartition("/")[0]})


def _is_of_several(name: str) -> bool:
    """Whether a picture's name says more than its key: there may be others of it. Of videos each is an item."""
    suffix = suffix_of(name)
    return suffix in PICTURES and len(name) > len(key_of(name)) + 1 + len(suffix)


def _cut(item: Item, fault: TarMember) -> Item:
    detail = f"the last item of a tar that is broken behind it; there may be more of it: {fault.detail}"
    return error_item(item.item_id, item.uri, _code(fault), detail, item.attributes)

"""A manifest of selected items, which any source of ours reads: the same ids, objects and attributes again.

One line per object: `uri`, `item_id`, for albums `group`, for keyframes `frame` and `time_s`; then the attributes. An
attribute whose name is reserved in a manifest gets a `_` appended. URIs have no signatures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from moderation import storage
from moderation.results.export.plain import json_line
from moderation.results.export.selection import SelectedRow
from moderation.sources.rows import SPECIAL
from moderation.types import Item, Kind, MediaObject

_BY_ALBUM = "group"


def write_manifest(rows: Iterable[Sequence[SelectedRow]], file: IO[bytes]) -> int:
    """Write JSON lines; returns the number of items."""
    count = 0
    for part in rows:
        for row in part:
            for line in manifest_lines(row):
                file.write(json_line(line))
            count += 1
    return count


def manifest_lines(row: SelectedRow) -> Iterator[dict[str, Any]]:
    """The lines of one item."""
    item = row.item
    if item is None or not item.objects or _is_packed(item):
        # An error row without an object gives an error row again; a packed item has the URI that its source gave it.
        uri = row.cells["uri"] if item is None else item.uri
        yield {"uri": storage.mask_signatures(uri), "item_id": row.item_id, **_attributes(row, item)}
        return
    for index, media in enumerate(item.objects):
        yield {**_line_of(row, item, media), **_attributes_of_line(row, item, index), **_own_id(row, item, index)}


def _is_packed(item: Item) -> bool:
    """Whether the item lies in a tar or a table; its URI has the member or row after a `#`."""
    return any(media.offset is not None or media.column is not None for media in item.objects)


def _line_of(row: SelectedRow, item: Item, media: MediaObject) -> dict[str, Any]:
    line: dict[str, Any] = {"uri": storage.mask_signatures(media.uri), "item_id": row.item_id}
    if item.kind is Kind.KEYFRAMES:
        # Rows with one id are keyframes where they have a frame index or a time.
        places = {"frame": media.frame, "time_s": media.time_s}
        line |= {name: place for name, place in places.items() if place is not None}
    elif item.kind is Kind.ALBUM:
        line[_BY_ALBUM] = row.attributes.get(_BY_ALBUM, row.item_id)
    return line


def _own_id(row: SelectedRow, item: Item, index: int) -> dict[str, str]:
    """The own id of the nth picture of an album, if it had one: then the group names the album."""
    given = item.attributes.get("item_id", "")
    own = _entry(given, len(item.objects), index) if item.kind is Kind.ALBUM else None
    return {"item_id": own} if own is not None and own != given else {}


def _attributes_of_line(row: SelectedRow, item: Item, index: int) -> dict[str, str]:
    """The attributes of the nth object: where objects differ, the source made a JSON list of them."""
    lines = {name: _entry(value, len(item.objects), index) for name, value in _attributes(row, item).items()}
    return {name: value for name, value in lines.items() if value is not None}


def _entry(value: str, count: int, index: int) -> str | None:
    if count == 1:
        return value
    try:
        entries = json.loads(value) if value.startswith("[") else None
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or len(entries) != count:
        return value
    entry = entries[index]
    return entry if entry is None or isinstance(entry, str) else value


def _attributes(row: SelectedRow, item: Item | None) -> dict[str, str]:
    attributes: Mapping[str, str] = row.attributes if item is None else item.attributes
    taken = {_BY_ALBUM} if item is not None and item.kind is Kind.ALBUM else set()
    if item is not None and _own_id(row, item, 0):
        taken.add("item_id")
    return {f"{k}_" if k in SPECIAL else k: v for k, v in attributes.items() if k not in taken}

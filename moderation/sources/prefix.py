"""A prefix or a glob: every file below it is an item, its type decided by content later."""

from __future__ import annotations

from collections.abc import Iterator

from moderation.config.model import SourceConfig
from moderation.sources.items import base_name, clean_text, error_item, make_id
from moderation.sources.listed import entry_error, list_entries
from moderation.types import ErrorCode, Item, MediaObject


def prefix_items(source: str, config: SourceConfig) -> Iterator[Item]:
    """One item per file, in the listing's order, as the listing comes in.

    Raises FileNotFoundError when nothing is there, PermissionError, StorageError.
    """
    for info in list_entries(source, config):
        shown = clean_text(info.uri)
        item_id = make_id(info.uri)
        if shown != info.uri:
            # No table can hold such a name, so no worker could find the file again.
            yield error_item(item_id, shown, ErrorCode.NOT_FOUND, "the file's name is not valid UTF-8: rename it")
            continue
        if info.error is not None:
            yield entry_error(info)
            continue
        media = MediaObject(uri=info.uri, name=base_name(info.uri), size_bytes=info.size_bytes, etag=info.etag)
        yield Item(item_id=item_id, uri=info.uri, objects=(media,))

"""Sources: a prefix or glob, a manifest, WebDataset tars, tables with bytes, requests of a Batch -> items, lazily."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import table
from moderation.sources.cells import read_cells
from moderation.sources.kinds import kind_by_content, kind_by_name
from moderation.sources.manifest import manifest_items
from moderation.sources.prefix import prefix_items
from moderation.sources.requests import is_requests, request_items
from moderation.sources.table import table_items
from moderation.sources.webdataset import webdataset_items
from moderation.types import Item

__all__ = ["open_source", "read_cells", "source_type"]

_READERS: dict[str, Callable[[str, SourceConfig], Iterator[Item]]] = {
    "prefix": prefix_items,
    "manifest": manifest_items,
    "webdataset": webdataset_items,
    "parquet": table_items,
    "requests": request_items,
}
_EMPTY = {
    "prefix": "holds no files",
    "manifest": "the manifest has no rows",
    "webdataset": "no members in any tar",
    "parquet": "no rows in any table",
    "requests": "no lines",
}


def open_source(source: str, config: SourceConfig) -> Iterator[Item]:
    """The items of a source, lazily, in a stable order, with ids that are unique in it.

    Raises at once, before the first item is asked for: UsageError, in one sentence, for a source that is missing,
    empty, not readable, or not of its type. Raises while iterating: UsageError for what only shows later
    (`max_manifest_rows`, a list that is gone), StorageError when storage keeps failing. A single bad object or row is
    an item with `error`.
    """
    storage.refuse_no_bucket(source)
    try:
        kind = source_type(source, config)
        items = _READERS[kind](source, config)
        first = next(items, None)
    except FileNotFoundError as error:
        raise UsageError(f"{_shown(source)}: there is nothing there") from error
    except PermissionError as error:
        raise UsageError(f"{_shown(source)}: may not be read: {' '.join(str(error).split())}") from error
    except (OSError, ValueError) as error:
        # The system's error about the source itself: too long a name, a loop of links, a failing disk.
        raise UsageError(f"{_shown(source)}: can't be read: {' '.join(str(error).split())}") from error
    if first is None:
        raise UsageError(f"{_shown(source)}: empty: {_EMPTY[kind]}")
    return chain((first,), _name_lost_part(items, source))


def _name_lost_part(items: Iterator[Item], source: str) -> Iterator[Item]:
    """The items; UsageError for a list of several that is gone, or may not be read, when it is its turn."""
    try:
        yield from items
    except storage.CredentialsError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise UsageError(f"{_shown(source)}: a part of it can't be read: {' '.join(str(error).split())}") from error


def _shown(source: str) -> str:
    return storage.mask_signatures(source)


def source_type(source: str, config: SourceConfig) -> str:
    """`prefix`, `manifest`, `webdataset`, `parquet` or `requests`: as configured, else by the name of the source.

    A Parquet or Arrow file with a text column `uri` is a manifest, one with a column of bytes a table of bytes. A
    folder of nothing but tars or tables is read as those. Raises UsageError when it is both or neither.
    """
    if config.type != "auto":
        return config.type
    kind = kind_by_name(source)
    if kind == "prefix":
        kind = kind_by_content(source, config)
    if kind == "manifest" and not storage.is_glob(source) and is_requests(source):
        return "requests"
    return _table_kind(source, config) if kind == "table" else kind


def _table_kind(source: str, config: SourceConfig) -> str:
    first = table.first_file(source, config)
    has_uri, has_bytes = table.has_uri_and_bytes(first)
    if has_uri and has_bytes:
        raise UsageError(
            f"{first}: has both a column `uri` and a column of bytes: say which by source.type=manifest or parquet"
        )
    if not has_uri and not has_bytes:
        columns = table.describe_schema(first)
        raise UsageError(f"{first}: has neither a column `uri` (a manifest) nor a column of bytes; it has: {columns}")
    return "manifest" if has_uri else "parquet"

"""Items inside of tars and tables, by the URIs that the tables of a run give them: `x.tar#a/b.jpg`, `x.parquet#row=7`.

With these a manifest may name them, and the reviews of a run over packed data can be judged again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources import columnar
from moderation.sources.cells import count_pictures, element_column
from moderation.sources.items import MAX_OBJECTS, error_item, make_id
from moderation.sources.keys import NAMED, READ_SIDECARS
from moderation.sources.leaves import LIST
from moderation.sources.table import bytes_column
from moderation.sources.tar import read_members
from moderation.sources.tar_items import tar_items
from moderation.types import ErrorCode, Item, Kind, MediaObject

_PACKED = re.compile(r"(?P<container>.+\.(?:tar|parquet|arrow|feather))#(?P<inside>.+)", re.IGNORECASE | re.DOTALL)
_ROW = re.compile(r"row=([0-9]{1,12})")
# Rows of a manifest mostly name one container after the other; an index holds the names of a whole tar.
_MAX_OPEN = 4


def split_packed(uri: str) -> tuple[str, str] | None:
    """The container and the fragment; None where a URI names no part of a container."""
    match = _PACKED.fullmatch(uri) if "#" in uri else None
    return None if match is None else (match["container"], match["inside"])


class _Index(Protocol):
    def find(self, inside: str) -> Item:
        """The item that a fragment names. Raises ItemError."""
        ...


class PackedItems:
    """Finds items in containers. A container is indexed once for requests that follow each other."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._open: OrderedDict[str, _Index | ItemError] = OrderedDict()

    def find(self, container: str, inside: str) -> Item:
        """The item, as the source of that kind would list it. container: a canonical URI that may be read.

        Raises ItemError where there is no such container or part, or it is damaged.
        """
        index = self._index_of(container)
        if isinstance(index, ItemError):
            raise ItemError(index.code, index.detail)
        return index.find(inside)

    def _index_of(self, container: str) -> _Index | ItemError:
        if container in self._open:
            self._open.move_to_end(container)
            return self._open[container]
        index = self._read_index(container)
        self._open[container] = index
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)
        return index

    def _read_index(self, container: str) -> _Index | ItemError:
        try:
            if container.lower().endswith(".tar"):
                return _index_tar(container, self._config)
            return _index_table(container, self._config)
        except FileNotFoundError as error:
            return ItemError(ErrorCode.NOT_FOUND, str(error))
        except PermissionError as error:
            return ItemError(ErrorCode.FORBIDDEN, str(error))
        except storage.ChangedError as error:
            return ItemError(ErrorCode.CHANGED, str(error))
        except UsageError as error:
            return ItemError(ErrorCode.CORRUPT, str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _TarIndex:
    items: dict[str, Item]  # by their URIs

    container: str

    def find(self, inside: str) -> Item:
        item = self.items.get(f"{self.container}#{inside}")
        if item is None:
            raise ItemError(ErrorCode.NOT_FOUND, f"{self.container}: has no member {inside!r} that begins an item")
        return item


def _index_tar(container: str, config: SourceConfig) -> _TarIndex:
    info = storage.info(container)
    items = tar_items(info, list(read_members(info, READ_SIDECARS, NAMED)), keyframes=config.keyframes)
    by_uri: dict[str, Item] = {}
    for item in items:
        # Of two members of one name a row means one, and the other would pass as that one.
        twice = error_item(item.item_id, item.uri, ErrorCode.CORRUPT, "the tar has several items of this name")
        by_uri[item.uri] = twice if item.uri in by_uri else item
    return _TarIndex(container=container, items=by_uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableIndex:
    """ends: rows up to the end of each row group. counts: pictures of each row, only for a column of lists."""

    container: str
    etag: str | None
    column: str
    ends: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]

    def find(self, inside: str) -> Item:
        match = _ROW.fullmatch(inside)
        row = int(match[1]) if match else -1
        if not 0 <= row < (self.ends[-1] if self.ends else 0):
            raise ItemError(ErrorCode.NOT_FOUND, f"{self.container}: has no {inside!r}; rows are `row=0` and so on")
        group = bisect_right(self.ends, row)
        at = row - (0, *self.ends)[group]
        item_id, where = make_id(self.container, self.column, row), f"{self.container}#row={row}"
        if LIST not in self.column:
            return Item(item_id=item_id, uri=where, objects=(self._cell(group, at, self.column),))
        count = self.counts[group][at] if at < len(self.counts[group]) else 0
        if not 0 < count <= MAX_OBJECTS:
            code = ErrorCode.TOO_LARGE if count else ErrorCode.EMPTY
            return error_item(item_id, where, code, f"{count:,} pictures in the cell")
        objects = tuple(self._cell(group, at, element_column(self.column, nth)) for nth in range(count))
        return Item(item_id=item_id, uri=where, objects=objects, kind=Kind.ALBUM if count > 1 else None)

    def _cell(self, group: int, row: int, column: str) -> MediaObject:
        return MediaObject(uri=self.container, name="", etag=self.etag, row_group=group, row=row, column=column)


def _index_table(container: str, config: SourceConfig) -> _TableIndex:
    info = storage.info(container)
    with columnar.open_columnar(container, etag=info.etag) as table:
        column = bytes_column(table, config.bytes_column)
        try:
            sizes = [columnar.group_rows(table, group) for group in range(table.groups)]
            lists = sizes if LIST in column else []
            counts = tuple(tuple(count_pictures(table, g, column, rows)) for g, rows in enumerate(lists))
        except columnar.DAMAGE as error:
            columnar.raise_unless_corrupt(error)
            raise UsageError(f"{container}: a damaged table") from error
    ends = tuple(accumulate(sizes))
    return _TableIndex(container=container, etag=info.etag, column=column, ends=ends, counts=counts)

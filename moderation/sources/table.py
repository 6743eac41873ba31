"""Parquet and Arrow files with a column of encoded bytes: one item per row; the bytes are read by the worker.

Listing reads the footer, `item_id` and the columns that become attributes. For an Arrow file whose only column is the
bytes it reads these: the format states nowhere else how many rows a batch has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources import columnar
from moderation.sources.cells import all_bytes_leaves, count_pictures, element_column, no_bytes
from moderation.sources.column_names import describe_columns
from moderation.sources.columnar import Columnar
from moderation.sources.items import (
    MAX_OBJECTS,
    UniqueIds,
    base_name,
    bound_attributes,
    bound_id,
    error_item,
    make_id,
)
from moderation.sources.leaves import LIST, attribute_leaves, is_text, leaf_column
from moderation.sources.listed import entry_error, gone_item, list_files
from moderation.sources.texts import text_values
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item, Kind, MediaObject

# Columns that may hold the name of a cell's bytes; the first that exists is used.
_NAMES = ("name", "filename", "file_name", "path", "key")


def table_items(source: str, config: SourceConfig) -> Iterator[Item]:
    """One item per row, in the order of files and rows; several pictures in a row are an album.

    The first file decides whether there is a bytes column; a later file without it is an error row.
    Raises UsageError, FileNotFoundError, PermissionError, StorageError.
    """
    ids = UniqueIds()
    left = config.max_manifest_rows
    for info, first in list_files(source, columnar.SUFFIXES, config):
        if info.error is not None:
            yield entry_error(info)
            continue
        try:
            with columnar.open_columnar(info.uri, etag=info.etag) as table:
                column = bytes_column(table, config.bytes_column)
                for item in _file_items(table, column, info, ids):
                    left -= 1
                    if left < 0:
                        raise _TooManyRowsError
                    yield item
        except _TooManyRowsError:
            limit = f"source.max_manifest_rows = {config.max_manifest_rows}"
            raise UsageError(f"{info.uri}: more rows than {limit}") from None
        except UsageError as error:
            if first:
                raise
            yield error_item(make_id(info.uri), info.uri, ErrorCode.CORRUPT, str(error))
        except (FileNotFoundError, PermissionError, storage.ChangedError) as error:
            if first and not isinstance(error, storage.ChangedError):
                raise
            yield gone_item(info.uri, error)


class _TooManyRowsError(Exception):
    """More rows than a source may have; not the fault of one file."""


def bytes_column(table: Columnar, named: str | None) -> str:
    """The column with the encoded bytes: `image`, or a nested one such as `image.bytes` or `images[]`.

    Raises UsageError when there is none, or several and none is named.
    """
    leaves = all_bytes_leaves(table)
    if named is not None:
        also = [f"{named}{end}" for end in ("", ".bytes", LIST, f"{LIST}.bytes")]
        meant = [leaf for leaf in leaves if leaf in also]
        if not meant:
            raise UsageError(f"{table.uri}: no bytes column {named!r}; it has: {', '.join(leaves) or 'none'}")
        return meant[0]
    if not leaves:
        raise UsageError(f"{table.uri}: no bytes column; its columns are: {', '.join(table.schema.names)}")
    if len(leaves) > 1:
        raise UsageError(f"{table.uri}: several bytes columns ({', '.join(leaves)}): name one by source.bytes_column")
    return leaves[0]


def _file_items(table: Columnar, column: str, info: ObjectInfo, ids: UniqueIds) -> Iterator[Item]:
    before = 0
    for group in range(table.groups):
        done = 0
        fault = ItemError(ErrorCode.CORRUPT, "a damaged part of the table")
        try:
            for cell, count, attributes in _group_cells(table, group, column, info):
                yield _row_item(cell, before + done, count, attributes, ids)
                done += 1
        except columnar.DAMAGE as error:
            columnar.raise_unless_corrupt(error)
            fault = columnar.describe_damage(error, fault.detail)
        rows = _rows_in(table, group, done)
        yield from _damaged_rows(info, column, range(before + done, before + rows), fault)
        before += rows


def _rows_in(table: Columnar, group: int, done: int) -> int:
    """Rows of a row group; for a damaged batch of an Arrow file, which has no count, one more than were read."""
    try:
        return columnar.group_rows(table, group)
    except columnar.DAMAGE as error:
        columnar.raise_unless_corrupt(error)
        return done + 1


def _group_cells(
    table: Columnar, group: int, column: str, info: ObjectInfo
) -> Iterator[tuple[MediaObject, int, dict[str, str]]]:
    """The cells of one row group, each with how many pictures it holds and the attributes of its row."""
    leaves = attribute_leaves(table.schema)
    name_leaf = next((n for n in (column.rpartition(".")[0] + ".path", *_NAMES) if n in leaves), None)
    rows = columnar.group_rows(table, group)
    counts = count_pictures(table, group, column, rows)
    for row, attributes in enumerate(_group_attributes(table, group, leaves, rows)):
        name = base_name(attributes.get(name_leaf, "") if name_leaf else "")
        cell = MediaObject(uri=info.uri, name=name, etag=info.etag, row_group=group, row=row, column=column)
        yield cell, next(counts, 1), attributes


def _damaged_rows(info: ObjectInfo, column: str, rows: range, fault: ItemError) -> Iterator[Item]:
    for row in rows:
        item_id, where = make_id(info.uri, column, row), f"{info.uri}#row={row}"
        yield error_item(item_id, where, fault.code, fault.detail)


def _group_attributes(table: Columnar, group: int, leaves: list[str], rows: int) -> Iterator[dict[str, str]]:
    if not leaves:
        yield from ({} for _ in range(rows))
        return
    for batch in columnar.read_batches(table, group, leaves):
        texts = {name: text_values(leaf_column(batch, name)) for name in leaves}
        for row in range(batch.num_rows):
            yield {name: text for name in leaves if (text := texts[name][row]) is not None}


def _row_item(cell: MediaObject, row: int, count: int, attributes: dict[str, str], ids: UniqueIds) -> Item:
    """count: pictures in the cell, 0 for a null."""
    assert cell.column is not None
    own = make_id(cell.uri, cell.column, row)
    given = bound_id(attributes["item_id"]) if attributes.get("item_id") else None
    item_id = ids.claim(given or own, own)
    if item_id == given:
        del attributes["item_id"]
    where = f"{cell.uri}#row={row}"
    if not count:
        return error_item(item_id, where, ErrorCode.EMPTY, no_bytes(cell.name), attributes)
    if count > MAX_OBJECTS:
        return error_item(item_id, where, ErrorCode.TOO_LARGE, f"more than {MAX_OBJECTS} pictures", attributes)
    objects: tuple[MediaObject, ...] = (cell,)
    if LIST in cell.column:
        objects = tuple(replace(cell, column=element_column(cell.column, nth)) for nth in range(count))
    kind = Kind.ALBUM if count > 1 else None
    return Item(item_id=item_id, uri=where, objects=objects, kind=kind, attributes=bound_attributes(attributes))


def has_uri_and_bytes(uri: str) -> tuple[bool, bool]:
    """Whether a file has a text column `uri` (it may be a manifest) and whether it has a column of bytes."""
    with columnar.open_columnar(uri) as table:
        names = table.schema.names
        has_uri = "uri" in names and is_text(table.schema.field("uri").type)
        leaves = all_bytes_leaves(table)
        # Lists of bytes beside a URI are hashes or other extras of a manifest.
        return has_uri, any(not has_uri or LIST not in leaf for leaf in leaves)


def describe_schema(uri: str) -> str:
    """The columns of a file and their types, and what to do so that one is `uri`."""
    with columnar.open_columnar(uri) as table:
        return describe_columns(table.schema.names, table.schema.types)


def first_file(source: str, config: SourceConfig) -> str:
    """The first table that a source names. Raises FileNotFoundError, UsageError when there is none."""
    for info, first in list_files(source, columnar.SUFFIXES, config):
        if first:
            return info.uri
    raise UsageError(f"{storage.canonical(source)}: no Parquet or Arrow files")

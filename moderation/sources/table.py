"""Parquet and Arrow files with a column of encoded bytes: a row is an item; the bytes are read by the worker.

Listing reads the footer, `item_id` and the columns that become attributes. An Arrow file whose only column is the
bytes is the exception: the format says nowhere else how many rows a batch has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources import columnar
from moderation.sources.columnar import Columnar
from moderation.sources.items import UniqueIds, base_name, error_item, list_files, make_id
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item, MediaObject

CELL_BATCH_ROWS = 32  # pictures held at once while cells are read
# Columns that say what a cell's bytes are called, the first that is there.
_NAMES = ("name", "filename", "file_name", "path", "key")


def table_items(source: str, config: SourceConfig) -> Iterator[Item]:
    """An item a row, in the order of files and rows.

    The first file decides whether there is a bytes column; a later file without it is an error row.
    Raises UsageError, FileNotFoundError, PermissionError, StorageError.
    """
    ids = UniqueIds()
    for info, first in list_files(source, columnar.SUFFIXES):
        try:
            with columnar.open_columnar(info.uri) as table:
                column = bytes_column(table, config.bytes_column)
                yield from _file_items(table, column, info, ids)
        except UsageError as error:
            if first:
                raise
            yield error_item(make_id(info.uri), info.uri, ErrorCode.CORRUPT, str(error))


def bytes_column(table: Columnar, named: str | None) -> str:
    """The column with the encoded bytes: `image`, or a struct's child such as `image.bytes`.

    Raises UsageError when there is none, or several and none is named.
    """
    found = [leaf for field in table.schema for leaf in columnar.bytes_leaves(field)]
    if named is not None:
        inside = [leaf for leaf in found if leaf == named or leaf == f"{named}.bytes"]
        if inside:
            return inside[0]
        raise UsageError(f"{table.uri}: no bytes column {named!r}; it has: {', '.join(found) or 'none'}")
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{table.uri}: several bytes columns ({', '.join(found)}): name one by source.bytes_column")
    raise UsageError(f"{table.uri}: no bytes column; its columns are: {', '.join(table.schema.names)}")


def read_cells(uri: str, group: int, column: str, rows: Collection[int]) -> Iterator[tuple[int, bytes | ItemError]]:
    """The cells of one row group, in the order of its rows, of a column that `MediaObject` names.

    Read as the caller asks for more, a small batch at a time: a row group may hold gigabytes. A null is EMPTY, a row
    that the group does not have NOT_FOUND, and what follows damage CORRUPT; every one of `rows` is answered.
    Raises FileNotFoundError, PermissionError, StorageError.
    """
    left = set(rows)
    failure = ItemError(ErrorCode.NOT_FOUND, f"{uri}: no such row in group {group}, column {column!r}")
    try:
        with columnar.open_columnar(uri) as table:
            there = [leaf for field in table.schema for leaf in columnar.bytes_leaves(field)]
            start = 0
            if group < table.groups and column in there:
                for batch in columnar.read_batches(table, group, [column], CELL_BATCH_ROWS):
                    cells = columnar.leaf_column(batch, column)
                    for row in sorted(left.intersection(range(start, start + batch.num_rows))):
                        value = cells[row - start].as_py()
                        left.discard(row)
                        yield row, value if value is not None else ItemError(ErrorCode.EMPTY, "a null cell")
                    start += batch.num_rows
                    if not left:
                        return
    except UsageError as error:
        failure = ItemError(ErrorCode.CORRUPT, str(error))
    except (pa.ArrowException, OSError) as error:
        columnar.raise_unless_corrupt(error)
        failure = ItemError(ErrorCode.CORRUPT, f"{uri}: row group {group} is damaged")
    for row in sorted(left):
        yield row, failure


def _file_items(table: Columnar, column: str, info: ObjectInfo, ids: UniqueIds) -> Iterator[Item]:
    leaves = columnar.attribute_leaves(table.schema)
    named = next((n for n in (column.rpartition(".")[0] + ".path", *_NAMES) if n in leaves), None)
    before = 0
    for group in range(table.groups):
        rows = columnar.group_rows(table, group)
        empty = _null_rows(table, group, column)
        done = 0
        try:
            for texts, count in _texts(table, group, leaves, rows):
                for i in range(count):
                    attributes = {name: text for name in leaves if (text := texts[name][i]) is not None}
                    name = base_name(attributes.get(named, "") if named else "")
                    cell = MediaObject(
                        uri=info.uri, name=name, etag=info.etag, row_group=group, row=done + i, column=column
                    )
                    yield _row_item(cell, before + done + i, attributes, ids, empty=done + i in empty)
                done += count
        except (pa.ArrowException, OSError) as error:
            columnar.raise_unless_corrupt(error)
            for row in range(before + done, before + rows):
                where = f"{info.uri}#row={row}"
                yield error_item(
                    make_id(info.uri, column, row), where, ErrorCode.CORRUPT, "a damaged part of the table"
                )
        before += rows


def _texts(
    table: Columnar, group: int, leaves: list[str], rows: int
) -> Iterator[tuple[dict[str, list[str | None]], int]]:
    if not leaves:
        yield {}, rows
        return
    for batch in columnar.read_batches(table, group, leaves):
        yield {n: columnar.text_values(columnar.leaf_column(batch, n)) for n in leaves}, batch.num_rows


def _row_item(cell: MediaObject, row: int, attributes: dict[str, str], ids: UniqueIds, *, empty: bool) -> Item:
    assert cell.column is not None
    own = make_id(cell.uri, cell.column, row)
    given = attributes.get("item_id")
    item_id = ids.claim(given or own, own)
    if item_id == given:
        del attributes["item_id"]
    where = f"{cell.uri}#row={row}"
    if empty:
        return error_item(item_id, where, ErrorCode.EMPTY, "a null cell", attributes)
    return Item(item_id=item_id, uri=where, objects=(cell,), attributes=attributes)


def _null_rows(table: Columnar, group: int, column: str) -> frozenset[int]:
    """Rows of a row group without bytes, as far as its statistics tell that there are any.

    Only then is the column read here (in small batches); where statistics are missing, and in Arrow files, the reader
    of the cell finds out.
    """
    if table.parquet is None:
        return frozenset()
    meta = table.parquet.metadata.row_group(group)
    chunk = next(meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == column)
    nulls = chunk.statistics.null_count if chunk.statistics is not None and chunk.statistics.has_null_count else 0
    if not nulls:
        return frozenset()
    if nulls >= meta.num_rows:
        return frozenset(range(meta.num_rows))
    found: list[int] = []
    start = 0
    for batch in table.parquet.iter_batches(batch_size=64, row_groups=[group], columns=[column]):
        flags = columnar.leaf_column(batch, column).is_null().to_pylist()
        found += [start + i for i, null in enumerate(flags) if null]
        start += batch.num_rows
        if len(found) == nulls:
            break
    return frozenset(found)


def has_bytes_column(uri: str) -> tuple[bool, bool]:
    """Whether a file has a text column `uri` (it may be a manifest) and whether it has a column of bytes."""
    with columnar.open_columnar(uri) as table:
        names = table.schema.names
        has_uri = "uri" in names and columnar.is_text(table.schema.field("uri").type)
        return has_uri, any(columnar.bytes_leaves(field) for field in table.schema)


def first_file(source: str) -> str:
    """The first table that a source names. Raises FileNotFoundError, UsageError when there is none."""
    for info, _ in list_files(source, columnar.SUFFIXES):
        return info.uri
    raise UsageError(f"{storage.canonical(source)}: no Parquet or Arrow files")

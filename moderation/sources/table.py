"""Parquet and Arrow files with a column of encoded bytes: one item per row; the bytes are read by the worker.

Listing reads the footer, `item_id` and the columns that become attributes. An Arrow file whose only column is the
bytes is the exception: the format says nowhere else how many rows a batch has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

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
    """One item per row, in the order of files and rows.

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
    leaves = _bytes_leaves(table)
    if named is not None:
        meant = [leaf for leaf in leaves if leaf in (named, f"{named}.bytes")]
        if not meant:
            raise UsageError(f"{table.uri}: no bytes column {named!r}; it has: {', '.join(leaves) or 'none'}")
        return meant[0]
    if not leaves:
        raise UsageError(f"{table.uri}: no bytes column; its columns are: {', '.join(table.schema.names)}")
    if len(leaves) > 1:
        raise UsageError(f"{table.uri}: several bytes columns ({', '.join(leaves)}): name one by source.bytes_column")
    return leaves[0]


def _bytes_leaves(table: Columnar) -> list[str]:
    return [leaf for field in table.schema for leaf in columnar.bytes_leaves(field)]


def read_cells(
    uri: str, group: int, column: str, rows: Collection[int], *, etag: str | None = None
) -> Iterator[tuple[int, bytes | ItemError]]:
    """The cells of one row group, in the order of its rows, of a column that `MediaObject` names.

    etag: the version of the file that was listed.

    Read as the caller asks for more, a small batch at a time: a row group may hold gigabytes. A null is EMPTY, a row
    that the group does not have NOT_FOUND, and what follows damage CORRUPT; every one of `rows` is answered.
    Raises FileNotFoundError, PermissionError, StorageError, ChangedError.
    """
    left = set(rows)
    failure = ItemError(ErrorCode.NOT_FOUND, f"{uri}: no such row in group {group}, column {column!r}")
    try:
        with columnar.open_columnar(uri, etag=etag) as table:
            if group < table.groups and column in _bytes_leaves(table):
                for row, value in _wanted_cells(table, group, column, frozenset(rows)):
                    left.discard(row)
                    yield row, value if value is not None else ItemError(ErrorCode.EMPTY, "a null cell")
    except UsageError as error:
        failure = ItemError(ErrorCode.CORRUPT, str(error))
    except (pa.ArrowException, OSError) as error:
        columnar.raise_unless_corrupt(error)
        failure = ItemError(ErrorCode.CORRUPT, f"{uri}: row group {group} is damaged")
    for row in sorted(left):
        yield row, failure


def _wanted_cells(table: Columnar, group: int, column: str, rows: frozenset[int]) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of these rows' cells, ascending; nothing is read behind the last of them."""
    last = max(rows, default=-1)
    start = 0
    for batch in columnar.read_batches(table, group, [column], CELL_BATCH_ROWS):
        cells = columnar.leaf_column(batch, column)
        for row in sorted(rows.intersection(range(start, start + batch.num_rows))):
            yield row, cells[row - start].as_py()
        start += batch.num_rows
        if start > last:
            return


def _file_items(table: Columnar, column: str, info: ObjectInfo, ids: UniqueIds) -> Iterator[Item]:
    before = 0
    for group in range(table.groups):
        rows = columnar.group_rows(table, group)
        empty = _null_rows(table, group, column)
        done = 0
        try:
            for cell, attributes in _group_cells(table, group, column, info, rows):
                yield _row_item(cell, before + done, attributes, ids, empty=done in empty)
                done += 1
        except (pa.ArrowException, OSError) as error:
            columnar.raise_unless_corrupt(error)
            yield from _damaged_rows(info, column, range(before + done, before + rows))
        before += rows


def _group_cells(
    table: Columnar, group: int, column: str, info: ObjectInfo, rows: int
) -> Iterator[tuple[MediaObject, dict[str, str]]]:
    """The cells of one row group, each with the attributes of its row."""
    leaves = columnar.attribute_leaves(table.schema)
    name_leaf = next((n for n in (column.rpartition(".")[0] + ".path", *_NAMES) if n in leaves), None)
    for row, attributes in enumerate(_group_attributes(table, group, leaves, rows)):
        name = base_name(attributes.get(name_leaf, "") if name_leaf else "")
        yield MediaObject(uri=info.uri, name=name, etag=info.etag, row_group=group, row=row, column=column), attributes


def _damaged_rows(info: ObjectInfo, column: str, rows: range) -> Iterator[Item]:
    for row in rows:
        item_id, where = make_id(info.uri, column, row), f"{info.uri}#row={row}"
        yield error_item(item_id, where, ErrorCode.CORRUPT, "a damaged part of the table")


def _group_attributes(table: Columnar, group: int, leaves: list[str], rows: int) -> Iterator[dict[str, str]]:
    if not leaves:
        yield from ({} for _ in range(rows))
        return
    for batch in columnar.read_batches(table, group, leaves):
        texts = {name: columnar.text_values(columnar.leaf_column(batch, name)) for name in leaves}
        for row in range(batch.num_rows):
            yield {name: text for name in leaves if (text := texts[name][row]) is not None}


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
    nulls = _count_nulls(table.parquet, group, column)
    rows = table.parquet.metadata.row_group(group).num_rows
    if nulls >= rows:
        return frozenset(range(rows))
    return frozenset(_find_nulls(table.parquet, group, column, nulls)) if nulls else frozenset()


def _count_nulls(parquet: pq.ParquetFile, group: int, column: str) -> int:
    """As the statistics say; 0 where there are none."""
    meta = parquet.metadata.row_group(group)
    chunk = next(meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == column)
    statistics = chunk.statistics
    return int(statistics.null_count) if statistics is not None and statistics.has_null_count else 0


def _find_nulls(parquet: pq.ParquetFile, group: int, column: str, count: int) -> list[int]:
    rows: list[int] = []
    start = 0
    for batch in parquet.iter_batches(batch_size=64, row_groups=[group], columns=[column]):
        flags = columnar.leaf_column(batch, column).is_null().to_pylist()
        rows += [start + i for i, null in enumerate(flags) if null]
        start += batch.num_rows
        if len(rows) == count:
            break
    return rows


def has_uri_and_bytes(uri: str) -> tuple[bool, bool]:
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

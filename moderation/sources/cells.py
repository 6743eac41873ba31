"""Encoded bytes in cells of tables: how many pictures a cell holds, and reading them a few rows at a time.

A column of lists holds several pictures per row: `images[].bytes#2` is the third of a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from moderation.errors import ItemError, UsageError
from moderation.sources import columnar
from moderation.sources.columnar import Columnar
from moderation.sources.leaves import LIST, bytes_leaves, cell_values, leaf_column, scalar_bytes
from moderation.types import ErrorCode

CELL_BATCH_ROWS = 32  # pictures held at once while cells are read
_NULL_BATCH_ROWS = 64

Cell = tuple[int, int]  # row in the row group, index of the picture in the row


def all_bytes_leaves(table: Columnar) -> list[str]:
    """All columns of a table that may hold pictures."""
    return [leaf for field in table.schema for leaf in bytes_leaves(field)]


def element_column(column: str, nth: int) -> str:
    """The column of the nth picture of a row, from 0."""
    return f"{column}#{nth}"


def split_column(column: str) -> tuple[str, int]:
    """The leaf of a column, and the index of the picture in its row."""
    leaf, mark, nth = column.rpartition("#")
    return (leaf, int(nth)) if mark and LIST in leaf and nth.isdecimal() else (column, 0)


def no_bytes(name: str) -> str:
    """The error text of a cell without bytes. name: the picture's name by another column."""
    if not name:
        return "a null cell"
    return f"no bytes, only the path {name!r}: write the bytes into the table, or list the files in a manifest"


def read_cells(
    uri: str, group: int, column: str, rows: Collection[int], *, etag: str | None = None
) -> Iterator[tuple[int, bytes | ItemError]]:
    """The cells of one row group, in the order of its rows, of a column that `MediaObject` names.

    As `read_pictures`, for one picture per row. Raises FileNotFoundError, PermissionError, StorageError, ChangedError.
    """
    leaf, nth = split_column(column)
    for (row, _), payload in read_pictures(uri, group, leaf, frozenset((row, nth) for row in rows), etag=etag):
        yield row, payload


def read_pictures(
    uri: str, group: int, leaf: str, wanted: Collection[Cell], *, etag: str | None = None
) -> Iterator[tuple[Cell, bytes | ItemError]]:
    """The pictures of one row group, in the order of its rows. etag: the version of the file that was listed.

    Read lazily, a small batch at a time: a row group may hold gigabytes. A null is EMPTY, a row that the group does not
    have NOT_FOUND, and what follows damage CORRUPT; each of `wanted` gets an answer.
    Raises FileNotFoundError, PermissionError, StorageError, ChangedError.
    """
    left = set(wanted)
    failure = ItemError(ErrorCode.NOT_FOUND, f"{uri}: no such row in group {group}, column {leaf!r}")
    try:
        with columnar.open_columnar(uri, etag=etag, listed=etag is not None) as table:
            if group < table.groups and leaf in all_bytes_leaves(table):
                for cell, value in _wanted_pictures(table, group, leaf, wanted):
                    left.discard(cell)
                    yield cell, value if value is not None else ItemError(ErrorCode.EMPTY, no_bytes(""))
    except UsageError as error:
        failure = ItemError(ErrorCode.CORRUPT, str(error))
    except columnar.DAMAGE as error:
        columnar.raise_unless_corrupt(error)
        failure = columnar.describe_damage(error, f"{uri}: row group {group} is damaged")
    for cell in sorted(left):
        yield cell, failure


def _wanted_pictures(
    table: Columnar, group: int, leaf: str, wanted: Collection[Cell]
) -> Iterator[tuple[Cell, bytes | None]]:
    """Pictures by row and number, ascending; nothing after the last of them is read."""
    by_row: dict[int, list[int]] = {}
    for row, nth in sorted(wanted):
        by_row.setdefault(row, []).append(nth)
    last = max(by_row, default=-1)
    start = 0
    for batch in columnar.read_batches(table, group, [leaf], CELL_BATCH_ROWS):
        column = leaf_column(batch, leaf)
        for row in range(start, start + batch.num_rows):
            if row in by_row:
                pictures = cell_values(column, leaf, row - start)
                for nth in by_row[row]:
                    if nth < len(pictures):
                        yield (row, nth), scalar_bytes(pictures[nth])
        start += batch.num_rows
        if start > last:
            return


def count_pictures(table: Columnar, group: int, leaf: str, rows: int) -> Iterator[int]:
    """How many pictures each cell of a row group holds; 0 for a null, as far as that is known without reading bytes.

    Cells are read only where the statistics of a Parquet file report nulls, and for a list that has no column beside
    the bytes by which its elements could be counted.
    """
    if LIST in leaf:
        yield from _list_lengths(table, group, leaf)
    elif table.parquet is not None and (nulls := _count_nulls(table, group, leaf)):
        yield from (0 for _ in range(rows)) if nulls >= rows else _null_flags(table, group, leaf)
    else:
        yield from (1 for _ in range(rows))


def _count_nulls(table: Columnar, group: int, leaf: str) -> int:
    """Nulls by the statistics; 0 where there are none."""
    assert table.parquet is not None
    paths = columnar.parquet_paths(table, leaf)
    meta = table.parquet.metadata.row_group(group)
    chunk = next(meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema in paths)
    statistics = chunk.statistics
    return int(statistics.null_count) if statistics is not None and statistics.has_null_count else 0


def _null_flags(table: Columnar, group: int, leaf: str) -> Iterator[int]:
    for batch in columnar.read_batches(table, group, [leaf], _NULL_BATCH_ROWS):
        yield from (int(valid) for valid in leaf_column(batch, leaf).is_valid().to_pylist())


def _list_lengths(table: Columnar, group: int, leaf: str) -> Iterator[int]:
    top, _, below = leaf.partition(LIST)
    batches = columnar.read_list_batches(table, group, top, below[1:], CELL_BATCH_ROWS)
    for batch in batches:
        lists = leaf_column(batch, top)
        yield from (0 if not cell.is_valid else len(cell) for cell in lists)

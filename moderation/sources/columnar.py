"""Parquet and Arrow IPC files, one row group or record batch at a time, only the columns asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderation import storage
from moderation.errors import ItemError, UsageError
from moderation.sources.ipc_sizes import IpcBlocks, read_blocks, refuse_bombs
from moderation.sources.items import one_sentence, shorten
from moderation.sources.leaves import LIST, bytes_leaves, top_of
from moderation.sources.parquet_footer import has_encrypted_columns, read_footer
from moderation.sources.row_groups import plan_reading
from moderation.types import ErrorCode

SUFFIXES = (".parquet", ".pq", ".arrow", ".feather")
BATCH_ROWS = 8192
# What a reader of foreign tables catches; `raise_unless_corrupt` tells damage from storage.
DAMAGE = (pa.ArrowException, OSError, MemoryError)
# Without it a column chunk (up to a whole row group of pictures) would be read into memory at once.
BUFFER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Columnar:
    """An open file. `reader` is a ParquetFile or a factory of IPC readers that see only some fields."""

    uri: str
    schema: pa.Schema
    groups: int  # row groups, or record batches
    parquet: pq.ParquetFile | None
    file: Any  # the open binary file; IPC readers with different fields share it
    blocks: IpcBlocks | None = None  # of an Arrow file


@contextlib.contextmanager
def open_columnar(uri: str, *, etag: str | None = None, listed: bool = False) -> Iterator[Columnar]:
    """A Parquet or Arrow file by its content. Reads the footer only.

    etag: the expected version. listed: this version was opened before, for its listing, and has no encrypted columns.

    Raises UsageError when it is neither, FileNotFoundError, PermissionError, StorageError, ChangedError.
    """
    if etag is None and storage.scheme_of(uri) != "file":
        # Read in many pieces, which have to be of one version; a local file that is open stays the same one.
        etag = storage.info(uri).etag
    magic = storage.read_bytes(uri, offset=0, length=6, etag=etag)
    with storage.open_input(uri, etag=etag) as file:
        try:
            if magic.startswith(b"PAR1"):
                if not listed:
                    _refuse_encrypted(uri, file)
                parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES)
                opened = Columnar(
                    uri=uri, schema=parquet.schema_arrow, groups=parquet.num_row_groups, parquet=parquet, file=file
                )
            elif magic == b"ARROW1":
                reader = pa.ipc.open_file(file)
                opened = Columnar(
                    uri=uri,
                    schema=reader.schema,
                    groups=reader.num_record_batches,
                    parquet=None,
                    file=file,
                    blocks=read_blocks(file),
                )
            elif magic.startswith(b"PARE"):
                raise UsageError(f"{uri}: an encrypted Parquet file; write it without encryption")
            elif magic.startswith(b"\xff\xff\xff\xff"):
                raise UsageError(f"{uri}: an Arrow stream has no index of its batches; write it as an Arrow file")
            else:
                raise UsageError(f"{uri}: neither a Parquet nor an Arrow file")
            _refuse_twins(uri, list(opened.schema))
        except DAMAGE as error:
            raise_unless_corrupt(error)
            raise UsageError(f"{uri}: not readable: {one_sentence(error)}") from error
        yield opened


def _refuse_encrypted(uri: str, file: IO[bytes]) -> None:
    try:
        encrypted = has_encrypted_columns(footer) if (footer := read_footer(file)) else False
    except ValueError as error:
        raise UsageError(f"{uri}: not readable: {one_sentence(error)}") from error
    if encrypted:
        raise UsageError(f"{uri}: has encrypted columns; write it without encryption")
    file.seek(0)


def _refuse_twins(uri: str, fields: list[pa.Field]) -> None:
    names = [field.name for field in fields]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UsageError(f"{uri}: has the column `{shorten(twins[0])}` more than once: rename one of them")
    for field in fields:
        if pa.types.is_struct(field.type):
            _refuse_twins(uri, list(field.type))


def raise_unless_corrupt(error: BaseException) -> None:
    """Re-raise an error of storage; return for one of the content: damage, or more than memory holds.

    Arrow raises a bare OSError without errno for damaged pages; storage raises subclasses of it.
    """
    if isinstance(error, MemoryError) or (isinstance(error, pa.ArrowException) and not isinstance(error, OSError)):
        return
    if type(error) is OSError and error.errno is None:
        return
    raise error


def describe_damage(error: BaseException, otherwise: str) -> ItemError:
    """The error of rows that could not be read: TOO_LARGE where they would unpack to too much, else CORRUPT."""
    if isinstance(error, pa.ArrowCapacityError):
        return ItemError(ErrorCode.TOO_LARGE, one_sentence(error))
    return ItemError(ErrorCode.CORRUPT, otherwise)


def group_rows(table: Columnar, group: int) -> int:
    """Rows of a row group. Reads the narrowest column of an Arrow file: its index has no row counts."""
    if table.parquet is not None:
        return int(table.parquet.metadata.row_group(group).num_rows)
    return int(_ipc_batch(table, group, _narrowest(table.schema)).num_rows)


def read_batches(
    table: Columnar, group: int, columns: Sequence[str], max_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The columns (names of leaves) of a row group, in batches of at most `max_rows` rows and about BATCH_BYTES."""
    if table.parquet is not None:
        paths = sorted({path for column in columns for path in parquet_paths(table, column)})
        yield from _parquet_batches(table, table.parquet, group, paths, max_rows)
        return
    batch = _ipc_batch(table, group, columns)
    for start in range(0, batch.num_rows, max_rows):
        yield batch.slice(start, max_rows)


def read_list_batches(table: Columnar, group: int, lists: str, without: str, max_rows: int) -> Iterator[pa.RecordBatch]:
    """A column of lists, for their lengths alone: reads another child of their structs than `without`, if any."""
    if table.parquet is None:
        yield from read_batches(table, group, [lists], max_rows)
        return
    paths = parquet_paths(table, lists)
    others = [path for path in paths if without and not path.endswith(f".{without}")]
    yield from _parquet_batches(table, table.parquet, group, others[:1] or paths, max_rows)


def _parquet_batches(
    table: Columnar, parquet: pq.ParquetFile, group: int, paths: list[str], max_rows: int
) -> Iterator[pa.RecordBatch]:
    reading = plan_reading(parquet.metadata, group, paths, table.file, max_rows)
    reader = parquet
    if reading.as_dictionary:
        reader = pq.ParquetFile(
            table.file, metadata=parquet.metadata, buffer_size=BUFFER_BYTES, read_dictionary=reading.as_dictionary
        )
    yield from reader.iter_batches(batch_size=reading.rows, row_groups=[group], columns=paths)


def parquet_paths(table: Columnar, leaf: str) -> list[str]:
    """The stored columns of a leaf, as Parquet names them: `images[].bytes` is `images.list.element.bytes`."""
    assert table.parquet is not None
    name = leaf.partition(LIST)[0]
    top = top_of(table.schema, name)
    stored = [table.parquet.schema.column(i).path for i in range(len(table.parquet.schema))]
    inside = name if name != top else top
    return [path for path in stored if path == inside or path.startswith(f"{inside}.")]


def _ipc_batch(table: Columnar, group: int, columns: Sequence[str]) -> pa.RecordBatch:
    tops = sorted({table.schema.get_field_index(top_of(table.schema, name.partition(LIST)[0])) for name in columns})
    assert table.blocks is not None
    refuse_bombs(table.file, table.blocks, group)
    table.file.seek(0)
    reader = pa.ipc.open_file(table.file, options=pa.ipc.IpcReadOptions(included_fields=tops))
    return reader.get_batch(group)


def _narrowest(schema: pa.Schema) -> list[str]:
    plain = [f.name for f in schema if not bytes_leaves(f)]
    return [plain[0] if plain else schema[0].name]

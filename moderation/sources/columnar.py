"""Parquet and Arrow IPC files, one row group or record batch at a time, only the columns asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderation import storage
from moderation.errors import UsageError
from moderation.sources.items import attribute_text, clean_text, one_sentence

SUFFIXES = (".parquet", ".pq", ".arrow", ".feather")
BATCH_ROWS = 8192
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


@contextlib.contextmanager
def open_columnar(uri: str, *, etag: str | None = None) -> Iterator[Columnar]:
    """A Parquet or Arrow file by its content. Reads the footer only. etag: the version that is meant.

    Raises UsageError when it is neither, FileNotFoundError, PermissionError, StorageError, ChangedError.
    """
    magic = storage.read_bytes(uri, offset=0, length=6, etag=etag)
    with storage.open_input(uri, etag=etag) as file:
        try:
            if magic.startswith(b"PAR1"):
                parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES)
                opened = Columnar(
                    uri=uri, schema=parquet.schema_arrow, groups=parquet.num_row_groups, parquet=parquet, file=file
                )
            elif magic == b"ARROW1":
                reader = pa.ipc.open_file(file)
                opened = Columnar(
                    uri=uri, schema=reader.schema, groups=reader.num_record_batches, parquet=None, file=file
                )
            elif magic.startswith(b"\xff\xff\xff\xff"):
                raise UsageError(f"{uri}: an Arrow stream has no index of its batches; write it as an Arrow file")
            else:
                raise UsageError(f"{uri}: neither a Parquet nor an Arrow file")
        except (pa.ArrowException, OSError) as error:
            raise_unless_corrupt(error)
            raise UsageError(f"{uri}: not readable: {one_sentence(error)}") from error
        yield opened


def raise_unless_corrupt(error: BaseException) -> None:
    """Re-raise what storage said; return for what the content is to blame for.

    Arrow raises a bare OSError without errno for damaged pages; storage raises subclasses of it.
    """
    if isinstance(error, pa.ArrowException) and not isinstance(error, OSError):
        return
    if type(error) is OSError and error.errno is None:
        return
    raise error


def group_rows(table: Columnar, group: int) -> int:
    """Rows of a row group. For an Arrow file this reads its narrowest column: the format has no row counts outside."""
    if table.parquet is not None:
        return int(table.parquet.metadata.row_group(group).num_rows)
    return int(_ipc_batch(table, group, _narrowest(table.schema)).num_rows)


def read_batches(
    table: Columnar, group: int, columns: Sequence[str], max_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The columns of a row group in batches of at most `max_rows` rows."""
    if table.parquet is not None:
        yield from table.parquet.iter_batches(batch_size=max_rows, row_groups=[group], columns=list(columns))
        return
    batch = _ipc_batch(table, group, columns)
    for start in range(0, batch.num_rows, max_rows):
        yield batch.slice(start, max_rows)


def _ipc_batch(table: Columnar, group: int, columns: Sequence[str]) -> pa.RecordBatch:
    tops = sorted({table.schema.get_field_index(name.partition(".")[0]) for name in columns})
    table.file.seek(0)
    reader = pa.ipc.open_file(table.file, options=pa.ipc.IpcReadOptions(included_fields=tops))
    return reader.get_batch(group)


def _narrowest(schema: pa.Schema) -> list[str]:
    plain = [f.name for f in schema if not bytes_leaves(f)]
    return [plain[0] if plain else schema[0].name]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text, also when dictionary-encoded."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def bytes_leaves(field: pa.Field) -> list[str]:
    """The bytes columns in a field: itself, or the children of a struct (`image.bytes`, as Hugging Face writes it)."""
    if is_binary(field.type):
        return [field.name]
    if pa.types.is_struct(field.type):
        return [f"{field.name}.{child.name}" for child in field.type if is_binary(child.type)]
    return []


def attribute_leaves(schema: pa.Schema, without: Sequence[str] = ()) -> list[str]:
    """The columns that become attributes: all but bytes; a struct counts as its children."""
    leaves: list[str] = []
    for field in schema:
        if pa.types.is_struct(field.type):
            leaves += [f"{field.name}.{c.name}" for c in field.type if not is_binary(c.type)]
        elif not is_binary(field.type):
            leaves.append(field.name)
    return [name for name in leaves if name not in without]


def leaf_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column of a batch by its name, or a struct's child by `struct.child`."""
    if name in batch.schema.names:
        return batch.column(name)
    top, _, child = name.partition(".")
    return pc.struct_field(batch.column(top), child)


def text_values(column: pa.Array) -> list[str | None]:
    """A column as attributes: text as it is, numbers and times as Arrow prints them, nested values as JSON."""
    if pa.types.is_nested(column.type):
        return [attribute_text(value) for value in column.to_pylist()]
    try:
        texts = column.cast(pa.string()).to_pylist()
    except UnicodeDecodeError:  # a text column of a foreign writer that is not UTF-8
        raw = column.cast(pa.binary()).to_pylist()
        return [None if t is None else t.decode("utf-8", "backslashreplace") for t in raw]
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        texts = column.to_pylist()
    return [None if t is None else clean_text(str(t)) for t in texts]

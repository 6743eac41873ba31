"""How much of a Parquet row group is read at once: a file of 7 kB may hold 6 GB.

A cell may be written once, in a dictionary, and used by a million rows. So the memory of a batch follows not from the
footer's sizes but from the size of the dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import pyarrow.parquet as pq

# Target for one batch of all columns that are read.
BATCH_BYTES = 64 * 1024 * 1024
# Limit for all columns that are read as dictionaries: the reader keeps those of a row group.
DICTIONARY_BYTES = 256 * 1024 * 1024
# A few cells may be larger than the mean.
_SKEW = 4
# Reading as a dictionary pays only where many rows are read at a time, not for a few pictures.
_MANY_ROWS = 1000


class GroupReading(NamedTuple):
    """rows: per batch. as_dictionary: columns read as indices, so that a long cell is held once."""

    rows: int
    as_dictionary: list[str]


def plan_reading(
    metadata: pq.FileMetaData, group: int, paths: Sequence[str], file: IO[bytes], max_rows: int
) -> GroupReading:
    """How to read these stored columns of a row group in batches of at most about BATCH_BYTES.

    file: read for the header of a dictionary, in the rare case that the footer is not enough.
    """
    as_dictionary: list[str] = []
    row_bytes = dictionary_bytes = 0
    row_group = metadata.row_group(group)
    for index in range(row_group.num_columns):
        chunk = row_group.column(index)
        if chunk.path_in_schema not in paths:
            continue
        size = chunk.total_uncompressed_size
        row_bytes += _SKEW * size // max(1, row_group.num_rows)
        if not _may_repeat(chunk) or size * max_rows <= BATCH_BYTES:
            continue
        is_text = chunk.physical_type == "BYTE_ARRAY" and max_rows > _MANY_ROWS
        if is_text and dictionary_bytes + size <= DICTIONARY_BYTES:
            as_dictionary.append(chunk.path_in_schema)
            dictionary_bytes += size
        else:
            row_bytes += _dictionary_bytes(chunk, file)
    rows = min(max_rows, BATCH_BYTES // max(1, row_bytes))
    return GroupReading(max(1, rows), as_dictionary)


def _may_repeat(chunk: Any) -> bool:  # noqa: ANN401 - pyarrow is untyped
    return chunk.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY") and chunk.dictionary_page_offset is not None


def _dictionary_bytes(chunk: Any, file: IO[bytes]) -> int:  # noqa: ANN401 - pyarrow is untyped
    """The unpacked size of a column's dictionary, by the header of its page: Thrift's compact protocol, field 2.

    The size of the whole column where the header cannot be read. A page with a false header cannot be read either.
    """
    file.seek(chunk.dictionary_page_offset)
    head = file.read(16)
    size, at = 0, 0
    for _ in range(2):  # field 1: the type of the page; field 2: its size; both i32, as zigzag varints
        if head[at : at + 1] != b"\x15":
            return int(chunk.total_uncompressed_size)
        size, at = _varint(head, at + 1)
    return min(size, int(chunk.total_uncompressed_size))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint, and where it ends."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            break
    return (value >> 1) ^ -(value & 1), at

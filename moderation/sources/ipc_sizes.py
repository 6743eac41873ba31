"""Sizes of the record batches of an Arrow IPC file before they are unpacked: a few kilobytes may claim gigabytes.

Arrow unpacks a batch whole. The metadata of a batch state where its buffers lie, and each packed buffer begins with
its unpacked size (File.fbs, Message.fbs and "Compression" of the format's specification).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

import pyarrow as pa
from flatbuffers import number_types
from flatbuffers.table import Table

# Held in memory at once: one batch, or all dictionaries of a file together.
MAX_UNPACKED_BYTES: Final = 512 * 1024 * 1024
# A large file may unpack to this many times its size: pictures hardly shrink, texts to about a fifth.
_MAX_RATIO: Final = 8
# Sizes at most this far apart are read in one request with what lies between them; those of pictures lie farther.
_NEAR_BYTES: Final = 16 * 1024
_MAX_METADATA_BYTES: Final = 64 * 1024 * 1024
_MAGIC: Final = b"ARROW1"
_RECORD_BATCH: Final = 3  # of Message.header_type
_BLOCK: Final = struct.Struct("<qi4xq")
_BUFFER: Final = struct.Struct("<qq")
_SIZE: Final = struct.Struct("<q")
_DAMAGE: Final = (struct.error, IndexError, ValueError, TypeError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcBlock:
    """Where a message lies in the file: its metadata, then its buffers."""

    offset: int
    metadata_bytes: int
    body_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcBlocks:
    """The dictionaries and the record batches of a file, in their order."""

    dictionaries: tuple[IpcBlock, ...]
    batches: tuple[IpcBlock, ...]


def read_blocks(file: IO[bytes]) -> IpcBlocks:
    """The index of a file, from its footer. Raises ArrowInvalid where it is damaged."""
    try:
        end = file.seek(-(4 + len(_MAGIC)), 2)
        (length,) = struct.unpack("<i", file.read(4))
        if not 0 < length <= min(end, _MAX_METADATA_BYTES):
            raise ValueError(f"a footer of {length} bytes")
        file.seek(end - length)
        footer = _root(file.read(length))
        return IpcBlocks(dictionaries=tuple(_blocks(footer, 2)), batches=tuple(_blocks(footer, 3)))
    except _DAMAGE as error:
        raise pa.ArrowInvalid(f"the footer of the file is damaged: {error}") from error


def refuse_bombs(file: IO[bytes], blocks: IpcBlocks, batch: int) -> None:
    """Raises ArrowCapacityError where a batch, or the dictionaries, would unpack to more than is held in memory."""
    for what, parts in (
        ("its dictionaries", blocks.dictionaries),
        (f"batch {batch}", blocks.batches[batch : batch + 1]),
    ):
        limit = max(MAX_UNPACKED_BYTES, _MAX_RATIO * sum(part.body_bytes for part in parts))
        unpacked = 0
        for part in parts:
            unpacked += _unpacked_bytes(file, part)
            if unpacked > limit:
                raise pa.ArrowCapacityError(f"{what} would unpack to {unpacked:,} bytes, over {limit:,}")


def _unpacked_bytes(file: IO[bytes], block: IpcBlock) -> int:
    try:
        buffers = _packed_buffers(file, block)
        starts = [offset for offset, length in buffers if length > _SIZE.size]
        return sum(max(0, size) for size in _read_sizes(file, block, starts))  # -1: stored unpacked
    except _DAMAGE as error:
        raise pa.ArrowInvalid(f"the metadata of a batch are damaged: {error}") from error


def _packed_buffers(file: IO[bytes], block: IpcBlock) -> list[tuple[int, int]]:
    """(offset in the body, bytes) of each buffer of a packed message; none for others."""
    file.seek(block.offset)
    data = file.read(block.metadata_bytes)
    # Arrow before 0.15 wrote no marker of four bytes here.
    message = _root(data[8:] if data[:4] == b"\xff\xff\xff\xff" else data[4:])
    header = _child(message, 2)
    kind = message.Get(number_types.Uint8Flags, message.Offset(_slot(1)) + message.Pos)
    batch = header if kind == _RECORD_BATCH or header is None else _child(header, 1)
    if batch is None or not batch.Offset(_slot(3)):
        return []
    return [_BUFFER.unpack_from(batch.Bytes, at) for at in _structs(batch, 2, _BUFFER.size)]


def _read_sizes(file: IO[bytes], block: IpcBlock, starts: list[int]) -> Iterator[int]:
    """The sizes at these offsets in the body; those near each other are read in one request."""
    body = block.offset + block.metadata_bytes
    stretches: list[list[int]] = []
    for start in sorted(starts):
        if stretches and start - stretches[-1][-1] <= _NEAR_BYTES:
            stretches[-1].append(start)
        else:
            stretches.append([start])
    for stretch in stretches:
        file.seek(body + stretch[0])
        data = file.read(stretch[-1] - stretch[0] + _SIZE.size)
        yield from (_SIZE.unpack_from(data, start - stretch[0])[0] for start in stretch)


def _blocks(footer: Table, field: int) -> Iterator[IpcBlock]:
    for at in _structs(footer, field, _BLOCK.size):
        offset, metadata_bytes, body_bytes = _BLOCK.unpack_from(footer.Bytes, at)
        if offset < 0 or body_bytes < 0 or not 0 < metadata_bytes <= _MAX_METADATA_BYTES:
            raise ValueError("a block of no place")
        yield IpcBlock(offset=offset, metadata_bytes=metadata_bytes, body_bytes=body_bytes)


def _structs(table: Table, field: int, size: int) -> range:
    """Where the structs of a vector lie."""
    offset = table.Offset(_slot(field))
    if not offset:
        return range(0)
    start, count = table.Vector(offset), table.VectorLen(offset)
    if start + count * size > len(table.Bytes):
        raise ValueError("a vector beyond its end")
    return range(start, start + count * size, size)


def _child(table: Table, field: int) -> Table | None:
    offset = table.Offset(_slot(field))
    return Table(table.Bytes, table.Indirect(offset + table.Pos)) if offset else None


def _root(data: bytes) -> Table:
    return Table(data, struct.unpack_from("<I", data)[0])


def _slot(field: int) -> int:
    """Where a field's offset stands in a table's list of them."""
    return 4 + 2 * field

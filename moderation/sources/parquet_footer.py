"""Whether a Parquet file has encrypted columns, asked of its footer before Arrow is.

Arrow ends the whole process when it is asked for the metadata of such a column without a key (seen in pyarrow 25), and
a stranger's file may claim anything. The footer is Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md,
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import io
import struct
from typing import IO, Final

# Of 500,000 column chunks; reading the names of its fields takes a second per 2 MiB.
MAX_FOOTER_BYTES: Final = 64 * 1024 * 1024
_MAX_DEPTH: Final = 64  # as Thrift itself
_MAX_VARINT: Final = 10  # bytes
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
# Which structs lie in which field of which struct, as far as they lead to the columns.
_FILE, _GROUP, _COLUMN, _OTHER = "FileMetaData", "RowGroup", "ColumnChunk", ""
_INSIDE: Final = {(_FILE, 4): _GROUP, (_GROUP, 1): _COLUMN}
_CRYPTO_METADATA: Final = (_COLUMN, 8)


def read_footer(file: IO[bytes]) -> bytes:
    """The footer of a Parquet file; empty where it has none. Raises ValueError where it is longer than any is."""
    end = file.seek(0, io.SEEK_END)
    if end < 12:
        return b""
    file.seek(end - 8)
    length = int(struct.unpack("<I", file.read(8)[:4])[0])
    if length > end - 12:
        return b""
    if length > MAX_FOOTER_BYTES:
        raise ValueError(f"a footer of {length:,} bytes; the most are {MAX_FOOTER_BYTES:,}")
    file.seek(end - 8 - length)
    return file.read(length)


def has_encrypted_columns(footer: bytes) -> bool:
    """Whether any column chunk has crypto metadata. Raises ValueError where it is not readable as a footer."""
    walk = _Walk(footer)
    try:
        walk.skip_struct(_FILE, 0)
    except IndexError as error:
        raise ValueError("the footer ends early") from error
    return walk.is_encrypted


class _Walk:
    """Steps over values; a position and what was met on the way."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.is_encrypted = False

    def skip_struct(self, kind: str, depth: int) -> None:
        """Step over a struct. kind: its name in `_INSIDE`, or empty. Raises IndexError, ValueError."""
        if depth > _MAX_DEPTH:
            raise ValueError("a footer that is nested too deeply")
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            field = ((field + 0x8000) & 0xFFFF) - 0x8000  # Thrift keeps 16 bits
            if (kind, field) == _CRYPTO_METADATA:
                self.is_encrypted = True
            # The value of a boolean field is in its type.
            if head & 15 not in (_TRUE, _FALSE):
                self._skip(head & 15, _INSIDE.get((kind, field), _OTHER), depth + 1)

    def _skip(self, value: int, kind: str, depth: int) -> None:
        if value in (_TRUE, _FALSE, _BYTE):
            self._at += 1
        elif value == _DOUBLE:
            self._at += 8
        elif value == _BINARY:
            length = self._varint()
            self._at += length
        elif value in (_LIST, _SET):
            self._skip_list(kind, depth)
        elif value == _MAP:
            self._skip_map(depth)
        elif value == _STRUCT:
            self.skip_struct(kind, depth)
        elif value in (4, 5, 6):
            self._varint()
        else:
            raise ValueError(f"a footer with a value of the unknown type {value}")

    def _skip_list(self, kind: str, depth: int) -> None:
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        self._refuse_endless(count)
        for _ in range(count):
            self._skip(head & 15, kind, depth)

    def _skip_map(self, depth: int) -> None:
        count = self._varint()
        self._refuse_endless(2 * count)
        if not count:
            return
        types = self._byte()
        for _ in range(count):
            self._skip(types >> 4, _OTHER, depth)
            self._skip(types & 15, _OTHER, depth)

    def _refuse_endless(self, count: int) -> None:
        # Every value takes a byte at least.
        if count > len(self._data) - self._at:
            raise ValueError("a footer that claims more values than it has bytes")

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _varint(self) -> int:
        value = shift = 0
        for _ in range(_MAX_VARINT):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ValueError("a footer with a number of more than ten bytes")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

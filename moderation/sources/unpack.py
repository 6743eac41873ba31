"""The bytes of a text file in storage, a range at a time; `.gz`, `.bz2` and `.xz` unpacked on the way, bounded."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from moderation import storage
from moderation.errors import UsageError

# Bytes of one range request: large enough that its latency does not count.
CHUNK = 8 * 1024 * 1024
# Lists of URIs pack to a tenth or a fiftieth. A file that exceeds both limits is a bomb: 1 MB may hold 1 GB.
_MAX_RATIO = 300
_FREE_BYTES = 256 * 1024 * 1024

PACKED = (".gz", ".bz2", ".xz")
_UNREADABLE = (".zst", ".zip", ".br", ".lz4", ".7z")


class DamagedTextError(Exception):
    """A packed file that is damaged or ends early: what came before it is good."""


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /, max_length: int = ...) -> bytes: ...


def without_packing(name: str) -> str:
    """A name in lower case without `.gz`, `.bz2` or `.xz`. Raises UsageError for a packing that can't be read here."""
    name = name.lower()
    if name.endswith(_UNREADABLE):
        raise UsageError(f"{name}: unpack it first, or pack it as .gz")
    return next((name.removesuffix(suffix) for suffix in PACKED if name.endswith(suffix)), name)


def read_chunks(uri: str) -> Iterator[bytes]:
    """The content of a file in pieces of at most CHUNK bytes, unpacked.

    Raises DamagedTextError after the last good piece; UsageError for a bomb; FileNotFoundError, PermissionError,
    StorageError.
    """
    name = uri.lower()
    chunks = _stored_chunks(uri)
    if name.endswith(".gz"):
        yield from _bounded(uri, _unpack(chunks, _Gzip))
    elif name.endswith(".bz2"):
        yield from _bounded(uri, _unpack(chunks, bz2.BZ2Decompressor))
    elif name.endswith(".xz"):
        yield from _bounded(uri, _unpack(chunks, lzma.LZMADecompressor))
    else:
        yield from chunks


def _stored_chunks(uri: str) -> Iterator[bytes]:
    size = storage.info(uri).size_bytes
    for offset in range(0, size, CHUNK):
        yield storage.read_bytes(uri, offset=offset, length=min(CHUNK, size - offset))


def _bounded(uri: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    limit = max(_FREE_BYTES, _MAX_RATIO * storage.info(uri).size_bytes)
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limit:
            raise UsageError(f"{uri}: unpacks to more than {limit:,} bytes: no list does; unpack it and look")
        yield piece


class _Gzip:
    """zlib with the interface of bz2 and lzma: it keeps the input that is not unpacked yet."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, /, max_length: int = CHUNK) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _unpack(chunks: Iterator[bytes], make: Callable[[], _Unpacker]) -> Iterator[bytes]:
    """Unpack concatenated streams as one file; zeros after the last are padding."""
    unpacker: _Unpacker | None = None  # of the current stream
    for data in chunks:
        while True:
            if unpacker is None:
                if not data.strip(b"\0"):
                    break
                unpacker = make()
            piece, data = _step(unpacker, data), b""
            if piece:
                yield piece
            if unpacker.eof:
                data, unpacker = unpacker.unused_data, None
            elif not piece:
                break
    if unpacker is not None:
        raise DamagedTextError("the packed file ends early")


def _step(unpacker: _Unpacker, data: bytes) -> bytes:
    try:
        return unpacker.decompress(data, CHUNK)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise DamagedTextError(f"the packed file is damaged: {error}") from error

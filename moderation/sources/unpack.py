"""The bytes of a text file in storage, a range at a time; `.gz`, `.bz2` and `.xz` unpacked on the way, bounded."""

from __future__ import annotations

import bz2
import codecs
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
NOT_READ = (".zst", ".zip", ".br", ".lz4", ".7z")

# The longest first: UTF-32 begins like UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEAD_BYTES = 8  # that tell the encoding
# A list without `\n` in so many bytes, and with `\r`, has lines that end in `\r`.
_FIRST_LINE_BYTES = 64 * 1024
# In no UTF-8 text.
_INVALID = b"\xff"


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
    if name.endswith(NOT_READ):
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


def read_text(uri: str) -> Iterator[bytes]:
    """As `read_chunks`, in UTF-8 without a byte order mark, lines ended by `\\n` (or `\\r\\n`).

    Spreadsheets write UTF-16 and, on old Macs, `\\r` alone. Bytes that are not valid stay so: their line is unreadable.
    """
    pieces = _as_utf8(read_chunks(uri))
    first, pieces = _begin(pieces, lambda head: b"\n" in head or len(head) >= _FIRST_LINE_BYTES)
    while first.startswith(codecs.BOM_UTF8):
        first = first.removeprefix(codecs.BOM_UTF8)
    if b"\r" not in first or b"\n" in first:
        yield first
        yield from pieces
        return
    yield first.replace(b"\r", b"\n")
    for piece in pieces:
        yield piece.replace(b"\r", b"\n")


def _begin(pieces: Iterator[bytes], is_enough: Callable[[bytes], bool]) -> tuple[bytes, Iterator[bytes]]:
    """The first pieces as one, as many as are enough, or all; and what follows, which may be the damage."""
    head = b""
    try:
        for piece in pieces:
            head += piece
            if is_enough(head):
                break
    except DamagedTextError as error:
        return head, map(_raise_again, [error])
    return head, pieces


def _raise_again(error: DamagedTextError) -> bytes:
    raise error


def _as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first, chunks = _begin(chunks, lambda head: len(head) >= _HEAD_BYTES)
    encoding = _encoding_of(first[:_HEAD_BYTES])
    if encoding is None:
        yield first
        yield from chunks
        return
    # Of pairs of surrogates one may be missing, and a number may be no character: that is a fault of its line alone.
    errors = "replace" if encoding.startswith("utf-32") else "surrogatepass"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    try:
        text = decoder.decode(first)
        yield text.lstrip("\ufeff").encode("utf-8", "surrogatepass")
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        yield _INVALID


def _encoding_of(head: bytes) -> str | None:
    """UTF-16 or UTF-32 by the byte order mark, or UTF-16 by its zero bytes; None for UTF-8. head: _HEAD_BYTES."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    even, odd = head[::2], head[1::2]
    if len(head) == _HEAD_BYTES and not any(odd) and all(even):
        return "utf-16-le"
    return "utf-16-be" if len(head) == _HEAD_BYTES and not any(even) and all(odd) else None


def _stored_chunks(uri: str) -> Iterator[bytes]:
    """All of one version, as long as it was at first: a line would begin in one version and end in another.

    Raises ChangedError, also where a file became shorter: the rows at its end would be lost.
    """
    info = storage.info(uri)
    # A local file that is open stays the same one, and may grow.
    with storage.open_input(uri, etag=None if storage.scheme_of(uri) == "file" else info.etag) as file:
        for offset in range(0, info.size_bytes, CHUNK):
            length = min(CHUNK, info.size_bytes - offset)
            piece = file.read(length)
            if len(piece) < length:
                raise storage.ChangedError(f"{uri}: became shorter while it was read")
            yield piece


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

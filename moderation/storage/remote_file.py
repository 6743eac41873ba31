"""A seekable view of an object, for readers that jump: every read is a range with its own retries."""

from __future__ import annotations

import io
from collections.abc import Callable


class RemoteFile(io.RawIOBase):
    """`read`, `seek` and `tell` over ranges of an object of known size.

    A client's own file would raise a plain OSError from the middle of a read when storage hiccups, which a reader of
    Parquet can't tell from a damaged file.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size_bytes: int) -> None:
        """read_range: the bytes from an offset, of a length; raises what storage raises."""
        super().__init__()
        self._read_range = read_range
        self._size = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        data = self._read_range(self._at, length) if length else b""
        self._at += len(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    # The buffer protocol has no name for this argument that typeshed and 3.11 agree on.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

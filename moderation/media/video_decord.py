"""Frames of a video by decord (FFmpeg), which seeks by its own table of the container's times.

One reader and one FFmpeg thread per item: a worker decodes several items at once (18 readers in 18 threads gave the
same pixels as one after the other). decord applies the container's rotation.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moderation.errors import ItemError
from moderation.media.timeline import F64, I64
from moderation.types import U8, ErrorCode


class _Writable(Protocol):
    def write(self, data: memoryview, /) -> int | None: ...


class _DecordFrame(Protocol):
    """decord's array: uint8 [H,W,3]."""

    def asnumpy(self) -> U8: ...


class _DecordApi(Protocol):
    """The part of decord.VideoReader that is used; it has no type stubs."""

    def seek_accurate(self, pos: int) -> None: ...

    def next(self) -> _DecordFrame: ...


@dataclass(slots=True, kw_only=True)
class DecordReader:
    """A `FrameReader`."""

    reader: _DecordApi
    times_s: F64
    duration_s: float
    keys: I64
    name: str = "decord"

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, U8 | None]]:
        """The frames at these indices; see `FrameReader`."""
        following = -1
        for index in indices:
            yield index, self._read_frame(index, seek=index != following)
            following = index + 1

    def _read_frame(self, index: int, *, seek: bool) -> U8 | None:
        from decord import DECORDError

        try:
            if seek:
                self.reader.seek_accurate(index)
            return self.reader.next().asnumpy()
        except (DECORDError, RuntimeError, StopIteration):
            return None


def open_decord(data: bytes) -> DecordReader:
    """Open a video. Raises ItemError(CORRUPT) where decord is absent, cannot open it or sees no times in it."""
    try:
        import decord  # loads FFmpeg: only where there is a video
    except (ImportError, OSError) as error:
        raise ItemError(ErrorCode.CORRUPT, "it is not installed") from error

    decord.logging.set_level(decord.logging.QUIET)  # a broken file is a row, not 30 lines on stderr
    try:
        with _as_file(data) as path:
            reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        spans = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), dtype=np.float64)
        keys = np.asarray(reader.get_key_indices(), dtype=np.int64)
    except (decord.DECORDError, RuntimeError, AssertionError, IndexError) as error:
        raise ItemError(ErrorCode.CORRUPT, "it does not open") from error
    times_s = spans[:, 0] - spans[0, 0]
    if not np.isfinite(times_s).all():
        raise ItemError(ErrorCode.CORRUPT, "frames without times")
    end_s = float(np.nan_to_num(spans[-1, 1] - spans[0, 0]))
    return DecordReader(reader=reader, times_s=times_s, duration_s=max(end_s, float(times_s[-1])), keys=keys)


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path under which FFmpeg can open the bytes; it keeps its own handle, so the path may vanish once it is open.

    decord also takes a BytesIO, but its own reader of one crashes the process on a truncated AVI (3.4.0; tested);
    FFmpeg's file reader does not. A memfd is memory, not disk; systems other than Linux get a temporary file.
    """
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("moderation-video"), "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, no path
            _write_all(file, data)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(prefix="moderation-video-", buffering=0) as named:
            _write_all(named, data)
            yield named.name


def _write_all(file: _Writable, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]  # one write takes at most 2 GiB

"""An open video: its frames' times, and its frames one by one, by decord (FFmpeg).

Rotation in the container is honoured by decord. One reader and one FFmpeg thread per item: a worker decodes several
items at once (18 readers in 18 threads gave the same pixels as one after the other).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from moderation.errors import ItemError
from moderation.media.container import Container
from moderation.media.sniff import MediaType
from moderation.types import U8, ErrorCode

F64 = npt.NDArray[np.float64]


class _Writable(Protocol):
    def write(self, data: memoryview, /) -> int | None: ...


class _DecordFrame(Protocol):
    """decord's array: uint8 [H,W,3]."""

    def asnumpy(self) -> U8: ...


class _DecordReader(Protocol):
    """What is used of decord.VideoReader, which has no type stubs."""

    def seek_accurate(self, pos: int) -> None: ...

    def next(self) -> _DecordFrame: ...

    def get_key_indices(self) -> list[int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVideo:
    """A video whose container has been read. times_s: float64 [N], when each frame is shown, ascending from 0."""

    reader: _DecordReader
    times_s: F64
    duration_s: float

    def key_indices(self) -> npt.NDArray[np.int64]:
        """Indices of the keyframes, int64."""
        return np.asarray(self.reader.get_key_indices(), dtype=np.int64)

    def read_frame(self, index: int) -> U8 | None:
        """The frame at this index, uint8 [H,W,3]; None where it does not decode."""
        return self._read(index)

    def read_next_frame(self) -> U8 | None:
        """The frame after the one read last; None where it does not decode."""
        return self._read(None)

    def _read(self, index: int | None) -> U8 | None:
        from decord import DECORDError

        try:
            if index is not None:
                self.reader.seek_accurate(index)
            return self.reader.next().asnumpy()
        except (DECORDError, RuntimeError, StopIteration):
            return None


def open_video(data: bytes, media_type: MediaType, container: Container) -> OpenVideo:
    """Open a video. Raises ItemError: NO_FRAMES (it has no picture track), CORRUPT."""
    import decord  # loads FFmpeg: only where there is a video

    decord.logging.set_level(decord.logging.QUIET)  # a broken file is a row, not 30 lines on stderr
    try:
        with _as_file(data) as path:
            reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        spans = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), dtype=np.float64)
    except decord.DECORDError as error:
        code = ErrorCode.NO_FRAMES if _holds_no_pictures(media_type, container) else ErrorCode.CORRUPT
        raise ItemError(code, f"{media_type}: no stream of pictures that decodes") from error
    except (RuntimeError, AssertionError, IndexError) as error:
        raise ItemError(ErrorCode.CORRUPT, f"{media_type}: {_reason(error)}") from error
    begin = float(spans[0, 0])
    times_s = np.maximum.accumulate(np.nan_to_num(spans[:, 0] - begin, nan=0.0, posinf=0.0, neginf=0.0))
    duration_s = max(float(np.nan_to_num(spans[-1, 1] - begin)), float(times_s[-1]))
    return OpenVideo(reader=reader, times_s=times_s, duration_s=duration_s)


def _holds_no_pictures(media_type: MediaType, container: Container) -> bool:
    """Whether a container that FFmpeg opened without finding a picture is whole: then it never held one."""
    whole = not container.truncated and container.has_video is None
    return whole and media_type not in (MediaType.MP4, MediaType.MATROSKA, MediaType.AVI)


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path under which FFmpeg can open the bytes; it keeps its own handle, so the path may go once it is open.

    decord also takes a BytesIO, but that reader of its own crashes the process on a cut AVI (3.4.0; tested), where
    FFmpeg's does not. A memfd is memory, not disk; elsewhere than on Linux a temporary file does.
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


def _reason(error: Exception) -> str:
    # decord's message ends in the file's first bytes as text; only its kind is of use.
    return {AssertionError: "no frame in it", IndexError: "no frame in it"}.get(type(error), "the container is broken")

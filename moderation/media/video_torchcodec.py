"""Frames of a video by torchcodec (the FFmpeg of the system), which seeks by its own scan of the container's times.

It must be in the process before decord, which shows the codec libraries of its wheel to whatever is loaded later
(RTLD_GLOBAL): the FFmpeg of the system then calls those, and AV1 ends in a segmentation fault (measured).

One decoder and one FFmpeg thread per item. torchcodec applies the container's rotation. A frame carries its time: one
that is not of the wanted time counts as not decoded. Of torchcodec only its CPU path is measured; NVDEC ("cuda") has
its own conversion to RGB, so that its pixels differ a little.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from moderation.errors import ItemError
from moderation.media.demux import PictureTrack
from moderation.media.timeline import F64, I64, Timeline
from moderation.types import U8, ErrorCode

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

# Both count the container's own ticks; the shortest step that is believed is 1 ms (`timeline.MAX_RATE`).
_SAME_TIME_S = 0.0004


class TorchcodecReader:
    """A `FrameReader`. device: `cpu` or `cuda`."""

    def __init__(self, data: bytes, track: PictureTrack, timeline: Timeline, *, device: str) -> None:
        self.name = "torchcodec" if device == "cpu" else f"torchcodec on {device}"
        self.times_s: F64 = timeline.times_s
        self.duration_s = timeline.duration_s
        self.keys: I64 = timeline.keys
        self._data, self._stream, self._device = data, track.stream, device
        self._decoder = self._open()
        self._last = -1
        self._begin_s = float(self._decoder.metadata.begin_stream_seconds or 0.0)
        if len(self._decoder) != len(self.times_s):
            raise ItemError(ErrorCode.CORRUPT, f"it counts {len(self._decoder)} frames, not {len(self.times_s)}")

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, U8 | None]]:
        """The frames at these indices; see `FrameReader`."""
        for index in indices:
            yield index, self._read_frame(index)

    def _open(self) -> VideoDecoder:
        """A decoder at the beginning. Raises ItemError(CORRUPT)."""
        if sys.modules.get("decord") is not None and "torchcodec.decoders" not in sys.modules:
            raise ItemError(ErrorCode.CORRUPT, "it cannot be loaded behind decord")
        try:
            from torchcodec.decoders import VideoDecoder

            return VideoDecoder(
                self._data,
                stream_index=self._stream,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device=self._device,
            )
        except ImportError as error:
            raise ItemError(ErrorCode.CORRUPT, "it is not installed") from error
        # Its libraries are loaded here, too: without an FFmpeg it is the same type of error as a broken file.
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            raise ItemError(ErrorCode.CORRUPT, "it does not open") from error

    def _read_frame(self, index: int) -> U8 | None:
        try:
            if index < self._last:
                # A step back from near the end once gave another frame: torchcodec issue 1339.
                self._decoder = self._open()
            self._last = index
            frame = self._decoder.get_frame_at(index)
        except (RuntimeError, ValueError, IndexError, ItemError):
            return None
        if abs(frame.pts_seconds - self._begin_s - float(self.times_s[index])) > _SAME_TIME_S:
            return None
        pixels: U8 = frame.data.cpu().numpy()
        return pixels

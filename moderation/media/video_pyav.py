"""Frames of a track by PyAV (FFmpeg), read in file order.

The container never seeks: all packets are read, and only those between a keyframe and a wanted frame are decoded. Each
frame carries the number of its packet, so nothing depends on its time. Where a keyframe turns out not to be one, or a
wanted frame does not come, everything is decoded from the beginning.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, SupportsBytes, cast

import numpy as np
import numpy.typing as npt

from moderation.config.model import MediaConfig
from moderation.file_types import MediaType
from moderation.media.demux import PictureTrack, demux, open_container
from moderation.media.limits import Deadline, check_pixels
from moderation.media.pixels import turn_upright
from moderation.media.timeline import F64, I64, Timeline
from moderation.types import U8

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# A track whose frames are only counted is decoded whole up to this many pixels (20 s at 200 million per second).
_SEQUENCE_PIXELS = 4_000_000_000
# A packet may show nothing (a hidden reference of VP8, a dropped frame): the frame before it is then shown longer.
_SHOWN_S = 1.0

_Decoded = tuple[int, "VideoFrame"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _PacketRange:
    """Packets start..stop (inclusive), decoded in one go for the frames `wanted`."""

    start: int
    stop: int
    wanted: tuple[int, ...]


class PyavReader:
    """A `FrameReader`."""

    def __init__(
        self,
        data: bytes,
        media_type: MediaType,
        track: PictureTrack,
        timeline: Timeline,
        *,
        config: MediaConfig,
        deadline: Deadline,
    ) -> None:
        self.name = "pyav"
        self.times_s: F64 = timeline.times_s
        self.duration_s = timeline.duration_s
        self.keys: I64 = timeline.keys
        self._data, self._media_type, self._track = data, media_type, track
        self._timeline = timeline
        self._config, self._deadline = config, deadline
        self._index_of = {int(p): k for k, p in enumerate(timeline.packets)}
        self._key_packets = np.flatnonzero(track.packets.is_key)  # includes hidden ones (before an edit list's start)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, U8 | None]]:
        """The frames at these indices; see `FrameReader`. Raises ItemError: TIMEOUT, TOO_MANY_PIXELS."""
        wanted = tuple(sorted(set(indices)))
        in_sequence = self._timeline.is_counted and self._is_small()
        left = yield from self._read_runs([self._whole(wanted)] if in_sequence else self._plan(wanted))
        if left and not in_sequence:
            self.name = f"{self.name}; in sequence"
            left = yield from self._read_runs([self._whole(tuple(left))])
        for index in left:
            yield index, None

    def why_not_plain(self) -> str | None:
        """Why the first frame is one that other readers show in another way; None: it is not."""
        for _, frame in self._decode(self._plan((0,))[0]):
            if frame.interlaced_frame:
                return "interlaced pictures"  # the others take the colours of one field for both
            if read_orientation(frame) not in (1, 3, 6, 8):
                return "a mirrored picture"  # the others do not mirror
            return None if _is_quarter_turn(frame) else "a picture turned by an odd angle"
        return "a first frame that is broken"

    def _is_small(self) -> bool:
        return len(self.times_s) * max(self._track.pixels, 1) <= _SEQUENCE_PIXELS

    def _whole(self, wanted: tuple[int, ...]) -> _PacketRange:
        return _PacketRange(start=self._first_packet(), stop=len(self._track.packets) - 1, wanted=wanted)

    def _plan(self, wanted: tuple[int, ...]) -> list[_PacketRange]:
        """Ascending ranges without overlap, each from a keyframe to the last wanted frame that depends on it."""
        ends = sorted((self._start_of(k), self._stop_of(k), k) for k in wanted)
        runs: list[_PacketRange] = []
        for start, group in groupby(ends, key=lambda end: end[0]):
            members = list(group)
            stop, frames = max(m[1] for m in members), tuple(m[2] for m in members)
            if runs and start <= runs[-1].stop:
                last = runs.pop()
                start, stop, frames = last.start, max(stop, last.stop), (*last.wanted, *frames)
            runs.append(_PacketRange(start=start, stop=stop, wanted=tuple(sorted(frames))))
        return runs

    def _start_of(self, index: int) -> int:
        """The packet to start with: the last keyframe that is decoded and shown before the frame."""
        packet = int(self._timeline.packets[index])
        place = int(np.searchsorted(self._key_packets, packet, side="right"))
        for key in self._key_packets[:place][::-1].tolist():
            if self._index_of.get(key, -1) <= index:
                return int(key)
        return self._first_packet()

    def _first_packet(self) -> int:
        return int(self._key_packets[0]) if len(self._key_packets) else 0

    def _stop_of(self, index: int) -> int:
        packet = int(self._timeline.packets[index])
        if not self._timeline.is_counted:
            return packet
        # The n-th output frame is known only after all frames that are decoded later but shown earlier.
        later = self._key_packets[np.searchsorted(self._key_packets, packet, side="right") :]
        return int(later[0]) - 1 if len(later) else len(self._track.packets) - 1

    def _read_runs(self, runs: Sequence[_PacketRange]) -> Generator[tuple[int, U8 | None], None, list[int]]:
        """The frames of these ranges; returns those that did not come."""
        left: list[int] = []
        for run, frames in self._decode_runs(runs):
            left += yield from self._pick(run, frames)
        return left

    def _pick(self, run: _PacketRange, frames: Iterator[_Decoded]) -> Generator[tuple[int, U8 | None], None, list[int]]:
        pending = list(run.wanted)
        left: list[int] = []
        before: _Decoded | None = None
        sent = -1
        for decoded in chain(frames, [None]):
            if before is None and run.start > 0 and not _is_key(decoded):
                return pending  # the alleged keyframe is none
            while pending and (decoded is None or pending[0] <= decoded[0]):
                shown = self._shown_at(pending[0], before, decoded)
                if shown is None:
                    left.append(pending[0])
                elif shown[0] != sent:
                    sent = shown[0]
                    yield sent, self._pixels(shown[1])
                pending.pop(0)
            before = decoded
        return left

    def _shown_at(self, wanted: int, before: _Decoded | None, decoded: _Decoded | None) -> _Decoded | None:
        """The wanted frame, or the one shown in its place: the one before. None: too long ago, or there is none."""
        if decoded is not None and decoded[0] == wanted:
            return decoded
        if before is None or self.times_s[wanted] - self.times_s[before[0]] > _SHOWN_S:
            return None
        return before

    def _pixels(self, frame: VideoFrame) -> U8:
        check_pixels(frame.width, frame.height, self._config.max_pixels)
        pixels = cast(U8, frame.to_ndarray(format="rgb24"))
        orientation = read_orientation(frame)
        return pixels if orientation == 1 else turn_upright(pixels, orientation)

    def _decode(self, run: _PacketRange) -> Iterator[_Decoded]:
        for _, frames in self._decode_runs([run]):
            yield from frames

    def _decode_runs(self, runs: Sequence[_PacketRange]) -> Iterator[tuple[_PacketRange, Iterator[_Decoded]]]:
        """Each range with its frames, as the decoder returns them; consume one range's frames before the next."""
        with open_container(self._data, self._media_type, self._deadline, whole=self._track.whole) as container:
            stream = next(s for s in container.streams.video if s.index == self._track.stream)
            context = stream.codec_context
            context.thread_count = 1  # a worker decodes several items at once
            context.options = {"max_pixels": str(self._config.max_pixels)}
            packets = enumerate(demux(container, [stream], self._deadline))
            for run in runs:
                yield run, self._number(run, _decode_packets(context, run, packets))

    def _number(self, run: _PacketRange, frames: Iterator[VideoFrame]) -> Iterator[_Decoded]:
        """Add each frame's index; frames outside the timeline (before the first keyframe) are left out."""
        first = self._index_of.get(run.start, 0)
        for place, frame in enumerate(frames):
            self._deadline.check()
            if self._timeline.is_counted:
                index = min(first + place, len(self.times_s) - 1)
            else:
                index = self._index_of.get(-1 if frame.pts is None else frame.pts, -1)
            if index >= 0:
                yield index, frame


def _is_key(decoded: _Decoded | None) -> bool:
    return decoded is not None and decoded[1].key_frame


def _decode_packets(
    context: VideoCodecContext, run: _PacketRange, packets: Iterator[tuple[int, Packet[VideoStream]]]
) -> Iterator[VideoFrame]:
    """The frames of packets run.start..run.stop; packets that do not decode are left out."""
    import av

    for place, packet in packets:
        if place < run.start:
            continue
        # A frame keeps the time of its packet, whatever order they come out in. `packet.opaque` would do the same, but
        # PyAV 18.1 looks it up by the id() of the object: of two videos read at once, one lost its small numbers.
        packet.pts = place
        with suppress(av.FFmpegError):  # the caller notices which wanted frames are missing
            yield from context.decode(packet)
        if place >= run.stop:
            break
    with suppress(av.FFmpegError):
        yield from context.decode(None)
    context.flush_buffers()


def read_orientation(frame: VideoFrame) -> int:
    """How a frame is turned and mirrored, as an EXIF orientation (1 to 8), from its display matrix.

    A matrix with another angle counts as the nearest quarter turn. ISO/IEC 14496-12, 6.2.2: x' = ax + cy, y' = bx + dy.
    """
    matrix = _display_matrix(frame)
    if len(matrix) < 5:
        return 1
    a, b, _, c, d = matrix[:5].tolist()
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    mirrored, upended = (c < 0, b < 0) if swapped else (a < 0, d < 0)
    return (5 if swapped else 1) + (2 if mirrored and upended else 1 if mirrored else 3 if upended else 0)


def _is_quarter_turn(frame: VideoFrame) -> bool:
    matrix = _display_matrix(frame)
    if len(matrix) < 5:
        return True
    a, b, _, c, d = matrix[:5].tolist()
    return bool((b == c == 0 and abs(a) == abs(d)) or (a == d == 0 and abs(b) == abs(c)))


def _display_matrix(frame: VideoFrame) -> npt.NDArray[np.int32]:
    """int32 [9], empty where there is none."""
    stored = cast("SupportsBytes | None", frame.side_data.get("DISPLAYMATRIX"))
    return np.frombuffer(bytes(stored) if stored is not None else b"", dtype=np.int32)

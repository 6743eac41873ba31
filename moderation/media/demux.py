"""A container opened by PyAV (FFmpeg): its picture tracks and their packets, without decoding.

FFmpeg gets the sniffed format and the allowed decoders, so that a stranger's bytes reach no others.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn, cast

import numpy as np

from moderation.errors import ItemError
from moderation.file_types import MediaType, elementary_codec
from moderation.media.bitstream import is_closed_keyframe
from moderation.media.limits import Deadline, TimedBytes
from moderation.media.more_shown import draws_pictures, shows_more
from moderation.media.timeline import Packets
from moderation.types import ErrorCode

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.subtitles.stream import SubtitleStream
    from av.video.stream import VideoStream

# Codecs in common use, whose decoders are fuzzed and maintained. The others (over 200) are `unsupported_type`.
CODECS = frozenset(
    {
        *("h264", "hevc", "av1", "vp8", "vp9", "theora", "mjpeg", "ffv1", "prores", "dnxhd", "rawvideo"),
        *("mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1"),
        *("h263", "flv", "vp6", "vp6f", "dvvideo", "huffyuv", "ffvhuff"),
    }
)
_SAME_CODEC = {"libdav1d": "av1", "libaom-av1": "av1", "msmpeg4v3": "msmpeg4", "libvpx": "vp8", "libvpx-vp9": "vp9"}
_DECODERS = ",".join(sorted(CODECS | _SAME_CODEC.keys()))
MAX_PACKETS = 4_000_000  # four hours at 240 frames per second are 3.5 million
_PROBE_BYTES = 64 * 1024 * 1024  # streams that begin within these are detected; in a TS one may begin at any time
_PROBE_US = 3_600_000_000

_FORMATS = {
    MediaType.MP4: "mov",
    MediaType.HEIC: "mov",
    MediaType.AVIF: "mov",
    MediaType.MATROSKA: "matroska",
    MediaType.AVI: "avi",
    MediaType.MPEG_TS: "mpegts",
    MediaType.MPEG_PS: "mpeg",
    MediaType.FLV: "flv",
    MediaType.ASF: "asf",
    MediaType.OGG: "ogg",
}
_LATE_STREAMS = frozenset({MediaType.MPEG_TS, MediaType.MPEG_PS, MediaType.FLV, MediaType.OGG})


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureTrack:
    """A track of pictures: its packets, or (`picture`) one encoded picture that a player shows as the cover."""

    stream: int  # index in the container
    codec: str
    packets: Packets
    rate: float  # frames per second stated by the header, 0 where none
    picture: bytes | None = None
    layout: str = ""  # FFmpeg's name of the pixel format
    pixels: int = 0  # width x height stated by the header
    is_default: bool = False
    shows_more: bool = False  # a player may show more than its frames: transparency, a second view
    whole: bool = False  # read without its edit list or index


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """The picture tracks of a container, the one that a player shows first in front.

    unreadable: tracks with an unknown codec, or encrypted. broken: the container ends before it should.
    overlays: subtitle tracks that draw pictures. streams: all, of any kind.
    empty: streams of pictures without a packet.
    """

    tracks: tuple[PictureTrack, ...]
    unreadable: int
    broken: bool
    overlays: int = 0
    streams: int = 0
    empty: tuple[int, ...] = ()

    def films(self, codecs: Container[str]) -> list[PictureTrack]:
        """The tracks of these codecs, without covers."""
        return [t for t in self.tracks if t.picture is None and t.codec in codecs]

    def pictures(self) -> list[bytes]:
        """The covers, encoded."""
        return [t.picture for t in self.tracks if t.picture is not None]


@contextmanager
def open_container(
    data: bytes, media_type: MediaType, deadline: Deadline, *, whole: bool = False
) -> Iterator[InputContainer]:
    """Open a container; whole: without the edit lists of an MP4, the index of an AVI.

    Raises ItemError: CORRUPT (no such container), TIMEOUT, OUT_OF_MEMORY.
    """
    import av  # loads FFmpeg: only where there is a video

    options = {"codec_whitelist": _DECODERS, "max_streams": "64"}
    if whole:
        options["ignore_editlist"] = "1"
    if media_type in _LATE_STREAMS:
        options |= {"probesize": str(_PROBE_BYTES), "analyzeduration": str(_PROBE_US)}
    try:
        source = TimedBytes(data, deadline)
        container = av.open(
            _Forward(source) if whole and media_type is MediaType.AVI else source,
            "r",
            format=_format(data, media_type),
            options=options,
            metadata_errors="replace",
            io_open=_refuse_file,
        )
    except (av.FFmpegError, ValueError) as error:
        raise ItemError(ErrorCode.CORRUPT, f"{media_type}: the container is broken") from error
    with container:
        yield container


class _Forward:
    """A file that cannot seek: FFmpeg then reads an AVI in its order, not by its index."""

    def __init__(self, source: TimedBytes) -> None:
        self.read = source.read


def _format(data: bytes, media_type: MediaType) -> str | None:
    """FFmpeg's name of the format. MPEG-1 and MPEG-2 may come without a container."""
    bare = elementary_codec(data[:16])
    return bare if bare and media_type in (MediaType.ELEMENTARY, MediaType.MPEG_PS) else _FORMATS.get(media_type)


def _refuse_file(*_: object) -> NoReturn:
    raise PermissionError("a video that refers to other files")


def read_tracks(data: bytes, media_type: MediaType, deadline: Deadline, *, whole: bool = False) -> Tracks:
    """Every track with a picture. whole, and what it raises: as `open_container`."""
    with open_container(data, media_type, deadline, whole=whole) as container:
        streams = [s for s in container.streams.video if s.codec_context is not None]
        unreadable = len(container.streams.video) - len(streams)
        subtitles = {s.index: s for s in container.streams.subtitles}
        overlays: set[int] = set()
        log = {s.index: _PacketLog(s) for s in streams}
        errors: list[Exception] = []
        for packet in demux(container, [*streams, *subtitles.values()], deadline, errors):
            stream = packet.stream_index
            if stream in log:
                log[stream].add(packet)
            elif stream not in overlays and draws_pictures(subtitles[stream], bytes(packet)):
                overlays.add(stream)
        tracks = [_track(s, log[s.index], whole=whole) for s in streams if not log[s.index].encrypted]
        unreadable += len(streams) - len(tracks)
        count = len(container.streams)
    return Tracks(
        tracks=_in_order(tracks),
        unreadable=unreadable,
        broken=bool(errors),
        overlays=len(overlays),
        streams=count,
        empty=tuple(t.stream for t in tracks if not len(t.packets)),
    )


def _in_order(tracks: list[PictureTrack]) -> tuple[PictureTrack, ...]:
    """The tracks with content; the one that a player shows first in front, covers last."""
    filled = (t for t in tracks if len(t.packets))
    return tuple(sorted(filled, key=lambda t: (t.picture is not None, not t.is_default, -t.pixels, t.stream)))


def demux(
    container: InputContainer,
    streams: Sequence[VideoStream | SubtitleStream],
    deadline: Deadline,
    errors: list[Exception] | None = None,
) -> Iterator[Packet[VideoStream]]:
    """The non-empty packets of these streams, in file order; ends where the file breaks.

    errors: receives the break. Raises ItemError: TIMEOUT, TOO_LONG.
    """
    import av

    try:
        for place, packet in enumerate(container.demux(list(streams)) if streams else ()):
            if place % 256 == 0:
                deadline.check()
            if place > MAX_PACKETS:
                raise ItemError(ErrorCode.TOO_LONG, f"more than {MAX_PACKETS} frames")
            if packet.size:
                yield cast("Packet[VideoStream]", packet)
    except av.FFmpegError as error:
        if errors is not None:
            errors.append(error)


def codec_name(stream: VideoStream) -> str:
    """The codec's name, the same whichever library decodes it."""
    name = stream.codec_context.name
    return _SAME_CODEC.get(name, name)


def _is_cover(stream: VideoStream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _track(stream: VideoStream, log: _PacketLog, *, whole: bool) -> PictureTrack:
    from av.stream import Disposition

    rate = stream.average_rate or stream.guessed_rate
    packets = log.packets()
    if whole:
        packets = replace(packets, is_hidden=np.zeros(len(packets), dtype=np.bool_))
    return PictureTrack(
        stream=stream.index,
        codec=codec_name(stream),
        packets=packets,
        rate=float(rate) if rate else 0.0,
        picture=log.cover,
        layout=stream.codec_context.pix_fmt or "",
        pixels=max(0, stream.codec_context.width) * max(0, stream.codec_context.height),
        is_default=bool(stream.disposition & Disposition.default),
        shows_more=log.shows_more,
        whole=whole,
    )


class _PacketLog:
    """Times and flags of a track's packets, collected as they arrive, and the first packet of a cover."""

    def __init__(self, stream: VideoStream) -> None:
        self._codec, self._layout = codec_name(stream), stream.codec_context.pix_fmt or ""
        self._extradata = bytes(stream.codec_context.extradata or b"")
        self._size = stream.codec_context.width, stream.codec_context.height
        self._is_cover = _is_cover(stream)
        self._rows: list[tuple[float, float, float, bool, bool]] = []
        self._closed = True
        self.cover: bytes | None = None
        self.shows_more = self.encrypted = False

    def add(self, packet: Packet[VideoStream]) -> None:
        base = float(packet.time_base)
        key = bool(packet.is_keyframe)
        if self._is_cover and self.cover is None:
            self.cover = bytes(packet)
        self._look_at_content(packet, key=key)
        times = (_seconds(t, base) for t in (packet.pts, packet.dts, packet.duration))
        self._rows.append((*times, key, bool(packet.is_discard)))  # type: ignore[arg-type]

    def _look_at_content(self, packet: Packet[VideoStream], *, key: bool) -> None:
        if self._closed and (key or packet.has_sidedata("new_extradata")):
            closed = key and not packet.has_sidedata("new_extradata")
            self._closed = closed and is_closed_keyframe(self._codec, self._extradata, bytes(packet), self._size)
        self.shows_more = self.shows_more or shows_more(self._codec, self._layout, self._extradata, packet)
        self.encrypted = self.encrypted or packet.has_sidedata("encryption_info")

    def packets(self) -> Packets:
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 5)
        return Packets(
            pts_s=rows[:, 0],
            dts_s=rows[:, 1],
            span_s=rows[:, 2],
            is_key=rows[:, 3] > 0,
            is_hidden=rows[:, 4] > 0,
            closed=self._closed and bool(len(rows)),
        )


def _seconds(ticks: int | None, base: float) -> float:
    return float("nan") if ticks is None else ticks * base

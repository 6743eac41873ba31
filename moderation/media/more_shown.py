"""What a player may show of a video besides the frames that are decoded here: transparency, a second view or JPEG,
pictures among the subtitles. None of it is scored, so a row with it is not passed.

ITU-T H.264 annex H (a second view is in units of type 20), H.265 annexes F to G (layers above 0: a second view, or
alpha), RFC 9559 (`BlockAdditional` holds the alpha of VP8 and VP9).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from moderation.media.bitstream import unit_heads

if TYPE_CHECKING:
    from av.packet import Packet
    from av.subtitles.stream import SubtitleStream
    from av.video.stream import VideoStream

_H264_VIEW = 20
_HEVC_SLICES = range(32)
_ALPHA_LAYOUTS = re.compile(r"yuva|rgba|argb|bgra|abgr|gbrap|ayuv|vuya|ya8|ya16")
_ALPHA_ASIDE = frozenset({"vp8", "vp9"})
_JPEG_BEHIND = b"\xff\xd9\xff\xd8"  # the second field of an old capture, or another picture; FFmpeg shows the first
# Subtitles as text are not read. They draw pictures only by commands of ASS: `{\p1}` and its like.
_TEXT_SUBTITLES = frozenset(
    {"subrip", "srt", "webvtt", "mov_text", "text", "eia_608", "cc_dec", "microdvd", "jacosub", "sami", "realtext"}
)
_ASS = frozenset({"ass", "ssa"})
_DRAWS = re.compile(rb"\\p[1-9]")


def shows_more(codec: str, layout: str, extradata: bytes, packet: Packet[VideoStream]) -> bool:
    """Whether a player may show more of this packet than the frame that comes of it."""
    if _ALPHA_LAYOUTS.match(layout):
        return True
    if codec in _ALPHA_ASIDE:
        return packet.has_sidedata("matroska_block_additional")
    if codec == "mjpeg":
        return _JPEG_BEHIND in bytes(packet)
    # Not keyframes alone: FFmpeg may cut a second view into packets of its own.
    return codec in ("h264", "hevc") and _has_second_view(codec, extradata, bytes(packet))


def _has_second_view(codec: str, extradata: bytes, packet: bytes) -> bool:
    heads = unit_heads(codec, extradata, packet)
    if codec == "h264":
        return any(head[0] & 0x1F == _H264_VIEW for head in heads)
    layers = ((head[0] >> 1 & 0x3F, (head[0] & 1) << 5 | head[1] >> 3) for head in heads if len(head) > 1)
    return any(kind in _HEVC_SLICES and layer > 0 for kind, layer in layers)


def draws_pictures(stream: SubtitleStream, packet: bytes) -> bool:
    """Whether a packet of subtitles draws: as a bitmap, by commands, or in a way that is not known."""
    name = stream.codec_context.name if stream.codec_context is not None else ""
    if name in _ASS:
        return _DRAWS.search(packet) is not None
    return name not in _TEXT_SUBTITLES

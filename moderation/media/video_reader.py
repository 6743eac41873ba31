"""The protocol of a frame reader, and the choice of the reader of a track.

decord or torchcodec is used where seeking is proven right: the container stores presentation times, they ascend
strictly and agree with the packets', and keyframes confirm in their own bytes that decoding can begin there. PyAV reads
all else, in file order. All give the same pixels (all use FFmpeg's conversion).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import MediaType
from moderation.media.demux import PictureTrack
from moderation.media.limits import Deadline
from moderation.media.timeline import F64, I64, Timeline, build_timeline
from moderation.media.video_decord import open_decord
from moderation.media.video_pyav import PyavReader
from moderation.media.video_torchcodec import TorchcodecReader
from moderation.types import U8, ErrorCode

# Containers without presentation times: AVI and ASF store one time per packet, in decoding order.
_UNTIMED = frozenset({MediaType.AVI, MediaType.ASF, MediaType.ELEMENTARY})
# Streams cut from a broadcast or joined byte by byte: their times may start over.
_MAY_JUMP = _UNTIMED | {MediaType.MPEG_TS, MediaType.MPEG_PS, MediaType.FLV, MediaType.OGG}
_SEEKABLE = frozenset({MediaType.MP4, MediaType.MATROSKA})
_SEEKABLE_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1"})
_STEADY_CODECS = frozenset({"h264", "hevc", "vp8"})  # pictures of one size; decord scales all to that of the first
_SEEKABLE_LAYOUTS = frozenset({"yuv420p", "yuvj420p"})  # decord converts other layouts to other colours than PyAV
_TIME_TOLERANCE_S = 0.005  # decord keeps times as float32


class FrameReader(Protocol):
    """An open track.

    times_s: float64 [N], when each frame is shown, ascending from 0. keys: int64, indices of the keyframes.
    name: the reader, and why it was chosen where it was not the first choice; reading may change it.
    """

    name: str
    times_s: F64
    duration_s: float
    keys: I64

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, U8 | None]]:
        """Each wanted frame that is shown, with its index, uint8 [H,W,3], upright; None where it does not decode.

        Where the packet of a wanted frame shows nothing, the frame on screen at its time comes instead, with its own
        index; nothing comes if that one was yielded already.
        """
        ...


def open_reader(
    data: bytes, media_type: MediaType, track: PictureTrack, *, alone: bool, config: MediaConfig, deadline: Deadline
) -> FrameReader:
    """Open the reader of a track. alone: the container is complete and has no other track.

    Raises ItemError(TIMEOUT).
    """
    timeline = build_timeline(
        track.packets, track.rate, has_times=media_type not in _UNTIMED, may_jump=media_type in _MAY_JUMP
    )
    pyav = PyavReader(data, media_type, track, timeline, config=config, deadline=deadline)
    decoder = config.video_decoder
    if decoder == "pyav" or not len(timeline.times_s):
        return pyav
    why_not = _why_not_seek(media_type, track, timeline, alone=alone, strict=decoder != "decord")
    if why_not is None and decoder in ("auto", "decord") and track.codec not in _STEADY_CODECS:
        why_not = "pictures that may change their size"
    if why_not is None:
        why_not = pyav.why_not_plain()
    if why_not is not None:
        pyav.name = f"pyav: {why_not}"
        return pyav
    try:
        if decoder in ("auto", "decord"):
            return _open_decord(data, timeline)
        device = "cuda" if decoder == "torchcodec_cuda" else "cpu"
        return TorchcodecReader(data, track, timeline, device=device)
    except ItemError as error:
        pyav.name = f"pyav: {'decord' if decoder == 'auto' else decoder}: {error.detail}"
        return pyav


def _open_decord(data: bytes, timeline: Timeline) -> FrameReader:
    """Raises ItemError(CORRUPT) where decord does not open it or sees other times."""
    decord = open_decord(data)
    if not _agree(decord.times_s, decord.keys, timeline):
        raise ItemError(ErrorCode.CORRUPT, "its times jump")
    # The packets' own times, as exact as stored: which frame is nearest to a moment must not depend on the reader.
    return replace(decord, times_s=timeline.times_s, duration_s=timeline.duration_s, keys=timeline.keys)


def _why_not_seek(
    media_type: MediaType, track: PictureTrack, timeline: Timeline, *, alone: bool, strict: bool
) -> str | None:
    """Why no reader may seek in this; None: one may. strict: only layouts and codecs proven good."""
    if not alone:
        return "several tracks, or the file is cut"
    if strict and (unknown := _is_unproven(media_type, track)):
        return unknown
    if timeline.is_counted or not timeline.is_plain:
        return "times that are not one ascending run"
    if not track.packets.closed:
        return "open groups of pictures"
    return None


def _is_unproven(media_type: MediaType, track: PictureTrack) -> str | None:
    if media_type not in _SEEKABLE or track.codec not in _SEEKABLE_CODECS:
        return f"{track.codec} in {media_type}"
    return None if track.layout in _SEEKABLE_LAYOUTS else f"pixels as {track.layout or 'nothing known'}"


def _agree(times_s: F64, keys: I64, timeline: Timeline) -> bool:
    if len(times_s) != len(timeline.times_s) or not np.array_equal(np.sort(keys), timeline.keys):
        return False
    return bool((np.abs(times_s - timeline.times_s) <= _TIME_TOLERANCE_S).all())

"""When the frames of a track are shown, from its packets alone. Pure arithmetic.

Packets come in decoding order. Their presentation times are used if they are plausible; otherwise the n-th frame that
the decoder returns is shown at the n-th time. Where times start over (two recordings joined), the second part follows
the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MAX_RATE = 1000.0  # frames per second; more means that the container's times are useless
MAX_RATE_KNOWN = 240.0  # the highest rate accepted from a header
USUAL_RATE = 25.0
_JUMP_S = 60.0  # a longer jump forward starts a new segment, in a container whose times may start over
_BACK_S, _BACK_OF_OTHERS_S = 0.001, 1.0
_MAX_SAME = 0.02  # share of frames that may have the same time as another


@dataclass(frozen=True, slots=True, kw_only=True)
class Packets:
    """A track's packets as read: float64 seconds [N], NaN where there is none; bool [N]."""

    pts_s: F64
    dts_s: F64
    span_s: F64
    is_key: Flags
    is_hidden: Flags  # decoded but not shown: before the start of an edit list
    closed: bool = False  # every keyframe's own bytes confirm that decoding can begin there

    def __len__(self) -> int:
        return len(self.pts_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """times_s: float64 [N], when each frame is shown, ascending from 0. packets: int64 [N], the packet of each frame.

    is_counted: frames are identified by their order of output, not by their packets.
    is_plain: one run of times, strictly ascending, that begins with a keyframe; nothing was repaired.
    """

    times_s: F64
    duration_s: float
    packets: I64
    keys: I64  # int64, which frames are keyframes
    is_counted: bool
    is_plain: bool


def build_timeline(packets: Packets, rate: float, *, has_times: bool, may_jump: bool) -> Timeline:
    """Build the timeline. has_times: the container stores presentation times. may_jump: times may start over.

    rate: the header's frames per second, for packets without times; 0 where it states none.
    """
    shown = _shown(packets)
    if has_times:
        timeline = _by_presentation(packets, shown, rate, may_jump=may_jump)
        if timeline is not None:
            return timeline
    return _by_count(packets, shown, rate, may_jump=may_jump)


def _shown(packets: Packets) -> I64:
    """The packets whose frames are output: from the first keyframe on (a decoder cannot start before it)."""
    keys = np.flatnonzero(packets.is_key)
    first = int(keys[0]) if len(keys) else 0
    shown = np.arange(len(packets))
    return shown[(shown >= first) & ~packets.is_hidden]


def _by_presentation(packets: Packets, shown: I64, rate: float, *, may_jump: bool) -> Timeline | None:
    """The timeline by the packets' own times; None where they are implausible."""
    pts_s = packets.pts_s[shown]
    if not len(shown) or not np.isfinite(pts_s).all():
        return None
    segment = _segments(_decode_clock(packets)[shown], packets.is_key[shown], may_jump=may_jump)
    if not segment.any() and packets.is_key[shown[0]]:
        # Frames shown before the first keyframe but decoded after it lack their references: they are not output.
        ahead = pts_s < pts_s[0]
        shown, pts_s, segment = shown[~ahead], pts_s[~ahead], segment[~ahead]
    step_s = _usual_step(packets, shown, rate)
    order = np.lexsort((shown, pts_s, segment))
    times_s, steps = _lay_out(pts_s[order], segment[order], step_s)
    if not _is_plausible(times_s):
        return None
    packet = shown[order]
    last_s = packets.span_s[packet[-1]]
    end_s = float(times_s[-1] + (last_s if np.isfinite(last_s) and 0 < last_s < _JUMP_S else step_s))
    return Timeline(
        times_s=times_s,
        duration_s=end_s,
        packets=packet,
        keys=np.flatnonzero(packets.is_key[packet]),
        is_counted=False,
        is_plain=_is_plain(packets, packet, steps, segment),
    )


def _is_plain(packets: Packets, packet: I64, steps: F64, segment: I64) -> bool:
    whole = len(packet) == len(packets) and not segment.any()
    return whole and bool((steps > 0).all()) and packet[0] == 0 and bool(packets.is_key[0])


def _by_count(packets: Packets, shown: I64, rate: float, *, may_jump: bool) -> Timeline:
    """The timeline of frames that are only counted: by decoding times, or by the rate."""
    step_s = _usual_step(packets, shown, rate)
    clock_s = packets.dts_s[shown]
    times_s: F64 = np.arange(len(shown), dtype=np.float64) * step_s
    if len(shown) and np.isfinite(clock_s).all():
        segment = _segments(clock_s, packets.is_key[shown], may_jump=may_jump)
        decoded_s, _ = _lay_out(clock_s, segment, step_s)
        times_s = decoded_s if _is_plausible(decoded_s) else times_s
    return Timeline(
        times_s=times_s,
        duration_s=float(times_s[-1] + step_s) if len(shown) else 0.0,
        packets=shown,
        keys=np.flatnonzero(packets.is_key[shown]),
        is_counted=True,
        is_plain=False,
    )


def _decode_clock(packets: Packets) -> F64:
    """Decoding times without gaps; from presentation times, smoothed, where a container has no others."""
    dts_s = packets.dts_s
    timed = np.flatnonzero(np.isfinite(dts_s))
    if not len(timed):
        # Frames are decoded before they are shown: the smallest time still to come never falls.
        return np.asarray(np.minimum.accumulate(packets.pts_s[::-1])[::-1], dtype=np.float64)
    # Matroska has none for the first packets of a recording: they take the next time that exists.
    following = np.searchsorted(timed, np.arange(len(dts_s))).clip(max=len(timed) - 1)
    return np.asarray(dts_s[timed[following]], dtype=np.float64)


def _segments(clock_s: F64, is_key: Flags, *, may_jump: bool) -> I64:
    """int64 [N]: from 0, one more wherever the clock falls or leaps.

    A small fall at a packet that is no keyframe is only an imprecise muxer.
    """
    steps = np.diff(clock_s, prepend=clock_s[:1])
    broken = steps < np.where(is_key, -_BACK_S, -_BACK_OF_OTHERS_S)
    if may_jump:
        broken |= steps > _JUMP_S
    return np.cumsum(broken)


def _lay_out(at_s: F64, segment: I64, step_s: float) -> tuple[F64, F64]:
    """Times from 0 on, segments in sequence, and the steps between them; `at_s` ascends within a segment."""
    steps = np.diff(at_s)
    joined = np.diff(segment) > 0
    steps = np.where(joined, step_s, np.maximum(steps, 0.0))
    return np.concatenate([[0.0], np.cumsum(steps)]), steps


def _is_plausible(times_s: F64) -> bool:
    """Whether these can be times of frames: nearly all different, and not thousands per second."""
    if len(times_s) < 2:
        return True
    same = np.count_nonzero(np.diff(times_s) <= 0) / (len(times_s) - 1)
    return bool(same <= _MAX_SAME) and (len(times_s) - 1) <= MAX_RATE * float(times_s[-1])


def usual_rate(rate: float) -> float:
    """A header's frames per second where they can be believed, else USUAL_RATE."""
    return rate if 0 < rate <= MAX_RATE_KNOWN else USUAL_RATE


def _usual_step(packets: Packets, shown: I64, rate: float) -> float:
    """Seconds from one frame to the next, for frames without a duration of their own."""
    if 0 < rate <= MAX_RATE_KNOWN:
        return 1 / rate
    steps = np.diff(np.sort(packets.dts_s[shown][np.isfinite(packets.dts_s[shown])]))
    steps = steps[(steps > 1 / MAX_RATE) & (steps < _JUMP_S)]
    return float(np.median(steps)) if len(steps) else 1 / USUAL_RATE

"""Videos: bytes -> the frames worth scoring, by decord (FFmpeg); only those are ever held.

Rotation in the container is honoured by decord. One reader and one FFmpeg thread an item: a worker decodes several
items at once (18 readers in 18 threads gave the same pixels as one after the other).
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.container import Container, inspect
from moderation.media.image import describe, scale_array
from moderation.media.limits import Deadline, canvas_size, check_pixels
from moderation.media.shots import MAX_PROBES, describe_frame, find_cuts, shots_of
from moderation.media.sniff import MediaType
from moderation.types import U8, ErrorCode, Frame, Kind, Media

F64 = npt.NDArray[np.float64]


class _Writable(Protocol):
    def write(self, data: memoryview, /) -> int | None: ...


class _Picture(Protocol):
    """decord's array: uint8 [H,W,3]."""

    def asnumpy(self) -> U8: ...


class _Reader(Protocol):
    """What is used of decord.VideoReader, which has no type stubs."""

    def seek_accurate(self, pos: int) -> None: ...

    def next(self) -> _Picture: ...

    def get_key_indices(self) -> list[int]: ...


MAX_FAILURES = 4  # in a row; past the point where a file was cut nothing decodes, and each try seeks anew


def decode_video(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    """The sampled frames of a video: uint8 RGB [H,W,3], upright, scaled to the canvas, with their times.

    `frames_total` and `duration_s` are of the whole, `widest_gap_s` is between two scored frames or the ends.
    Some frames undecodable, or the container cut: `error=TRUNCATED`.
    Raises ItemError: NO_FRAMES (no picture track), TOO_LONG, TOO_MANY_PIXELS, TIMEOUT, CORRUPT (nothing decoded).
    """
    container = inspect(data, media_type)
    if container.has_video is False:
        code = ErrorCode.CORRUPT if container.truncated else ErrorCode.NO_FRAMES
        raise ItemError(code, f"{media_type}: no picture track")
    reader, times_s, duration_s = _open(data, media_type, container)
    if duration_s > config.max_seconds:
        raise ItemError(ErrorCode.TOO_LONG, f"{duration_s:.0f} s is more than {config.max_seconds:g}")
    keys = np.asarray(reader.get_key_indices(), dtype=np.int64)
    cuts = _choose_shots(reader, times_s, keys, config, deadline) if config.sampling == "shots" else ()
    chosen = choose_frames(times_s, duration_s, keys, config, shots=cuts)
    frames, problem = _read_frames(reader, chosen, times_s, config, deadline)
    if not frames:
        raise ItemError(ErrorCode.CORRUPT, f"{media_type}: {problem or 'no frame decodes'}")
    if container.truncated and not problem:
        problem = "the end of the file is missing"
    return Media(
        kind=Kind.VIDEO,
        frames=tuple(frames),
        frames_total=len(times_s),
        duration_s=duration_s,
        widest_gap_s=widest_gap([f.time_s or 0.0 for f in frames], duration_s),
        width=frames[0].width,
        height=frames[0].height,
        error=ErrorCode.TRUNCATED if problem else None,
        error_detail=problem,
    )


def choose_frames(
    times_s: F64,
    duration_s: float,
    keys: npt.NDArray[np.int64],
    config: MediaConfig,
    shots: Sequence[int] = (),
) -> list[int]:
    """Indices of the frames to score, ascending, at most `config.max_frames`.

    times_s: float64 [N], when each frame is shown, ascending from 0. keys: indices of the keyframes.
    keyframes: those, and evenly placed ones wherever two (or an end) are more than max_gap_s apart; uniform: one every
    1/fps seconds; hybrid: both, and the gaps; shots: the first, middle and last frames given, and the gaps.
    """
    total = len(times_s)
    chosen: set[int] = set()
    if config.sampling in ("uniform", "hybrid"):
        count = min(total, max(1, math.ceil(duration_s * config.fps)))
        chosen.update(_nearest(times_s, np.arange(count) / config.fps))
    if config.sampling in ("keyframes", "hybrid"):
        chosen.update(int(k) for k in keys if 0 <= k < total)
        chosen.add(0)  # the first frame, also where the index of keyframes is empty or begins late
        chosen.update(_fill_gaps(times_s, duration_s, sorted(chosen), config.max_gap_s))
    if config.sampling == "shots":
        chosen.update({0, *shots})
        chosen.update(_fill_gaps(times_s, duration_s, sorted(chosen), config.max_gap_s))
    return _thin_out(times_s, sorted(chosen), config.max_frames)


def _choose_shots(
    reader: _Reader, times_s: F64, keys: npt.NDArray[np.int64], config: MediaConfig, deadline: Deadline
) -> tuple[int, ...]:
    """First, middle and last frame of every shot.

    Up to MAX_PROBES frames are looked at: all of a short video, in one go. Of a longer one its keyframes (encoders put
    one at a cut), which cost a frame each to decode, while a frame between them costs all since the last keyframe.
    Half of the time that decoding has is spent on this at most; what lies behind is left to max_gap_s.
    """
    from decord import DECORDError

    total = len(times_s)
    every = total <= MAX_PROBES
    sought = list(range(total)) if every else _thin_out(times_s, sorted({0, *keys.tolist()}), MAX_PROBES)
    until_s = deadline.ends_s - deadline.timeout_s / 2
    probes: list[int] = []
    described: list[npt.NDArray[np.float32]] = []
    for place, index in enumerate(sought):
        if time.monotonic() > until_s:
            break
        try:
            if not every or place == 0:
                reader.seek_accurate(index)
            pixels = reader.next().asnumpy()
        except (DECORDError, RuntimeError, StopIteration):
            break  # what is broken behind here is found by whoever reads the chosen frames
        check_pixels(pixels.shape[1], pixels.shape[0], config.max_pixels)
        probes.append(index)
        described.append(describe_frame(pixels))
    if not probes:
        return ()
    cuts = find_cuts(described, times_s[probes].tolist())
    # Between two keyframes the last frame of a shot is not known: the one before the next shot's first.
    ends = [*probes[1:], total if len(probes) == len(sought) else probes[-1] + 1]
    spans = [(probes[first], ends[last] - 1) for first, last in shots_of(cuts, len(probes))]
    return tuple(index for first, last in spans for index in (first, (first + last) // 2, last))


def widest_gap(times_s: list[float], duration_s: float) -> float:
    """Seconds between two of these times, or an end, that are furthest apart."""
    marks = np.sort(np.array([0.0, *times_s, max([duration_s, *times_s])]))
    return float(np.diff(marks).max())


def _fill_gaps(times_s: F64, duration_s: float, chosen: list[int], max_gap_s: float) -> list[int]:
    marks = [*(float(times_s[i]) for i in chosen), duration_s]
    wanted: list[float] = []
    for start, end in pairwise(marks):
        # 2 % of tolerance: a gap of 5.005 s is one of 5 s.
        parts = math.ceil((end - start) / max_gap_s - 0.02)
        parts = min(parts, len(times_s))
        wanted.extend(start + (end - start) * k / parts for k in range(1, parts))
    return _nearest(times_s, np.array(wanted))


def _thin_out(times_s: F64, chosen: list[int], limit: int) -> list[int]:
    """At most `limit` of `chosen`, evenly over time: nearest to even marks first, then into the widest gaps."""
    if len(chosen) <= limit:
        return chosen
    candidates = np.array(chosen)
    at = times_s[candidates]
    marks = np.linspace(at[0], at[-1], limit) if limit > 1 else np.array([(at[0] + at[-1]) / 2])
    kept = set(_nearest(at, marks))
    distance = np.min(np.abs(at[:, None] - at[sorted(kept)][None, :]), axis=1)
    while len(kept) < limit:
        furthest = int(distance.argmax())
        kept.add(furthest)
        distance = np.minimum(distance, np.abs(at - at[furthest]))
        distance[sorted(kept)] = -1.0
    return [int(i) for i in candidates[sorted(kept)]]


def _nearest(times_s: F64, wanted_s: F64) -> list[int]:
    """The index of the time nearest to each wanted one."""
    right = np.searchsorted(times_s, wanted_s).clip(0, len(times_s) - 1)
    left = (right - 1).clip(0)
    closer_left = np.abs(times_s[left] - wanted_s) <= np.abs(times_s[right] - wanted_s)
    return [int(i) for i in np.where(closer_left, left, right)]


def _open(data: bytes, media_type: MediaType, container: Container) -> tuple[_Reader, F64, float]:
    """An open reader, the frames' times from 0 (float64 [N], ascending), and the duration in seconds."""
    import decord  # loads FFmpeg: only where there is a video

    decord.logging.set_level(decord.logging.QUIET)  # a broken file is a row, not 30 lines on stderr
    try:
        with _as_file(data) as path:
            reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        spans = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), dtype=np.float64)
    except decord.DECORDError as error:
        # FFmpeg opened the container and found nothing to show in it.
        whole = not container.truncated and container.has_video is None
        known = media_type not in (MediaType.MP4, MediaType.MATROSKA, MediaType.AVI)
        code = ErrorCode.NO_FRAMES if whole and known else ErrorCode.CORRUPT
        raise ItemError(code, f"{media_type}: no stream of pictures that decodes") from error
    except (RuntimeError, AssertionError, IndexError) as error:
        raise ItemError(ErrorCode.CORRUPT, f"{media_type}: {_reason(error)}") from error
    begin = float(spans[0, 0])
    times_s = np.maximum.accumulate(np.nan_to_num(spans[:, 0] - begin, nan=0.0, posinf=0.0, neginf=0.0))
    duration_s = max(float(np.nan_to_num(spans[-1, 1] - begin)), float(times_s[-1]))
    return reader, times_s, duration_s


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


def _read_frames(
    reader: _Reader, chosen: list[int], times_s: F64, config: MediaConfig, deadline: Deadline
) -> tuple[list[Frame], str]:
    """The chosen frames that decode, ascending, and what went wrong ("" if nothing)."""
    from decord import DECORDError

    frames: list[Frame] = []
    failed = in_a_row = 0
    for index in chosen:
        deadline.check()
        try:
            reader.seek_accurate(index)
            pixels = reader.next().asnumpy()
        except (DECORDError, RuntimeError, StopIteration):
            failed, in_a_row = failed + 1, in_a_row + 1
            if in_a_row >= MAX_FAILURES:
                break
            continue
        in_a_row = 0
        height, width = pixels.shape[:2]
        check_pixels(width, height, config.max_pixels)
        # Scaled here and not by decord: it would have to be told a size before the true one is known, and a container
        # that lies about its size would have its pictures squeezed beyond recognition.
        scaled = scale_array(pixels, canvas_size(width, height, config.canvas_px))
        frames.append(Frame(index=index, pixels=scaled, width=width, height=height, time_s=float(times_s[index])))
    problem = f"{failed} of {len(chosen)} sampled frames do not decode" if failed else ""
    return frames, describe(problem) if problem else ""

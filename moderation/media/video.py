"""Videos: bytes -> the frames worth scoring; only those are ever held.

Opening and reading are in `video_reader`, the choice of frames by their times in `sampling`, that by cuts in `shots`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.container import Container, inspect
from moderation.media.limits import Deadline, canvas_size, check_pixels
from moderation.media.pixels import describe, scale_array
from moderation.media.sampling import I64, choose_frames, thin_out, widest_gap
from moderation.media.shots import MAX_PROBES, describe_frame, find_cuts, shots_of
from moderation.media.sniff import MediaType
from moderation.media.video_reader import OpenVideo, open_video
from moderation.types import ErrorCode, Frame, Kind, Media

MAX_FAILURES = 4  # in a row; past the point where a file was cut nothing decodes, and each try seeks anew


def decode_video(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    """The sampled frames of a video: uint8 RGB [H,W,3], upright, scaled to the canvas, with their times.

    `frames_total` and `duration_s` are of the whole, `widest_gap_s` is between two scored frames or the ends.
    Some frames undecodable, or the container cut: `error=TRUNCATED`.
    Raises ItemError: NO_FRAMES (no picture track), TOO_LONG, TOO_MANY_PIXELS, TIMEOUT, CORRUPT (nothing decoded).
    """
    container = inspect(data, media_type)
    video = _open_within_limits(data, media_type, container, config)
    frames, problem = _read_frames(video, _choose_frames(video, config, deadline), config, deadline)
    if not frames:
        raise ItemError(ErrorCode.CORRUPT, f"{media_type}: {problem or 'no frame decodes'}")
    if container.truncated and not problem:
        problem = "the end of the file is missing"
    return Media(
        kind=Kind.VIDEO,
        frames=tuple(frames),
        frames_total=len(video.times_s),
        duration_s=video.duration_s,
        widest_gap_s=widest_gap([f.time_s or 0.0 for f in frames], video.duration_s),
        width=frames[0].width,
        height=frames[0].height,
        error=ErrorCode.TRUNCATED if problem else None,
        error_detail=problem,
    )


def _open_within_limits(data: bytes, media_type: MediaType, container: Container, config: MediaConfig) -> OpenVideo:
    if container.has_video is False:
        code = ErrorCode.CORRUPT if container.truncated else ErrorCode.NO_FRAMES
        raise ItemError(code, f"{media_type}: no picture track")
    video = open_video(data, media_type, container)
    if video.duration_s > config.max_seconds:
        raise ItemError(ErrorCode.TOO_LONG, f"{video.duration_s:.0f} s is more than {config.max_seconds:g}")
    return video


def _choose_frames(video: OpenVideo, config: MediaConfig, deadline: Deadline) -> list[int]:
    keys = video.key_indices()
    shots = _find_shot_frames(video, keys, config, deadline) if config.sampling == "shots" else ()
    return choose_frames(video.times_s, video.duration_s, keys, config, shots=shots)


def _find_shot_frames(video: OpenVideo, keys: I64, config: MediaConfig, deadline: Deadline) -> tuple[int, ...]:
    """First, middle and last frame of every shot.

    Up to MAX_PROBES frames are looked at: all of a short video, in one go; of a longer one its keyframes, for encoders
    put one at a cut. A keyframe costs one frame to decode, a frame between two costs all since the last keyframe.
    At most half of the time for decoding is spent on this; max_gap_s cares for what lies behind.
    """
    total = len(video.times_s)
    every = total <= MAX_PROBES
    wanted = list(range(total)) if every else thin_out(video.times_s, sorted({0, *keys.tolist()}), MAX_PROBES)
    described = _describe_frames(
        video, wanted, config, until_s=deadline.ends_s - deadline.timeout_s / 2, in_a_row=every
    )
    probes = wanted[: len(described)]
    if not probes:
        return ()
    cuts = find_cuts(described, video.times_s[probes].tolist())
    # Between two keyframes the last frame of a shot is not known: the one before the next shot's first.
    ends = [*probes[1:], total if len(probes) == len(wanted) else probes[-1] + 1]
    spans = [(probes[first], ends[last] - 1) for first, last in shots_of(cuts, len(probes))]
    return tuple(index for first, last in spans for index in (first, (first + last) // 2, last))


def _describe_frames(
    video: OpenVideo, indices: Sequence[int], config: MediaConfig, *, until_s: float, in_a_row: bool
) -> list[npt.NDArray[np.float32]]:
    """What `describe_frame` says of these frames, up to the first that does not decode, or the end of the time.

    in_a_row: each follows the one before, so that only the first is sought.
    """
    described: list[npt.NDArray[np.float32]] = []
    for place, index in enumerate(indices):
        if time.monotonic() > until_s:
            break
        pixels = video.read_next_frame() if in_a_row and place > 0 else video.read_frame(index)
        if pixels is None:
            break  # what is broken behind here is found by whoever reads the chosen frames
        check_pixels(pixels.shape[1], pixels.shape[0], config.max_pixels)
        described.append(describe_frame(pixels))
    return described


def _read_frames(
    video: OpenVideo, indices: Sequence[int], config: MediaConfig, deadline: Deadline
) -> tuple[list[Frame], str]:
    """The frames at `indices` that decode, ascending, and what went wrong ("" if nothing)."""
    frames: list[Frame] = []
    failed = in_a_row = 0
    for index in indices:
        deadline.check()
        pixels = video.read_frame(index)
        if pixels is None:
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
        frames.append(Frame(index=index, pixels=scaled, width=width, height=height, time_s=float(video.times_s[index])))
    problem = f"{failed} of {len(indices)} sampled frames do not decode" if failed else ""
    return frames, describe(problem) if problem else ""

"""Pictures of several frames or pages: GIF, APNG, WebP, AVIF sequences, TIFF, HEIC collections."""

from __future__ import annotations

from itertools import pairwise

from PIL.ImageFile import ImageFile

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.image import open_picture, read_still
from moderation.media.limits import Deadline, check_pixels, spread
from moderation.media.pixels import DECODER_ERRORS, corrupt, describe, load_partly, to_frame
from moderation.media.sniff import MediaType
from moderation.media.tiles import add_tiles, detailed
from moderation.types import ErrorCode, Frame, Kind, Media

# A frame of these is painted over the ones before it, so every frame up to the last wanted one must be decoded.
_SEQUENTIAL = frozenset({MediaType.GIF, MediaType.PNG, MediaType.WEBP})


def decode_picture(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    """A picture as IMAGE (one frame) or, when it has several, as ANIMATION: at most max_frames, evenly spread.

    `time_s` and `duration_s` come from the frames' own durations; pages have none. A break after the first frame
    gives the frames before it and `error=TRUNCATED`.
    Raises ItemError: TOO_MANY_PIXELS, UNSUPPORTED_TYPE, TIMEOUT, CORRUPT (not one frame decoded).
    """
    image, mended = open_picture(data, media_type, config, deadline)
    try:
        total = int(getattr(image, "n_frames", 1))
    except DECODER_ERRORS:
        total = 1  # its directory of frames is broken: the first one may still decode
        mended = ErrorCode.TRUNCATED
    if total <= 1:
        return add_tiles(read_still(image, detailed(config), mended=mended), config)
    frames, times_s, problem = _read_frames(image, media_type, spread(total, config.max_frames), config, deadline)
    if not frames:
        raise corrupt(media_type, problem or "no frame decodes")
    if mended and not problem:
        problem = "the end of the file is missing"
    return Media(
        kind=Kind.ANIMATION,
        frames=tuple(frames),
        frames_total=total,
        duration_s=times_s if times_s > 0 else None,
        widest_gap_s=_widest_gap(frames, times_s) if times_s > 0 else None,
        width=frames[0].width,
        height=frames[0].height,
        error=ErrorCode.TRUNCATED if problem else None,
        error_detail=problem,
    )


def _read_frames(
    image: ImageFile, media_type: MediaType, wanted: list[int], config: MediaConfig, deadline: Deadline
) -> tuple[list[Frame], float, str]:
    """The wanted frames, the end of the last one in seconds (0 without times), and what broke ("" if nothing)."""
    steps = range(wanted[-1] + 1) if media_type in _SEQUENTIAL else wanted
    chosen = frozenset(wanted)
    frames: list[Frame] = []
    clock_s = 0.0
    for index in steps:
        deadline.check()
        try:
            image.seek(index)
            check_pixels(*image.size, config.max_pixels)
            if index == 0:
                broken = load_partly(image)
            else:
                image.load()
                broken = ""
            start_s, clock_s = _frame_times(image, media_type, clock_s)
            if index in chosen:
                timed = start_s if clock_s > 0 else None
                frames.append(to_frame(image, config, index=index, time_s=timed))
        except DECODER_ERRORS as error:
            return frames, clock_s, f"frame {index}: {describe(error)}"
        except ItemError as error:
            if error.code is not ErrorCode.CORRUPT:
                raise
            return frames, clock_s, f"frame {index}: {error.detail}"
        if broken:
            return frames, clock_s, f"frame {index}: {broken}"
    return frames, clock_s, ""


def _frame_times(image: ImageFile, media_type: MediaType, clock_s: float) -> tuple[float, float]:
    """Start and end of the frame just loaded, in seconds."""
    duration_s = max(0.0, float(image.info.get("duration") or 0) / 1000)
    start_s = float(image.info.get("timestamp", 0)) / 1000 if media_type is MediaType.AVIF else clock_s
    return start_s, start_s + duration_s


def _widest_gap(frames: list[Frame], duration_s: float) -> float:
    marks = [0.0, *(f.time_s or 0.0 for f in frames), duration_s]
    return max(b - a for a, b in pairwise(marks))

"""Videos: bytes -> the frames worth scoring of every picture track; no other frames are held.

`demux` lists the tracks, `video_reader` picks a reader for each; frames are chosen by time in `sampling`, by cuts in
`shots`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import MediaType
from moderation.media.announced import announced_samples
from moderation.media.container import Container, inspect
from moderation.media.demux import CODECS, PictureTrack, Tracks, read_tracks
from moderation.media.image import decode_image
from moderation.media.limits import Deadline, canvas_size, check_pixels
from moderation.media.pixels import scale_array
from moderation.media.sampling import choose_frames, frame_limit, thin_out, widest_stretch
from moderation.media.shots import MAX_PROBES, describe_frame, find_cuts, shots_of
from moderation.media.timeline import usual_rate
from moderation.media.video_reader import FrameReader, open_reader
from moderation.types import ErrorCode, Frame, Kind, Media

MAX_FAILURES = 4  # in a row; past a truncation nothing decodes, and each try seeks again
MAX_TRACKS = 4  # tracks that are scored; each may cost a video's frames
UNSEEN_TRACK = "track"


@dataclass(frozen=True, slots=True, kw_only=True)
class _TrackFrames:
    """What was read of one track."""

    frames: tuple[Frame, ...]
    frames_total: int
    duration_s: float
    widest_gap_s: float
    reader: str
    problem: str = ""


def decode_video(
    data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline, *, known_frames: int = 0
) -> Media:
    """The sampled frames of a video: uint8 RGB [H,W,3], upright, scaled to the canvas, with their times.

    Every picture track is scored, covers too; their frames are numbered after those of the first. `frames_total` counts
    all tracks, `duration_s` is of the longest, `widest_gap_s` is between two scored frames or the ends. A track that is
    not scored is reported in `unseen`. A track that an edit list or an index cuts comes whole, too.
    known_frames: one track with this many frames is left out; the caller has it.
    Some frames undecodable, or the container truncated: `error=TRUNCATED`.
    Raises ItemError: NO_FRAMES (no picture track), TOO_LONG, TOO_MANY_PIXELS, TIMEOUT, UNSUPPORTED_TYPE (a codec that
    is not allowed), CORRUPT (nothing decoded).
    """
    container = inspect(data, media_type)
    tracks = _without(read_tracks(data, media_type, deadline), known_frames)
    films, pictures = tracks.films(CODECS)[:MAX_TRACKS], tracks.pictures()[:MAX_TRACKS]
    cut, all_came = _left_out(data, media_type, tracks, config, deadline)
    if not films and not pictures and not cut:
        raise _no_track(media_type, container, tracks)
    is_whole = not (container.truncated or tracks.broken)
    alone = is_whole and len(tracks.tracks) == 1 and not tracks.unreadable
    parts = [_read_track(data, media_type, t, config, deadline, alone=alone and not t.whole) for t in (*films, *cut)]
    covers = list(chain.from_iterable(_read_cover(picture, config) for picture in pictures))
    looked_at = len(films) + len(covers)
    shows_more = any(film.shows_more for film in (*films, *cut))
    more = container.more_behind or tracks.overlays > 0 or shows_more or not all_came
    media = _gather(parts, covers, media_type, "" if is_whole else "the end of the file is missing")
    if looked_at < len(tracks.tracks) + tracks.unreadable or more:
        return replace(media, unseen=(UNSEEN_TRACK,))
    return media


def _left_out(
    data: bytes, media_type: MediaType, tracks: Tracks, config: MediaConfig, deadline: Deadline
) -> tuple[list[PictureTrack], bool]:
    """Tracks of which more than max_gap_s is left out, by an edit list or an index, read without it; whether all came.

    Some players ignore these, and show the track whole.
    """
    if media_type is MediaType.MP4:
        samples = announced_samples(data)
        covers = {track.stream for track in tracks.tracks if track.picture is not None}
        streams = [stream for stream in range(tracks.streams) if stream not in covers]
        # A HEIC or AVIF has streams for its pictures in front of those of its tracks.
        announced = dict(zip(streams[-len(samples) :], samples, strict=False))
        if not 0 < len(samples) <= len(streams):  # boxes that are not understood here: unknown without reading it
            announced = dict.fromkeys(streams, sys.maxsize)
    elif media_type is MediaType.AVI:  # unknown without reading it
        announced = {track.stream: sys.maxsize for track in tracks.tracks}
    else:
        return [], True
    most = {t.stream: int(np.count_nonzero(~t.packets.is_hidden)) + _few(t, config) for t in tracks.tracks}
    most |= dict.fromkeys(tracks.empty, 0)  # an edit list may show nothing of a track
    if all(announced.get(stream, 0) <= count for stream, count in most.items()):
        return [], True
    films = read_tracks(data, media_type, deadline, whole=True).films(CODECS)
    cut = [film for film in films if len(film.packets) > most.get(film.stream, 0)]
    most |= {film.stream: len(film.packets) + _few(film, config) for film in cut}
    all_came = media_type is MediaType.AVI or all(announced.get(s, 0) <= count for s, count in most.items())
    return cut[:MAX_TRACKS], all_came


def _few(track: PictureTrack, config: MediaConfig) -> int:
    """The number of frames that max_gap_s holds."""
    return int(config.max_gap_s * usual_rate(track.rate))


def _without(tracks: Tracks, known_frames: int) -> Tracks:
    scored = next((t for t in tracks.tracks if len(t.packets) == known_frames), None)
    return replace(tracks, tracks=tuple(t for t in tracks.tracks if t is not scored))


def _no_track(media_type: MediaType, container: Container, tracks: Tracks) -> ItemError:
    if tracks.tracks or tracks.unreadable:
        names = ", ".join(sorted({t.codec for t in tracks.tracks})) or "an unknown one"
        return ItemError(ErrorCode.UNSUPPORTED_TYPE, f"{media_type}: its codec is not among those allowed: {names}")
    if container.has_video is False and not container.truncated:
        return ItemError(ErrorCode.NO_FRAMES, f"{media_type}: no picture track")
    boxed = media_type in (MediaType.MP4, MediaType.MATROSKA, MediaType.AVI)
    code = ErrorCode.CORRUPT if container.truncated or tracks.broken or boxed else ErrorCode.NO_FRAMES
    return ItemError(code, f"{media_type}: no stream of pictures that decodes")


def _read_cover(picture: bytes, config: MediaConfig) -> tuple[Frame, ...]:
    """The picture that a player shows in place of a video, or before it; empty where it does not decode."""
    try:
        media = decode_image(picture, config)
    except ItemError:
        return ()
    # Cut, or shown otherwise by some viewers: it counts as unseen.
    return media.frames if len(media.frames) == 1 and media.error is None else ()


def _read_track(
    data: bytes, media_type: MediaType, track: PictureTrack, config: MediaConfig, deadline: Deadline, *, alone: bool
) -> _TrackFrames:
    if track.pixels > config.max_pixels:
        raise ItemError(ErrorCode.TOO_MANY_PIXELS, f"frames of {track.pixels} pixels are more than {config.max_pixels}")
    reader = open_reader(data, media_type, track, alone=alone, config=config, deadline=deadline)
    if not len(reader.times_s):  # an edit list that shows nothing of it
        return _TrackFrames(frames=(), frames_total=0, duration_s=0.0, widest_gap_s=0.0, reader=reader.name)
    if reader.duration_s > config.max_seconds:
        raise ItemError(ErrorCode.TOO_LONG, f"{reader.duration_s:.0f} s is more than {config.max_seconds:g}")
    chosen = _choose_frames(reader, config, deadline)
    frames, problem = _read_frames(reader, chosen, config, deadline)
    if problem and not reader.name.startswith("pyav"):
        why = f"pyav: {reader.name} stops at a frame"
        reader = open_reader(data, media_type, track, alone=False, config=config, deadline=deadline)
        reader.name = why
        frames, problem = _read_frames(reader, chosen, config, deadline)
    return _TrackFrames(
        frames=tuple(frames),
        frames_total=len(reader.times_s),
        duration_s=reader.duration_s,
        widest_gap_s=widest_stretch(reader.times_s, [f.index for f in frames], reader.duration_s, config.max_gap_s),
        reader=reader.name,
        problem=problem,
    )


def _gather(parts: Sequence[_TrackFrames], covers: Sequence[Frame], media_type: MediaType, problem: str) -> Media:
    """One Media of all tracks. Raises ItemError(CORRUPT) where there is no frame at all."""
    frames, total = _number(parts, covers)
    problem = next(filter(None, (p.problem for p in parts)), problem)
    if not frames:
        raise ItemError(ErrorCode.CORRUPT, f"{media_type}: {problem or 'no frame decodes'}")
    return Media(
        kind=Kind.VIDEO,
        frames=tuple(frames),
        frames_total=total,
        duration_s=max((p.duration_s for p in parts), default=None),
        widest_gap_s=max((p.widest_gap_s for p in parts), default=None),
        width=frames[0].width,
        height=frames[0].height,
        error=ErrorCode.TRUNCATED if problem else None,
        error_detail=problem,
        reader=parts[0].reader if parts else None,
    )


def _number(parts: Sequence[_TrackFrames], covers: Sequence[Frame]) -> tuple[list[Frame], int]:
    """The frames of all tracks, each track numbered after the one before, and the total number."""
    frames: list[Frame] = []
    total = 0
    for track in parts:
        frames += [replace(f, index=f.index + total) for f in track.frames]
        total += track.frames_total
    frames += [replace(f, index=total + k) for k, f in enumerate(covers)]
    return frames, total + len(covers)


def _choose_frames(reader: FrameReader, config: MediaConfig, deadline: Deadline) -> list[int]:
    shots = _find_shot_frames(reader, config, deadline) if config.sampling == "shots" else ()
    limit = frame_limit(reader.duration_s, config)
    return choose_frames(reader.times_s, reader.duration_s, reader.keys, config, shots=shots, limit=limit)


def _find_shot_frames(reader: FrameReader, config: MediaConfig, deadline: Deadline) -> tuple[int, ...]:
    """First, middle and last frame of every shot.

    Up to MAX_PROBES frames are read: all frames of a short video, in one go; of a longer one its keyframes, because
    encoders put one at a cut. A keyframe costs one frame to decode; a frame between two costs all since the last one.
    At most half of the decoding time goes into this; max_gap_s covers the rest of the video.
    """
    total = len(reader.times_s)
    every = total <= MAX_PROBES
    keys = sorted({0, *reader.keys.tolist()})
    wanted = list(range(total)) if every else thin_out(reader.times_s, keys, MAX_PROBES)
    described = _describe_frames(reader, wanted, config, until_s=deadline.ends_s - deadline.timeout_s / 2)
    probes = sorted(described)
    if not probes:
        return ()
    cuts = find_cuts([described[p] for p in probes], reader.times_s[probes].tolist())
    # Between two keyframes the last frame of a shot is unknown: take the one before the next shot's first.
    ends = [*probes[1:], total if probes[-1] == wanted[-1] else probes[-1] + 1]
    spans = [(probes[first], ends[last] - 1) for first, last in shots_of(cuts, len(probes))]
    return tuple(index for first, last in spans for index in (first, (first + last) // 2, last))


def _describe_frames(
    reader: FrameReader, indices: Sequence[int], config: MediaConfig, *, until_s: float
) -> dict[int, npt.NDArray[np.float32]]:
    """`describe_frame` of these frames, up to the first that does not decode, or the end of the time."""
    described: dict[int, npt.NDArray[np.float32]] = {}
    for index, pixels in reader.read(indices):
        if pixels is None:
            break  # reading the chosen frames will report what is broken from here on
        check_pixels(pixels.shape[1], pixels.shape[0], config.max_pixels)
        described[index] = describe_frame(pixels)
        if time.monotonic() > until_s:
            break
    return described


def _read_frames(
    reader: FrameReader, indices: Sequence[int], config: MediaConfig, deadline: Deadline
) -> tuple[list[Frame], str]:
    """The frames at `indices` that decode, ascending, and what went wrong, else ""."""
    frames: dict[int, Frame] = {}
    failed = in_a_row = 0
    for index, pixels in reader.read(indices):
        deadline.check()
        if pixels is None:
            failed, in_a_row = failed + 1, in_a_row + 1
            if in_a_row >= MAX_FAILURES:
                break
            continue
        in_a_row = 0
        height, width = pixels.shape[:2]
        check_pixels(width, height, config.max_pixels)
        # Not scaled by the decoder: it would need a size before the true one is known, and a container with a false
        # size would have its pictures distorted.
        scaled = scale_array(pixels, canvas_size(width, height, config.canvas_px))
        at_s = float(reader.times_s[index])
        frames[index] = Frame(index=index, pixels=scaled, width=width, height=height, time_s=at_s)
    problem = f"{failed} of {len(indices)} sampled frames do not decode" if failed else ""
    return [frames[index] for index in sorted(frames)], problem

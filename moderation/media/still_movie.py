"""A picture file (HEIC, AVIF) that also holds a movie: viewers differ in what they show, so both are scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import MediaType
from moderation.media.animation import decode_picture
from moderation.media.container import count_tracks
from moderation.media.joining import widest_of
from moderation.media.limits import Deadline
from moderation.media.video import UNSEEN_TRACK, decode_video
from moderation.types import ErrorCode, Frame, Kind, Media

_NOTHING = frozenset({ErrorCode.CORRUPT, ErrorCode.NO_FRAMES})
MAX_DIFFERENCE = 4.0  # grey levels, of a picture encoded twice


def holds_movie(data: bytes, media_type: MediaType) -> bool:
    """Whether a file with a brand for stills has the box of a movie."""
    return media_type in (MediaType.HEIC, MediaType.AVIF) and count_tracks(data) > 0


def decode_still_movie(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    """The picture, then the frames of the movie; an image sequence that is both comes once.

    A movie that does not decode is reported in `unseen`. Raises ItemError where neither decodes.
    """
    picture = _read_picture(data, media_type, config, deadline)
    is_sequence = picture.kind is Kind.ANIMATION and count_tracks(data) == 1
    try:
        known_frames = picture.frames_total if is_sequence else 0
        movie = decode_video(data, MediaType.MP4, config, deadline, known_frames=known_frames)
    except ItemError as error:
        if error.code is ErrorCode.TIMEOUT or not picture.frames:
            raise
        nothing_else = is_sequence and error.code in _NOTHING
        return picture if nothing_else else replace(picture, unseen=_together(picture.unseen, (UNSEEN_TRACK,)))
    if not is_sequence:
        return _join(picture, movie)
    return _join_sequence(picture, movie)


def _join_sequence(picture: Media, movie: Media) -> Media:
    """The sequence; also the still, where it is not one of the sequence's frames as it should be."""
    other = tuple(f for f in movie.frames if not any(_look_alike(f, shown) for shown in picture.frames))
    if not other:
        return replace(
            picture,
            error=picture.error or movie.error,
            error_detail=picture.error_detail or movie.error_detail,
            unseen=_together(picture.unseen, movie.unseen),
        )
    joined = _join(picture, replace(movie, frames=other, frames_total=len(other)))
    return replace(joined, kind=picture.kind, duration_s=picture.duration_s, widest_gap_s=widest_of((picture, movie)))


def _look_alike(a: Frame, b: Frame) -> bool:
    if a.pixels.shape != b.pixels.shape:
        return False
    return float(np.abs(a.pixels.astype(np.int16) - b.pixels).mean()) < MAX_DIFFERENCE


def _read_picture(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    try:
        return decode_picture(data, media_type, config, deadline)
    except ItemError as error:
        if error.code is ErrorCode.TIMEOUT:
            raise
        return Media(kind=Kind.IMAGE, error=error.code, error_detail=error.detail)


def _join(picture: Media, movie: Media) -> Media:
    behind = 1 + max((f.index for f in picture.frames), default=-1)
    return replace(
        movie,
        frames=(*picture.frames, *(replace(f, index=f.index + behind) for f in movie.frames)),
        frames_total=picture.frames_total + movie.frames_total,
        width=picture.width or movie.width,
        height=picture.height or movie.height,
        error=picture.error or movie.error,
        error_detail=picture.error_detail or movie.error_detail,
        unseen=_together(picture.unseen, movie.unseen),
    )


def _together(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))

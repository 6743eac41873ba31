"""A picture with a movie in its file, or beside it: what is amiss with either is said of both."""

from __future__ import annotations

import numpy as np
import pytest

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import MediaType
from moderation.media import decode_item, still_movie
from moderation.media.limits import start_deadline
from moderation.types import ErrorCode, Frame, Item, Kind, Media, MediaObject
from tests.drawn_media import draw, encode, jpegs, mp4

FRAME = Frame(index=0, pixels=np.zeros((4, 4, 3), np.uint8), width=4, height=4)
SEQUENCE = Media(kind=Kind.ANIMATION, frames=(FRAME,), frames_total=9, unseen=("frames",))


def decoded(monkeypatch: pytest.MonkeyPatch, movie: Media | ItemError) -> Media:
    def decode_video(*_: object, **__: object) -> Media:
        if isinstance(movie, ItemError):
            raise movie
        return movie

    monkeypatch.setattr(still_movie, "decode_picture", lambda *_: SEQUENCE)
    monkeypatch.setattr(still_movie, "decode_video", decode_video)
    monkeypatch.setattr(still_movie, "count_tracks", lambda _: 1)
    return still_movie.decode_still_movie(b"", MediaType.AVIF, MediaConfig(), start_deadline(9))


def test_a_movie_that_shows_the_sequence_again_hides_nothing_of_either(monkeypatch: pytest.MonkeyPatch) -> None:
    movie = Media(kind=Kind.VIDEO, frames=(FRAME,), frames_total=1, unseen=("track",), error=ErrorCode.TRUNCATED)
    media = decoded(monkeypatch, movie)
    assert (media.unseen, media.error, media.frames) == (("frames", "track"), ErrorCode.TRUNCATED, (FRAME,))


def test_the_gap_of_a_video_counts_behind_a_picture_and_in_an_album() -> None:
    """Alone it was reviewed as `unseen:gap`; behind a photograph, or in an album with one, it passed."""
    config = MediaConfig(max_frames=3, frame_budget=2)
    photo, film = encode(draw(), "JPEG"), mp4(jpegs(60), frame_s=1.0)

    def gap_of(kind: Kind | None, **payloads: bytes) -> float | None:
        objects = tuple(MediaObject(uri="u", name=name.replace("_", ".")) for name in payloads)
        item = Item(item_id="a", uri="u", objects=objects, kind=kind)
        return decode_item(item, list(payloads.values()), config).widest_gap_s

    assert (gap_of(None, a_mov=film) or 0) > 15
    assert (gap_of(None, a_jpg=photo + film) or 0) > 15
    assert (gap_of(Kind.ALBUM, a_jpg=photo, b_mov=film) or 0) > 15
    assert gap_of(Kind.ALBUM, a_jpg=photo, b_jpg=photo) is None


def test_a_movie_that_is_refused_hides_nothing_of_the_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoded(monkeypatch, ItemError(ErrorCode.TOO_LONG, "hours")).unseen == ("frames", "track")

"""Pictures with several frames: those that look new and are shown longest are scored, painted correctly, with times."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import MediaType, sniff
from moderation.media.animation import decode_picture
from moderation.media.limits import start_deadline
from moderation.types import ErrorCode, Kind, Media
from tests.drawn_media import draw, encode

TIMED = ["GIF", "PNG", "WEBP", "AVIF"]


def decode(data: bytes, **limits: object) -> Media:
    config = MediaConfig(**limits)  # type: ignore[arg-type]  # keywords of one test, checked by pydantic
    media_type = sniff(data)
    assert media_type is not None
    return decode_picture(data, media_type, config, start_deadline(config.decode_timeout_s))


def film(format_: str, count: int, duration: int = 100) -> bytes:
    pictures = [Image.new("RGB", (60, 40), (k * 5, 255 - k * 5, 90)) for k in range(count)]
    return encode(pictures[0], format_, save_all=True, append_images=pictures[1:], duration=duration)


@pytest.mark.parametrize("format_", TIMED)
def test_all_frames_are_scored_where_they_may_be_with_their_times(format_: str) -> None:
    media = decode(film(format_, 41))
    assert media.kind is Kind.ANIMATION
    assert media.frames_total == 41
    assert [f.index for f in media.frames] == list(range(41))
    assert [f.time_s for f in media.frames] == pytest.approx([k / 10 for k in range(41)])
    assert media.duration_s == pytest.approx(4.1)
    assert media.widest_gap_s == 0.0
    assert media.unseen == ()
    for frame in media.frames:
        assert np.abs(frame.pixels[20, 30].astype(int) - (frame.index * 5, 255 - frame.index * 5, 90)).max() <= 6


def flash(place: int, count: int, shown_ms: int, others_ms: int = 100, *, blank: bool = False) -> bytes:
    """A film of pictures unlike each other (or all grey), with one red picture that is shown for `shown_ms`."""
    rng = np.random.default_rng(3)
    grey = np.full((40, 60, 3), 90, np.uint8)
    pictures = [
        grey if blank else rng.integers(0, 200, (4, 6, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        for _ in range(count)
    ]
    pictures[place] = np.full((40, 60, 3), (255, 0, 0), np.uint8)
    times = [others_ms] * count
    times[place] = shown_ms
    frames = [Image.fromarray(p) for p in pictures]
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=times, lossless=True)


def shows_red(media: Media) -> bool:
    return any((f.pixels[20, 30] == (255, 0, 0)).all() for f in media.frames)


@pytest.mark.parametrize("place", [1, 7, 34, 58])
def test_the_frame_that_is_shown_longest_is_scored_wherever_it_stands(place: int) -> None:
    media = decode(flash(place, 60, 60_000), max_frames=5)
    assert len(media.frames) == 5
    assert shows_red(media)


@pytest.mark.parametrize("place", [1, 50, 199])
def test_the_one_frame_that_differs_is_scored_however_short_it_is_shown(place: int) -> None:
    media = decode(flash(place, 200, 20, blank=True), max_frames=5)
    assert shows_red(media)
    assert media.widest_gap_s == 0.0
    assert media.unseen == ()


def test_a_frame_without_time_counts_for_as_long_as_browsers_show_it() -> None:
    media = decode(flash(3, 8, 0, 1000, blank=True))
    assert shows_red(media)
    assert media.duration_s == pytest.approx(7.1)


def test_more_pictures_than_may_be_scored_leave_frames_unseen() -> None:
    media = decode(flash(50, 100, 100), max_frames=20)
    assert len(media.frames) == 20
    assert media.unseen == ("frames",)
    assert media.widest_gap_s is not None
    assert 0.4 <= media.widest_gap_s <= 2.0
    assert {media.frames[0].index, media.frames[-1].index} == {0, 99}


def test_which_frames_are_left_out_depends_on_the_content() -> None:
    chosen = [tuple(f.index for f in decode(flash(place, 100, 100), max_frames=20).frames) for place in range(40, 46)]
    assert len(set(chosen)) > 1
    assert chosen[0] == tuple(f.index for f in decode(flash(40, 100, 100), max_frames=20).frames)


def test_pages_that_are_too_many_are_unseen() -> None:
    pages = [Image.new("L", (8, 8), k) for k in range(200)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    media = decode(data, max_frames=8)
    assert len(media.frames) == 8
    assert media.unseen == ("frames",)


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP"])
def test_a_frame_that_changes_a_corner_keeps_the_rest(format_: str) -> None:
    pictures = []
    for k in range(3):
        picture = draw(80, 60)
        picture.paste((0, 0, 0), (k * 10, 0, k * 10 + 10, 10))
        pictures.append(picture)
    data = encode(pictures[0], format_, save_all=True, append_images=pictures[1:], duration=100)
    for frame, picture in zip(decode(data).frames, pictures, strict=True):
        assert np.abs(frame.pixels.astype(int) - np.asarray(picture)).mean() < 14


def test_pages_have_no_times_and_each_its_own_size() -> None:
    pages = [draw(60, 40), draw(90, 30), draw(1200, 900)]
    media = decode(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert [(f.width, f.height) for f in media.frames] == [(60, 40), (90, 30), (1200, 900)]
    assert media.frames[2].pixels.shape == (448, 597, 3)
    assert [f.time_s for f in media.frames] == [None] * 3
    assert media.duration_s is None


def test_a_later_page_is_counted_before_it_is_decoded() -> None:
    pages = [draw(60, 40), Image.new("1", (2000, 2000))]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(ItemError) as caught:
        decode(data, max_pixels=1_000_000)
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP"])
def test_a_cut_film_keeps_the_frames_before_the_cut(format_: str) -> None:
    pictures = [draw(200, 150, shift=k) for k in range(8)]
    data = encode(pictures[0], format_, save_all=True, append_images=pictures[1:], duration=100)
    media = decode(data[: len(data) // 2])
    assert media.error is ErrorCode.TRUNCATED
    assert 2 <= len(media.frames) <= 5


def test_an_apng_that_announces_a_billion_frames_ends_where_they_end() -> None:
    data = film("PNG", 6)
    at = data.index(b"acTL") + 4
    body = b"acTL" + (10**9).to_bytes(4, "big") + data[at + 4 : at + 8]
    media = decode(data[: at - 4] + body + zlib.crc32(body).to_bytes(4, "big") + data[at + 12 :])
    assert media.error is ErrorCode.TRUNCATED
    assert media.frames[0].index == 0
    assert all(f.index < 6 for f in media.frames)


def test_many_frames_end_at_the_deadline() -> None:
    pictures = [draw(800, 600, shift=k) for k in range(4)]
    data = encode(pictures[0], "WEBP", save_all=True, append_images=pictures[1:] * 20, duration=20, method=0)
    with pytest.raises(ItemError) as caught:
        decode(data, decode_timeout_s=0.05)
    assert caught.value.code is ErrorCode.TIMEOUT


def test_one_frame_is_an_image() -> None:
    assert decode(film("GIF", 1)).kind is Kind.IMAGE
    assert sniff(film("GIF", 1)) is MediaType.GIF

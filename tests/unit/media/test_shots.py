"""Cuts, fades and flashes in videos that the tests draw; and which frames of a shot are scored."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.file_types import sniff
from moderation.media.limits import start_deadline
from moderation.media.shots import CUT, describe_frame, distance, find_cuts, shots_of
from moderation.media.video import decode_video
from moderation.types import U8, Media
from tests.drawn_media import encode, mp4
from tests.unit.media.test_seams import scene

SCENES = [scene(seed, 160, 120) for seed in (1, 2, 3, 4)]
STEP_S = 0.1


def cuts_of(frames: list[U8]) -> list[int]:
    return find_cuts([describe_frame(f) for f in frames], [k * STEP_S for k in range(len(frames))])


def still(which: int, count: int) -> list[U8]:
    """A shot with a little noise and a slow pan."""
    noise = np.random.default_rng(which)
    shots = []
    for k in range(count):
        moved = np.roll(SCENES[which], k // 3, axis=1).astype(int)
        shots.append((moved + noise.integers(-4, 5, moved.shape)).clip(0, 255).astype(np.uint8))
    return shots


def fade(one: int, two: int, count: int) -> list[U8]:
    return [
        ((1 - w) * SCENES[one] + w * SCENES[two]).astype(np.uint8) for w in np.linspace(0, 1, count + 2)[1:-1].tolist()
    ]


def film(frames: list[U8]) -> bytes:
    return mp4([encode(Image.fromarray(f), "JPEG", quality=90) for f in frames], frame_s=STEP_S, size=(160, 120))


def decode(data: bytes, **media: object) -> Media:
    config = MediaConfig(sampling="shots", **media)  # type: ignore[arg-type]  # keywords of one test
    media_type = sniff(data)
    assert media_type is not None
    return decode_video(data, media_type, config, start_deadline(60))


def test_distance_is_nought_for_the_same_and_one_at_most() -> None:
    black, white = (describe_frame(np.full((40, 60, 3), level, np.uint8)) for level in (0, 255))
    assert distance(black, black) == 0
    assert CUT < distance(black, white) <= 1


def test_known_cuts_are_found_at_their_frames() -> None:
    assert cuts_of(still(0, 12) + still(1, 7) + still(2, 9)) == [12, 19]


def test_shot_without_a_cut_stays_one() -> None:
    assert cuts_of(still(3, 40)) == []
    assert cuts_of(still(3, 1)) == []


def test_slow_fade_is_one_cut_in_its_middle() -> None:
    (cut,) = cuts_of(still(0, 10) + fade(0, 1, 20) + still(1, 10))
    assert 14 <= cut <= 26


def test_flash_is_no_cut() -> None:
    white = [np.full_like(SCENES[0], 255)] * 2
    assert cuts_of(still(0, 10) + white + still(0, 10)) == []


def test_white_that_stays_is_a_shot() -> None:
    white = [np.full_like(SCENES[0], 255)] * 12
    assert cuts_of(still(0, 10) + white + still(0, 10)) == [10, 22]


def test_shots_are_what_lies_between_cuts() -> None:
    assert list(shots_of([3, 7], 10)) == [(0, 2), (3, 6), (7, 9)]
    assert list(shots_of([], 1)) == [(0, 0)]


def test_first_middle_and_last_frame_of_each_shot_are_scored() -> None:
    media = decode(film(still(0, 11) + still(1, 21) + still(2, 5)))
    assert [f.index for f in media.frames] == [0, 5, 10, 11, 21, 31, 32, 34, 36]
    assert media.frames_total == 37 and media.error is None
    assert media.widest_gap_s == pytest.approx(1.0, abs=0.05)


def test_short_insert_that_keyframes_would_miss_is_scored() -> None:
    media = decode(film(still(0, 60) + still(1, 8) + still(0, 60)))
    assert any(60 <= f.index < 68 for f in media.frames)


def test_many_shots_are_bounded_and_spread_over_the_whole() -> None:
    frames = [f for k in range(12) for f in still(k % 4, 4)]
    chosen = [f.index for f in decode(film(frames), max_frames=8).frames]
    assert len(chosen) == 8
    assert chosen[0] == 0 and chosen[-1] == 47 and np.diff(chosen).max() <= 10


def test_long_shot_has_no_wider_gap_than_any_video() -> None:
    media = decode(film(still(0, 120)), max_gap_s=3.0)
    assert media.widest_gap_s is not None and media.widest_gap_s <= 3.2


def test_long_video_is_searched_by_its_keyframes() -> None:
    # Every frame of Motion JPEG is one; more than are looked at, so they are thinned out.
    media = decode(film(still(0, 300) + still(1, 300)), max_gap_s=100.0)
    assert any(295 <= f.index < 300 for f in media.frames) and any(300 <= f.index < 305 for f in media.frames)

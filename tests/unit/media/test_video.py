"""Videos: which frames are scored, and what the item records."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import sniff
from moderation.media.limits import start_deadline
from moderation.media.sampling import choose_frames, widest_gap
from moderation.media.video import decode_video
from moderation.types import ErrorCode, Media
from tests.drawn_media import QUADRANTS, avi, jpegs, matroska, mp4

CLIPS = Path(__file__).parents[3].parent / "shared" / "data" / "videos"


def decode(data: bytes, **limits: object) -> Media:
    config = MediaConfig(**limits)  # type: ignore[arg-type]  # keywords of one test, checked by pydantic
    media_type = sniff(data)
    assert media_type is not None
    return decode_video(data, media_type, config, start_deadline(config.decode_timeout_s))


def choose(total: int, rate: float, keys: list[int], **limits: object) -> list[int]:
    config = MediaConfig(**limits)  # type: ignore[arg-type]  # as above
    return choose_frames(np.arange(total) / rate, total / rate, np.array(keys, dtype=np.int64), config)


def test_keyframes_are_taken_and_gaps_filled() -> None:
    assert choose(300, 10, [0, 30, 60, 90, 120]) == [0, 30, 60, 90, 120, 165, 210, 255]


def test_uniform_takes_one_frame_each_step() -> None:
    assert choose(100, 10, [0], sampling="uniform", fps=2) == list(range(0, 100, 5))


def test_hybrid_takes_both() -> None:
    assert choose(40, 10, [0, 7], sampling="hybrid", fps=1) == [0, 7, 10, 20, 30]


def test_too_many_are_spread_over_the_whole() -> None:
    chosen = choose(10_000, 10, list(range(0, 10_000, 5)), max_frames=11)
    assert len(chosen) == 11
    assert chosen[0] == 0
    assert chosen[-1] == 9995
    assert np.diff(chosen).max() <= 1010


def test_a_crowd_of_keyframes_at_the_start_does_not_hide_the_rest() -> None:
    chosen = choose(6000, 10, list(range(500)), max_frames=16)
    assert len(chosen) == 16
    assert sum(i > 500 for i in chosen) >= 12


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(1, 4000),
    fps=st.sampled_from([0.2, 1, 24, 60]),
    keys=st.lists(st.integers(0, 3999), max_size=40),
    max_frames=st.integers(1, 40),
    sampling=st.sampled_from(["keyframes", "uniform", "hybrid"]),
)
def test_the_choice_is_bounded_ascending_and_leaves_no_wide_gap(
    total: int, fps: float, keys: list[int], max_frames: int, sampling: str
) -> None:
    keys = sorted({k for k in keys if k < total})
    chosen = choose(total, fps, keys, max_frames=max_frames, sampling=sampling)
    assert 1 <= len(chosen) <= max_frames
    assert chosen == sorted(set(chosen))
    assert all(0 <= i < total for i in chosen)
    if len(chosen) < max_frames and sampling != "uniform":
        assert widest_gap([i / fps for i in chosen], total / fps) <= 5.1 + 2 / fps


@pytest.mark.parametrize("make", [mp4, matroska, avi])
def test_frames_come_with_their_index_time_and_colours(make: object) -> None:
    media = decode(make(jpegs(12)))  # type: ignore[operator]  # one of three makers with the same first parameter
    assert media.error is None
    assert [f.index for f in media.frames] == list(range(12))
    assert [f.time_s for f in media.frames] == pytest.approx([k / 2 for k in range(12)])
    assert media.frames_total == 12
    for frame in media.frames:
        assert np.abs(frame.pixels[40:80, 40:80].mean(axis=(0, 1)) - QUADRANTS[frame.index % 4]).max() < 25


def test_rotation_in_the_container_is_honoured() -> None:
    quarter = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 240 << 16, 0, 1 << 30)
    frame = decode(mp4(jpegs(2), matrix=quarter)).frames[0]
    assert (frame.width, frame.height) == (240, 320)
    # A quarter turn clockwise: bottom left becomes top left.
    assert np.abs(frame.pixels[40:80, 40:80].mean(axis=(0, 1)) - QUADRANTS[2]).max() < 25


def test_large_frames_are_scaled_to_the_canvas() -> None:
    frame = decode(mp4(jpegs(1, 1600, 1200), size=(1600, 1200))).frames[0]
    assert frame.pixels.shape == (448, 597, 3)
    assert (frame.width, frame.height) == (1600, 1200)


def test_a_container_that_lies_about_its_size_does_not_squeeze_the_picture() -> None:
    frame = decode(mp4(jpegs(2, 1600, 1200), size=(16, 16))).frames[0]
    assert frame.width / frame.height == pytest.approx(4 / 3, abs=0.01)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("make", [mp4, matroska, avi])
def test_a_cut_video_keeps_what_is_there(make: object, share: float) -> None:
    data = make(jpegs(12))  # type: ignore[operator]  # as above
    media = decode(data[: int(len(data) * share)])
    assert media.error is ErrorCode.TRUNCATED
    assert 2 <= len(media.frames) <= 10


@pytest.mark.parametrize(
    ("data", "limits", "code"),
    [
        (mp4([bytes(999)] * 3, audio_only=True), {}, ErrorCode.NO_FRAMES),
        (mp4(jpegs(4), frame_s=30), {"max_seconds": 100}, ErrorCode.TOO_LONG),
        (mp4(jpegs(2)), {"max_pixels": 1000}, ErrorCode.TOO_MANY_PIXELS),
        (mp4(jpegs(4), moov_last=True)[:9000], {}, ErrorCode.CORRUPT),
    ],
)
def test_a_video_without_frames_says_why(data: bytes, limits: dict[str, object], code: ErrorCode) -> None:
    with pytest.raises(ItemError) as caught:
        decode(data, **limits)
    assert caught.value.code is code


@pytest.mark.shared
@pytest.mark.skipif(not CLIPS.is_dir(), reason="../shared/data/videos is not there")
def test_real_clips_are_covered_from_end_to_end() -> None:
    for path in sorted(CLIPS.iterdir()):
        media = decode(path.read_bytes(), max_gap_s=1.0)
        assert media.error is None, path.name
        assert media.duration_s is not None
        assert media.widest_gap_s is not None
        assert media.widest_gap_s <= 1.1, path.name
        assert len(media.frames) >= media.duration_s - 1


@pytest.mark.shared
@pytest.mark.skipif(not CLIPS.is_dir(), reason="../shared/data/videos is not there")
def test_clips_decoded_at_the_same_time_give_the_same_pixels() -> None:
    clips = [path.read_bytes() for path in sorted(CLIPS.iterdir())]
    alone = [decode(clip) for clip in clips]
    together: dict[int, Media] = {}
    threads = [
        threading.Thread(target=lambda k=k, clip=clip: together.update({k: decode(clip)}))
        for k, clip in enumerate(clips)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, media in enumerate(alone):
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(media.frames, together[k].frames, strict=True))

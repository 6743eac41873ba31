"""When frames are shown, from their packets' times alone; and what packets say of themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from moderation.config.model import MediaConfig
from moderation.file_types import MediaType, sniff
from moderation.media.bitstream import is_closed_keyframe
from moderation.media.sampling import choose_frames, frame_limit, widest_stretch
from moderation.media.timeline import Packets, Timeline, build_timeline

NAN = float("nan")


def packets(pts: Sequence[float], dts: Sequence[float] | None = None, keys: Sequence[int] = (0,)) -> Packets:
    count = len(pts)
    is_key = np.isin(np.arange(count), keys)
    return Packets(
        pts_s=np.array(pts, dtype=np.float64),
        dts_s=np.array(pts if dts is None else dts, dtype=np.float64),
        span_s=np.full(count, NAN),
        is_key=is_key,
        is_hidden=np.zeros(count, dtype=np.bool_),
    )


def build(found: Packets, rate: float = 10, *, has_times: bool = True, may_jump: bool = True) -> Timeline:
    return build_timeline(found, rate, has_times=has_times, may_jump=may_jump)


def test_frames_are_ordered_by_when_they_are_shown() -> None:
    timeline = build(packets([0.2, 0.5, 0.3, 0.4], [0.0, 0.1, 0.2, 0.3]))
    assert timeline.packets.tolist() == [0, 2, 3, 1]
    assert timeline.times_s == pytest.approx([0, 0.1, 0.2, 0.3])
    assert timeline.is_plain and not timeline.is_counted


def test_a_second_recording_follows_the_first() -> None:
    timeline = build(packets([0, 0.1, 0.2, 0, 0.1, 0.2], keys=[0, 3]))
    assert timeline.packets.tolist() == list(range(6))
    assert timeline.duration_s == pytest.approx(0.6)
    assert not timeline.is_plain


def test_many_short_recordings_do_not_lie_on_top_of_each_other() -> None:
    timeline = build(packets([0, 0.1, 0.2] * 100, keys=range(0, 300, 3)))
    assert timeline.duration_s == pytest.approx(30)


def test_a_leap_forward_is_no_length() -> None:
    timeline = build(packets([0, 0.1, 1e14, 1e14 + 0.1]))
    assert timeline.duration_s < 1


@pytest.mark.parametrize("pts", [[NAN] * 20, [0.0] * 20, list(np.arange(20) * 1e-6)])
def test_times_that_cannot_be_are_counted_instead(pts: list[float]) -> None:
    timeline = build(packets(pts))
    assert timeline.is_counted
    assert timeline.duration_s == pytest.approx(2)


def test_what_comes_before_the_first_keyframe_is_not_counted() -> None:
    timeline = build(packets([0, 0.1, 0.5, 0.4, 0.6], [0, 0.1, 0.2, 0.3, 0.4], keys=[2]))
    assert timeline.packets.tolist() == [2, 4]  # packet 3 is shown before the keyframe, on which it builds


@pytest.mark.parametrize(
    ("codec", "extradata", "packet", "closed"),
    [
        ("h264", b"\1\0\0\0\xff", b"\0\0\0\2\x06\0\0\0\0\2\x65\0", True),
        ("h264", b"\1\0\0\0\xff", b"\0\0\0\2\x41\0", False),
        ("h264", b"", b"\0\0\0\1\x65\0", False),  # start codes: not known here
        ("hevc", b"\1" + bytes(20) + b"\xff", b"\0\0\0\2\x26\1", True),
        ("hevc", b"\1" + bytes(20) + b"\xff", b"\0\0\0\2\x2a\1", False),  # CRA: an open group
        ("vp8", b"", b"\x10\0", True),
        ("vp8", b"", b"\x11\0", False),
        ("vp9", b"", b"\x82\x49", True),
        ("vp9", b"", b"\x86\0", False),
        ("av1", b"", b"\x12\0\x0a\1\0\x32\1\x10", True),
        ("av1", b"", b"\x12\0\x32\1\x30", False),
        ("mpeg4", b"", b"\0\0\1\xb6", False),
        ("h264", b"\1\0\0\0\xff", b"", False),
    ],
)
def test_a_packet_says_whether_decoding_can_begin_there(
    codec: str, extradata: bytes, packet: bytes, closed: bool
) -> None:
    assert is_closed_keyframe(codec, extradata, packet) is closed


def test_the_number_of_frames_follows_the_length() -> None:
    config = MediaConfig()
    assert frame_limit(60, config) == config.max_frames
    assert frame_limit(1000, config) == 201
    assert frame_limit(3600, config) == config.frame_budget
    assert frame_limit(1e14, config) == config.frame_budget


@pytest.mark.parametrize(("key_s", "gap_s"), [(1, 10), (2, 10), (4, 12), (5, 10), (10, 10), (3600, 10)])
def test_of_an_hour_little_more_than_ten_seconds_are_unseen(key_s: int, gap_s: float) -> None:
    """Keyframes alone, where there are enough: then the gap is a multiple of theirs (4 s: 12), and stated as it is."""
    times_s = np.arange(3600 * 25) / 25
    keys = np.arange(0, len(times_s), key_s * 25)
    config = MediaConfig()
    chosen = choose_frames(times_s, 3600, keys, config, limit=frame_limit(3600, config))
    assert len(chosen) <= config.frame_budget
    assert widest_stretch(times_s, chosen, 3600, config.max_gap_s) <= gap_s + 0.1


def test_of_too_many_frames_keyframes_are_taken() -> None:
    times_s = np.arange(3600 * 25) / 25
    keys = np.arange(0, len(times_s), 50)
    chosen = choose_frames(times_s, 3600, keys, MediaConfig(), limit=400)
    assert len(chosen) == 400
    assert set(chosen) <= set(keys.tolist())


def test_a_frame_that_stays_leaves_no_gap_but_a_stretch_that_was_skipped_does() -> None:
    times_s = np.array([0.0, 1.0, 31.0, 32.0, 62.0])
    assert widest_stretch(times_s, [0, 1, 2, 3, 4], 63.0, 5.0) == 5
    assert widest_stretch(times_s, [0, 1, 3, 4], 63.0, 5.0) == 31
    assert widest_stretch(times_s, [], 63.0, 5.0) == 63


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\0\0\0\1\x67\x64\0\x0a", MediaType.ELEMENTARY),
        (b"\0\0\0\1\x09\xf0", MediaType.ELEMENTARY),
        (b"\0\0\0\1\x40\x01\x0c", MediaType.ELEMENTARY),
        (b"\0\0\1\xb0\x01\0\0\1", MediaType.ELEMENTARY),
        (b"\0\0\1\xba\x44", MediaType.MPEG_PS),
        (b"\0\0\1\0\1\0", MediaType.OTHER),
        (b"\0\0\1\0\2\0\x10\x10", None),  # an icon of two pictures, no stream
        (b"\0\0\0\1", None),
    ],
)
def test_bare_streams_are_told_from_what_looks_like_them(head: bytes, media_type: MediaType | None) -> None:
    assert sniff(head + bytes(64)) is media_type


@pytest.mark.parametrize("sampling", ["uniform", "hybrid"])
def test_a_video_with_fewer_frames_a_second_than_asked_for_is_taken_whole(sampling: str) -> None:
    times_s, config = np.arange(40) / 4, MediaConfig.model_validate({"sampling": sampling, "fps": 8.0})
    assert choose_frames(times_s, 10.0, np.array([0]), config) == list(range(40))


SPS = b"\x67\x64size", b"\x67\x64more"
SLICE = b"\x65slice"


@pytest.mark.parametrize(
    ("codec", "nal", "slices"), [("h264", SPS, SLICE), ("hevc", (b"\x42\1a", b"\x42\1b"), b"\x26\1s")]
)
def test_a_keyframe_that_brings_another_size_is_not_closed(codec: str, nal: tuple[bytes, bytes], slices: bytes) -> None:
    extradata = b"\1" + bytes(3 if codec == "h264" else 20) + b"\xff" + nal[0]

    def packet(*units: bytes) -> bytes:
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)

    assert is_closed_keyframe(codec, extradata, packet(slices))
    assert is_closed_keyframe(codec, extradata, packet(nal[0], slices))
    assert not is_closed_keyframe(codec, extradata, packet(nal[1], slices))
    assert not is_closed_keyframe(codec, extradata, packet(nal[0], nal[1], slices))


def test_a_vp8_keyframe_of_another_size_is_not_closed() -> None:
    packet = b"\x10\0\0\x9d\x01\x2a" + (160).to_bytes(2, "little") + (120 | 1 << 14).to_bytes(2, "little")
    assert is_closed_keyframe("vp8", b"", packet, (160, 120))
    assert not is_closed_keyframe("vp8", b"", packet, (16, 16))

"""Keyframes that were cut before: as many are looked at as of their video, and what did not come is unseen."""

from __future__ import annotations

import numpy as np
import pytest

from moderation.config.model import MediaConfig
from moderation.media.keyframes import chosen_positions, decode_keyframes, gather_keyframes
from moderation.media.limits import start_deadline
from moderation.types import U8, Frame, Item, Kind, Media, MediaObject

PIXELS: U8 = np.zeros((4, 4, 3), np.uint8)
CONFIG = MediaConfig()


def keyframes(times_s: list[float | None], **cut_from: str) -> Item:
    objects = tuple(MediaObject(uri="x", name=f"{n}.jpg", frame=n, time_s=t) for n, t in enumerate(times_s))
    attributes = {f"cut_from.{name}": value for name, value in cut_from.items()}
    return Item(item_id="a", uri="u", kind=Kind.KEYFRAMES, objects=objects, attributes=attributes)


def gathered(item: Item) -> Media:
    frame = Frame(index=0, pixels=PIXELS, width=4, height=4)
    one = Media(kind=Kind.IMAGE, frames=(frame,), frames_total=1)
    return gather_keyframes(item, dict.fromkeys(sorted(chosen_positions(item, CONFIG)), one))


def test_of_a_long_video_as_many_are_looked_at_as_were_cut_of_it() -> None:
    media = gathered(keyframes([5.0 * n for n in range(301)], duration_s="1500"))
    assert (len(media.frames), media.widest_gap_s, media.unseen) == (301, 5.0, ())
    media = gathered(keyframes([float(n) for n in range(1000)]))
    assert (len(media.frames), media.widest_gap_s) == (201, 5.0)


def test_a_video_however_long_has_no_more_frames_than_the_budget() -> None:
    media = gathered(keyframes([60.0 * n for n in range(2000)], duration_s="999999999"))
    assert len(media.frames) == CONFIG.frame_budget
    assert media.widest_gap_s is not None and media.widest_gap_s > 300


def test_frames_without_times_that_were_left_out_are_unseen() -> None:
    assert gathered(keyframes([None] * CONFIG.frame_budget)).unseen == ()
    assert gathered(keyframes([None] * (CONFIG.frame_budget + 1))).unseen == ("picture",)
    # One without a time may be of any moment, so the others' times say nothing of it.
    assert gathered(keyframes([0.0, 1.0, *[None] * CONFIG.frame_budget * 2])).unseen == ("picture",)


@pytest.mark.parametrize("told", [{"x": "1"}, {"duration_s": "nan"}, {"duration_s": "-1"}, {"duration_s": "0"}])
def test_a_word_of_where_they_were_cut_from_hides_no_gap(told: dict[str, str]) -> None:
    assert gathered(keyframes([0.0, 1000.0])).widest_gap_s == 1000
    assert gathered(keyframes([0.0, 1000.0], **told)).widest_gap_s == 1000


def test_frames_that_were_cut_and_did_not_come_are_unseen() -> None:
    assert gathered(keyframes([0.0, 5.0], frames="2", duration_s="8")).unseen == ()
    assert gathered(keyframes([0.0, 5.0], frames="3", duration_s="8")).unseen == ("picture",)


def test_the_gap_of_one_track_is_not_closed_by_the_frames_of_another() -> None:
    media = gathered(keyframes([0.0, 4.0, 8.0, 12.0], duration_s="12", widest_gap_s="9"))
    assert media.widest_gap_s == 9


@pytest.mark.parametrize("times_s", [[7.0] * 1000, [float(n // 2) for n in range(1000)]])
def test_of_frames_with_one_time_none_stands_for_another(times_s: list[float | None]) -> None:
    media = gathered(keyframes(times_s))
    assert (len(media.frames), media.unseen) == (CONFIG.frame_budget, ("picture",))
    assert gathered(keyframes(times_s[: CONFIG.frame_budget])).unseen == ()


@pytest.mark.parametrize("repeats", [0, 1, 2, 9, 10])
def test_of_frames_that_fit_into_the_budget_none_is_unseen_for_a_time_that_repeats(repeats: int) -> None:
    times_s: list[float | None] = [2.0 * n for n in range(300)]
    for n in range(repeats):
        times_s[30 * n + 1] = times_s[30 * n]
    assert gathered(keyframes(times_s)).unseen == ()


def test_the_frames_of_one_track_do_not_stand_for_those_of_another() -> None:
    times_s: list[float | None] = [start_s + 5.0 * n for start_s in (0.0, 2.5) for n in range(64)]
    media = gathered(keyframes(times_s, duration_s="320", widest_gap_s="5"))
    assert (len(media.frames), media.widest_gap_s, media.unseen) == (128, 5.0, ())


@pytest.mark.parametrize("tracks", [1, 2, 8])
def test_all_frames_that_were_cut_of_a_long_video_are_looked_at_whatever_its_tracks_and_covers(tracks: int) -> None:
    cut = [9.0 * n for n in range(CONFIG.frame_budget)] * tracks
    media = gathered(keyframes([*cut, None, None], duration_s="3600", widest_gap_s="9"))
    assert (len(media.frames), media.widest_gap_s, media.unseen) == (len(cut) + 2, 9.0, ())
    assert len(gathered(keyframes(cut * 10)).frames) == CONFIG.frame_budget


def test_keyframes_that_are_held_together_are_bounded_and_the_rest_is_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.media.keyframes.MAX_FRAMES_BYTES", 2 * PIXELS.nbytes)
    frame = Frame(index=0, pixels=PIXELS, width=4, height=4)
    one = Media(kind=Kind.IMAGE, frames=(frame,), frames_total=1)
    monkeypatch.setattr("moderation.media.keyframes.decode_object", lambda *_: one)
    media = decode_keyframes(keyframes([0.0, 1.0, 2.0, 3.0]), [b""] * 4, CONFIG, start_deadline(9))
    assert (len(media.frames), media.unseen) == (2, ("picture",))

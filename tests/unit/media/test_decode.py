"""Items: one object, albums, keyframes; every failure is a code."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media import objects
from moderation.media.decode import decode_item
from moderation.media.limits import abandoned_decodes, decode_with_deadline, spread, start_deadline
from moderation.types import ErrorCode, Item, Kind, Media, MediaObject
from tests.drawn_media import draw, encode, jpegs, mp4

CONFIG = MediaConfig()
JPEG = encode(draw(), "JPEG")


def item(names: list[str], kind: Kind | None = None, times_s: list[float] | None = None) -> Item:
    objects = tuple(
        MediaObject(uri=n, name=n, frame=None if times_s is None else k * 30, time_s=times_s[k] if times_s else None)
        for k, n in enumerate(names)
    )
    return Item(item_id="i", uri=names[0], objects=objects, kind=kind)


def one(name: str, payload: bytes | ItemError, config: MediaConfig = CONFIG) -> Media:
    return decode_item(item([name]), [payload], config)


def test_what_storage_said_becomes_the_items_error() -> None:
    media = one("a.jpg", ItemError(ErrorCode.NOT_FOUND, "no such key"))
    assert (media.kind, media.error, media.error_detail) == (Kind.UNKNOWN, ErrorCode.NOT_FOUND, "no such key")


def test_an_error_known_before_fetching_is_passed_on() -> None:
    refused = Item(item_id="i", uri="u", objects=(), error=ErrorCode.FORBIDDEN, error_detail="outside source.allow")
    assert decode_item(refused, [], CONFIG).error is ErrorCode.FORBIDDEN


@pytest.mark.parametrize(
    ("problem", "code"), [(MemoryError(), ErrorCode.OUT_OF_MEMORY), (KeyError("x"), ErrorCode.CORRUPT)]
)
def test_whatever_a_decoder_raises_becomes_a_code(
    problem: Exception, code: ErrorCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Media:
        raise problem

    monkeypatch.setattr(objects, "decode_jpeg_image", fail)
    assert one("a.jpg", JPEG).error is code


def test_content_beats_the_name() -> None:
    assert one("notes.txt", JPEG).error is None
    assert one("a.jpg", mp4(jpegs(2))).kind is Kind.VIDEO


def test_an_album_numbers_its_frames_on_and_no_index_twice() -> None:
    payloads: list[bytes | ItemError] = [JPEG, mp4(jpegs(6)), ItemError(ErrorCode.NOT_FOUND, "gone"), JPEG]
    media = decode_item(item(["a.jpg", "b.mp4", "c.jpg", "d.jpg"], Kind.ALBUM), payloads, CONFIG)
    assert [f.index for f in media.frames] == [0, 1, 2, 3, 4, 5, 6, 8]
    assert media.frames_total == 9
    assert media.error is ErrorCode.NOT_FOUND
    assert media.error_detail == "1 of 4 members: not_found (gone)"


def test_every_still_of_an_album_is_scored_whatever_max_frames() -> None:
    media = decode_item(item(["a.jpg"] * 9, Kind.ALBUM), [JPEG] * 9, CONFIG.model_copy(update={"max_frames": 3}))
    assert len(media.frames) == 9


def test_an_album_of_which_one_member_is_text_is_not_skipped() -> None:
    media = decode_item(item(["a.json", "b.jpg"], Kind.ALBUM), [b"{}", JPEG], CONFIG)
    assert media.error is ErrorCode.UNSUPPORTED_TYPE
    assert len(media.frames) == 1
    assert decode_item(item(["a.json", "b.md"], Kind.ALBUM), [b"{}", b"#"], CONFIG).error is ErrorCode.NOT_MEDIA


def test_keyframes_keep_the_index_and_time_of_their_source() -> None:
    keyframes = item(["0.jpg", "1.jpg", "2.jpg"], Kind.KEYFRAMES, [0.0, 1.0, 4.0])
    media = decode_item(keyframes, jpegs(3), CONFIG)
    assert [(f.index, f.time_s) for f in media.frames] == [(0, 0.0), (30, 1.0), (60, 4.0)]
    assert media.kind is Kind.KEYFRAMES
    assert media.widest_gap_s == 3.0


def test_many_keyframes_are_thinned_evenly() -> None:
    names = [f"{k}.jpg" for k in range(11)]
    media = decode_item(
        item(names, Kind.KEYFRAMES, [float(k) for k in range(11)]),
        jpegs(11, 64, 48),
        CONFIG.model_copy(update={"max_frames": 3}),
    )
    assert [f.time_s for f in media.frames] == [0.0, 5.0, 10.0]
    assert media.frames_total == 11


def test_keyframes_without_numbers_are_numbered_by_place() -> None:
    media = decode_item(item(["a.jpg", "b.jpg"], Kind.KEYFRAMES), [JPEG, b""], CONFIG)
    assert [f.index for f in media.frames] == [0]
    assert media.error is ErrorCode.EMPTY


def test_a_call_with_too_few_payloads_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="1 payloads for 2 objects"):
        decode_item(item(["a", "b"]), [JPEG], CONFIG)


def test_a_stuck_decoder_is_given_up_and_counted_until_it_ends() -> None:
    stuck = threading.Event()
    before = abandoned_decodes()
    with pytest.raises(ItemError) as caught:
        decode_with_deadline(lambda: stuck.wait(30), start_deadline(0.05))
    assert caught.value.code is ErrorCode.TIMEOUT
    assert abandoned_decodes() == before + 1
    stuck.set()
    for thread in threading.enumerate():
        if thread.name == "decode":
            thread.join(10)
    assert abandoned_decodes() == before


def test_an_item_past_its_deadline_is_a_timeout() -> None:
    slow = CONFIG.model_copy(update={"decode_timeout_s": 1e-6})
    assert one("a.webp", encode(draw(), "WEBP"), slow).error is ErrorCode.TIMEOUT
    assert one("a.mp4", mp4(jpegs(2)), slow).error is ErrorCode.TIMEOUT


def test_pictures_decoded_in_many_threads_are_the_same() -> None:
    payloads = [JPEG, encode(draw(), "PNG"), JPEG[:9000], encode(draw(), "WEBP")] * 6
    alone = [one("a.jpg", p) for p in payloads]
    found: dict[int, Media] = {}
    threads = [
        threading.Thread(target=lambda k=k, p=p: found.update({k: one("a.jpg", p)})) for k, p in enumerate(payloads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, media in enumerate(alone):
        assert found[k].error is media.error
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(media.frames, found[k].frames, strict=True))


@pytest.mark.parametrize(
    ("total", "limit", "expected"),
    [(3, 5, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (9, 1, [4]), (0, 4, [])],
)
def test_spread_takes_both_ends(total: int, limit: int, expected: list[int]) -> None:
    assert spread(total, limit) == expected

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from moderation.config.model import MediaConfig, RuntimeConfig
from moderation.media.preview import encode_preview
from moderation.review.items import QueueItem
from moderation.review.pictures import (
    _MAX_STRIP,
    LARGE_PX,
    SMALL_PX,
    PictureDesk,
    _choose_places,
    deciding_place,
    spread,
)
from moderation.review.planned_items import PlannedItem
from moderation.types import ErrorCode, Evidence, Frame, Item, Kind, MediaObject
from tests.job_runs import SHARED
from tests.review_server import draw_picture

WAIT_S = 60
MEMORY_BYTES = RuntimeConfig().decoder_memory_bytes


def planned(path: Path, kind: str = "image", **more: object) -> PlannedItem:
    judged = QueueItem(item_id=path.name, uri=str(path), kind=kind, status="ok", together=0, **more)  # type: ignore[arg-type]  # keywords of any type
    return PlannedItem(
        judged=judged,
        item=Item(item_id=path.name, uri=str(path), objects=(MediaObject(uri=str(path), name=path.name),)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def items() -> dict[str, PlannedItem]:
    return {}


@pytest.fixture(scope="module")
def desk(items: dict[str, PlannedItem]) -> Iterator[PictureDesk]:
    made = PictureDesk(MediaConfig(), MEMORY_BYTES, items.get)
    yield made
    made.close()


def test_a_large_picture_is_scaled_and_encoded_anew(
    desk: PictureDesk, items: dict[str, PlannedItem], folder: Path
) -> None:
    digest = draw_picture(folder / "a.jpg", 1, (1600, 900))
    items["a"] = planned(folder / "a.jpg", content_hash=digest)
    [picture] = desk.ask("a").result(WAIT_S).pictures
    for data, side in ((picture.large, LARGE_PX), (picture.small, SMALL_PX)):
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, max(image.size)) == ("JPEG", side)
    assert desk.ask("a") is desk.ask("a")


def test_other_bytes_than_those_that_were_judged_are_not_shown(
    desk: PictureDesk, items: dict[str, PlannedItem], folder: Path
) -> None:
    draw_picture(folder / "b.jpg", 2)
    items["b"] = planned(folder / "b.jpg", content_hash="0" * 64)
    made = desk.ask("b").result(WAIT_S)
    assert (made.pictures, made.error) == ((), ErrorCode.CHANGED)


def test_what_cannot_be_read_or_decoded_has_a_code(
    desk: PictureDesk, items: dict[str, PlannedItem], folder: Path
) -> None:
    (folder / "c.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    items |= {"c": planned(folder / "c.jpg"), "none": planned(folder / "none.jpg")}
    assert desk.ask("c").result(WAIT_S).error is ErrorCode.CORRUPT
    assert desk.ask("none").result(WAIT_S).error is ErrorCode.NOT_FOUND


def test_an_album_shows_what_decodes_and_says_that_it_is_not_all(
    desk: PictureDesk, items: dict[str, PlannedItem], folder: Path
) -> None:
    draw_picture(folder / "good.jpg", 3)
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    objects = tuple(MediaObject(uri=str(folder / name), name=name) for name in ("good.jpg", "bad.jpg"))
    album = planned(folder / "album", kind="album")
    items["album"] = PlannedItem(judged=album.judged, item=Item(item_id="album", uri="album", objects=objects))
    made = desk.ask("album").result(WAIT_S)
    assert (len(made.pictures), made.error) == (1, ErrorCode.CORRUPT)
    assert made.error_detail.startswith("1 of 2 members: corrupt")
    assert desk.ask("album").result(WAIT_S) is made


def test_what_was_decided_over_black_is_shown_over_black(
    desk: PictureDesk, items: dict[str, PlannedItem], folder: Path
) -> None:
    Image.merge("LA", (Image.new("L", (64, 64), 255), Image.linear_gradient("L").resize((64, 64)))).save(
        folder / "t.png"
    )
    decided = Evidence(detector="open_nsfw", label="nsfw", score=0.9, frame=1)
    items["t"] = planned(folder / "t.png", evidence=(decided,))
    made = desk.ask("t").result(WAIT_S)
    shown = np.asarray(Image.open(io.BytesIO(made.pictures[made.deciding].large)).convert("L"))
    assert (made.deciding, len(made.pictures)) == (1, 2)
    assert shown.min() < 20


def test_an_unknown_item_is_not_kept(desk: PictureDesk) -> None:
    for _ in range(2):
        with pytest.raises(KeyError):
            desk.ask("unknown").result(WAIT_S)


def test_an_item_that_may_not_be_read_is_not(desk: PictureDesk, items: dict[str, PlannedItem], folder: Path) -> None:
    judged = planned(folder / "a.jpg").judged
    forbidden = Item(item_id="f", uri="/etc/passwd", objects=(), error=ErrorCode.FORBIDDEN, error_detail="outside")
    items["f"] = PlannedItem(judged=judged, item=forbidden)
    assert desk.ask("f").result(WAIT_S).error is ErrorCode.FORBIDDEN


@pytest.mark.shared
def test_a_video_is_a_strip_of_the_frames_that_were_judged(desk: PictureDesk, items: dict[str, PlannedItem]) -> None:
    film = SHARED / "videos" / "flower.mp4"
    if not film.exists():
        pytest.skip("no ../shared/data on this machine")
    items["film"] = planned(film, kind="video")
    made = desk.ask("film").result(WAIT_S)
    assert made.error is None
    assert made.total == len(made.pictures) > 1
    assert [picture.time_s for picture in made.pictures] == sorted(p.time_s or 0.0 for p in made.pictures)


def test_old_pictures_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.review.pictures._CACHE_BYTES", 40_000)
    known = {}
    for number in range(12):
        draw_picture(folder / f"{number}.jpg", number, (640, 480))
        known[str(number)] = planned(folder / f"{number}.jpg")
    desk = PictureDesk(MediaConfig(), MEMORY_BYTES, known.get)
    try:
        for name in known:
            assert desk.ask(name).result(WAIT_S).pictures
        assert 0 < len(desk._kept) < 12
        assert desk._held_bytes == sum(future.result().held_bytes for future in desk._kept.values())
    finally:
        desk.close()


@given(count=st.integers(0, 900), most=st.integers(2, 40), kept=st.integers(0, 899))
def test_a_strip_is_bounded_even_and_has_the_deciding_frame(count: int, most: int, kept: int) -> None:
    kept = min(kept, max(0, count - 1))
    places = spread(count, most, kept)
    assert places == sorted(set(places))
    assert len(places) == min(count, most)
    assert not count or kept in places
    assert all(0 <= place < count for place in places)


@given(own=st.integers(0, 80), more=st.integers(0, 80), data=st.data())
def test_own_frames_come_before_other_readings_of_them(own: int, more: int, data: st.DataObject) -> None:
    count = own + more
    deciding = data.draw(st.integers(0, max(0, count - 1)))
    places = _choose_places(own, count, deciding)
    assert len(places) <= _MAX_STRIP + 1 and (not count or deciding in places)
    assert own > _MAX_STRIP or set(range(own)) <= set(places)
    assert count > _MAX_STRIP or places == list(range(count))


def frame(index: int, time_s: float | None) -> Frame:
    return Frame(index=index, pixels=np.zeros((2, 2, 3), np.uint8), width=2, height=2, time_s=time_s)


def test_the_deciding_frame_is_found_by_index_then_by_time() -> None:
    frames = [frame(0, 0.0), frame(50, 2.0), frame(90, 3.6)]
    vote = Evidence(detector="a", label="b", score=0.9, frame=50, time_s=3.6)
    assert deciding_place(frames, [vote]) == 1
    assert deciding_place(frames, [Evidence(detector="a", label="b", score=0.9, frame=7, time_s=3.4)]) == 2
    assert deciding_place(frames, [Evidence(detector="a", label="b", score=0.9)]) == 0
    assert deciding_place([], [vote]) == 0


def test_a_preview_keeps_small_pictures_and_long_ones_have_a_side() -> None:
    for size, side, expected in (((20, 30), 100, (30, 20)), ((1, 5000), 100, (100, 1))):
        with Image.open(io.BytesIO(encode_preview(np.zeros((*size, 3), np.uint8), side))) as image:
            assert image.size == expected


def test_kinds_of_several_pictures_are_those_with_a_strip() -> None:
    from moderation.review.shown_item import SEVERAL

    assert Kind.IMAGE not in SEVERAL
    assert Kind.VIDEO in SEVERAL

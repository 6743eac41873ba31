"""The demo set: the same from the same packages, complete, and really what each item says that it is."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from examples.demo import find_copies, find_surprises, pdq_distance
from examples.demo_set import (
    ANIMATION_FRAMES,
    VIDEO_FPS,
    VIDEO_FRAMES,
    DemoItem,
    DemoSet,
    demo_items,
    encode_jpeg,
    package_file,
    write_demo_set,
)
from examples.motion_jpeg import encode_avi
from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.media import decode_item
from moderation.sources import open_source
from moderation.types import ErrorCode, Item, Kind, Media, MediaObject, Status, Verdict

pytest.importorskip("skimage", reason="the demo set is made from its photographs")
pytest.importorskip("matplotlib", reason="the demo set is made from its photographs")

MEDIA = MediaConfig()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    return write_demo_set(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def listed(demo: DemoSet) -> dict[str, Item]:
    return {item.item_id: item for item in open_source(str(demo.manifest), SourceConfig())}


def decode(item: Item) -> Media:
    payloads: list[bytes | ItemError] = [
        Path(o.uri).read_bytes() if Path(o.uri).exists() else ItemError(ErrorCode.NOT_FOUND) for o in item.objects
    ]
    return decode_item(item, payloads, MEDIA)


def test_the_set_is_the_same_bytes_every_time(demo: DemoSet) -> None:
    assert demo_items() == demo.items


def test_every_case_that_a_job_meets_is_in_the_set(demo: DemoSet) -> None:
    shown = " ".join(item.shows for item in demo.items)
    for case in (
        "good",
        "blurred",
        "dark",
        "duplicate",
        "truncated",
        "mislabelled",
        "animated",
        "album",
        "nine",
        "video",
    ):
        assert case in shown
    assert {item.kind for item in demo.items} == set(Kind)
    # A match with an illegal list needs such a list; the demo has none.
    assert {item.status for item in demo.items} == set(Status) - {Status.ESCALATED}


def test_the_manifest_lists_exactly_the_items_of_the_set(demo: DemoSet, listed: dict[str, Item]) -> None:
    assert list(listed) == [item.item_id for item in demo.items]
    for item in demo.items:
        found = listed[item.item_id]
        assert [Path(o.uri) for o in found.objects] == [demo.manifest.parent / name for name in item.files]
        assert found.attributes["shows"] == item.shows
        assert tuple(o.time_s for o in found.objects) == (item.times_s or (None,) * len(item.files))


def test_items_decode_to_the_kinds_and_the_errors_that_they_say(demo: DemoSet, listed: dict[str, Item]) -> None:
    expected = {item.item_id: (item.kind, item.error_code) for item in demo.items}
    decoded = {name: decode(item) for name, item in listed.items() if name != "missing"}
    assert {name: (media.kind, media.error) for name, media in decoded.items()} == {
        name: says for name, says in expected.items() if name != "missing"
    }


def test_the_missing_file_is_named_and_not_written(demo: DemoSet) -> None:
    missing = [name for item in demo.items for name, content in item.files.items() if content is None]
    assert missing == ["broken/missing.jpg"]
    assert not (demo.manifest.parent / missing[0]).exists()


def test_items_of_many_frames_have_all_of_them(listed: dict[str, Item]) -> None:
    video, animation = decode(listed["video"]), decode(listed["animated"])
    assert video.frames_total == VIDEO_FRAMES
    assert video.duration_s == pytest.approx(VIDEO_FRAMES / VIDEO_FPS)
    assert animation.frames_total == ANIMATION_FRAMES
    assert len(decode(listed["holiday"]).frames) == 3
    assert [frame.time_s for frame in decode(listed["keyframes"]).frames] == [0.0, 2.0, 4.0]


def test_the_dark_picture_is_dark_and_the_blurred_one_blurred(listed: dict[str, Item]) -> None:
    dark, bright = (decode(listed[name]).frames[0].pixels for name in ("dark", "good-cat"))
    assert dark.mean() < 0.1 * bright.mean()
    soft, crisp = (decode(listed[name]).frames[0].pixels.astype(int) for name in ("blurred", "good-coffee"))
    # Neighbours differ by far less in a blurred picture.
    assert abs(soft[1:] - soft[:-1]).mean() < 0.5 * abs(crisp[1:] - crisp[:-1]).mean()


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(UsageError, match="pip install scikit-image"):
        package_file("skimage", "data/no_such_picture.png")
    with pytest.raises(UsageError, match="pip install no_such_package"):
        package_file("no_such_package", "a.png")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_written_video_decodes_to_its_pictures(count: int) -> None:
    size = (64, 48)
    # Odd and even sizes of the encoded pictures: chunks of a RIFF file are padded.
    pictures = [encode_jpeg(Image.new("RGB", size, (40 * k % 256, 90, 200)), quality=70 + k) for k in range(count)]
    data = encode_avi(pictures, fps=2, size=size)
    item = open_memory(data)
    media = decode_item(item, [data], MediaConfig(sampling="uniform", fps=2))
    assert (media.kind, media.error, media.frames_total) == (Kind.VIDEO, None, count)
    reds = [int(frame.pixels[..., 0].mean()) for frame in media.frames]
    assert reds == pytest.approx([40 * k % 256 for k in range(count)], abs=4)


def test_a_video_of_no_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        encode_avi([], fps=2, size=(64, 48))


def open_memory(data: bytes) -> Item:
    picture = MediaObject(uri="memory://film.avi", name="film.avi", size_bytes=len(data))
    return Item(item_id="film", uri=picture.uri, objects=(picture,))


def row(**changes: object) -> dict[str, object]:
    return {
        "kind": "image",
        "status": "ok",
        "verdict": "pass",
        "error_code": None,
        "content_hash": os.urandom(8).hex(),
        "pdq": "0" * 64,
        "score_subject": 1.0,
        **changes,
    }


GOOD = DemoItem(item_id="a", shows="", files={}, verdict=Verdict.PASS)
FREE = DemoItem(item_id="b", shows="", files={})


def test_rows_that_are_as_the_set_says_are_no_surprise() -> None:
    assert find_surprises([GOOD, FREE], {"a": row(), "b": row(verdict="review")}) == []


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({}, "a: no row"),
        ({"a": row(verdict="review")}, "a: verdict is review, expected pass"),
        ({"a": row(status="error")}, "a: status is error, expected ok"),
        ({"a": row(error_code="corrupt")}, "a: error_code is corrupt, expected None"),
        ({"a": row(kind="video")}, "a: kind is video, expected image"),
        ({"a": row(), "x": row()}, "x: a row for no item of the set"),
    ],
)
def test_what_is_not_as_the_set_says_is_told(rows: dict[str, dict[str, object]], told: str) -> None:
    assert find_surprises([GOOD], rows) == [told]


def test_a_copy_is_told_by_its_bytes_before_its_hash() -> None:
    rows = {"a": row(content_hash="1"), "b": row(content_hash="1")}
    assert find_copies([GOOD, FREE], rows) == {"b": "a, same bytes"}
    rows["b"] = row(pdq="f" + "0" * 63)
    assert find_copies([GOOD, FREE], rows) == {"b": "a, 4 bits"}
    rows["b"] = row(pdq="f" * 8 + "0" * 56)  # 32 bits
    assert find_copies([GOOD, FREE], rows) == {}


def test_a_hash_of_a_picture_with_nothing_in_it_is_not_compared() -> None:
    assert pdq_distance(row(), row(score_subject=0.1)) is None
    assert pdq_distance(row(), row(pdq=None)) is None
    assert pdq_distance(row(), row()) == 0


def test_jpegs_of_the_set_open_as_rgb(demo: DemoSet) -> None:
    content = next(iter(demo.items[0].files.values()))
    assert content is not None
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")

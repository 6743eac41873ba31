"""Tiles and wholes as frames: what each is, where it lies, how many, and that nothing happens unless asked for."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.media import decode_item
from moderation.media.tiles import cut_boxes
from moderation.types import U8, Item, Kind, Media, MediaObject, Role
from tests.drawn_media import encode
from tests.unit.media.test_seams import collage, cut, scene

ON = {"tiles": "auto", "wholes": "auto"}


def encoded(pixels: U8, format_: str = "PNG") -> bytes:
    return encode(Image.fromarray(np.ascontiguousarray(pixels)), format_)


def decode(*pictures: bytes, kind: Kind | None = None, **media: Any) -> Media:
    objects = tuple(MediaObject(uri=f"{k}.png", name=f"{k}.png") for k in range(len(pictures)))
    return decode_item(Item(item_id="i", uri="u", objects=objects, kind=kind), pictures, MediaConfig(**media))


def roles(media: Media) -> list[tuple[int, str, int | None]]:
    return [(f.index, str(f.role), f.parent) for f in media.frames]


def test_nothing_is_cut_unless_asked_for() -> None:
    assert roles(decode(encoded(collage(3, 3)))) == [(0, "frame", None)]
    nine = [encoded(p) for p in cut(scene(7, 300, 300), 3, 3)]
    assert roles(decode(*nine, kind=Kind.ALBUM)) == [(k, "frame", None) for k in range(9)]


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_tiles_of_a_grid_stand_behind_their_picture(format_: str) -> None:
    media = decode(encoded(collage(3, 3, 6), format_), tiles="grid")
    assert media.frames_total == 1 and (media.width, media.height) == (372, 372)
    assert roles(media) == [(0, "frame", None), *((k, "tile", 0) for k in range(1, 10))]
    middle = media.frames[5]
    assert middle.box == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3), abs=0.03)
    assert abs(int(middle.pixels[60, 60, 0]) - int(scene(4, 120, 120)[60, 60, 0])) < 40


def test_frame_of_a_tiled_picture_has_the_size_of_any_frame() -> None:
    picture = encoded(scene(3, 1400, 1000), "JPEG")
    plain, tiled = decode(picture), decode(picture, **ON)
    assert tiled.frames[0].pixels.shape == plain.frames[0].pixels.shape
    assert np.abs(tiled.frames[0].pixels.astype(int) - plain.frames[0].pixels).mean() < 2
    assert len(tiled.frames) == 1 + 4
    assert (tiled.frames[1].width, tiled.frames[1].height) == pytest.approx((757, 541), abs=2)


def test_small_detail_of_a_large_picture_is_larger_in_its_tile() -> None:
    pixels = np.full((1500, 1500, 3), 200, np.uint8)
    pixels[1400:1440, 1400:1440] = (255, 0, 0)

    def red(frame: U8) -> float:
        return float(((frame[..., 0] > 150) & (frame[..., 1] < 100)).mean())

    media = decode(encoded(pixels), **ON)
    assert len(media.frames) == 10
    assert red(media.frames[9].pixels) > 5 * red(media.frames[0].pixels) > 0


def test_tall_screenshot_is_cut_along_its_length_within_bounds() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3000, 300, 3), dtype=np.uint8)
    media = decode(encoded(pixels), tiles="auto", max_tiles=5)
    boxes = [f.box for f in media.frames if f.box]
    assert len(boxes) == 5
    assert boxes[0][1] == 0 and boxes[-1][3] == 1
    assert all(b[0] == 0 and b[2] == 1 for b in boxes)
    assert all(a[3] > b[1] for a, b in pairwise(boxes))


def test_boxes_cover_the_picture_and_only_where_that_shows_more() -> None:
    assert list(cut_boxes(800, 600, 448, 9)) == []
    assert len(list(cut_boxes(900, 900, 448, 9))) == 4
    assert len(list(cut_boxes(4000, 3000, 448, 9))) == 9
    assert len(list(cut_boxes(4000, 3000, 448, 5))) == 4
    assert len(list(cut_boxes(4000, 1000, 448, 9))) == 5
    assert list(cut_boxes(900, 900, 448, 3)) == []


@pytest.mark.parametrize(("count", "rows", "columns"), [(9, 3, 3), (4, 2, 2), (6, 2, 3)])
def test_cut_album_gets_its_whole(count: int, rows: int, columns: int) -> None:
    picture = scene(7, 360, 360)
    media = decode(*(encoded(p) for p in cut(picture, rows, columns)), kind=Kind.ALBUM, **ON)
    assert media.frames_total == count
    *members, whole = media.frames
    assert [str(f.role) for f in members] == ["frame"] * count
    assert (whole.index, whole.role, whole.parent) == (count, Role.WHOLE, None)
    assert sum(f.parent == count for f in members) >= count - 1
    assert (whole.width, whole.height) == (360, 360)
    assert np.abs(whole.pixels.astype(int) - picture).mean() < 2


def test_zoomed_pieces_are_put_together_too() -> None:
    pieces = [Image.fromarray(np.ascontiguousarray(p)).resize((300, 300)) for p in cut(scene(7, 300, 300), 3, 3)]
    media = decode(*(encode(p, "JPEG", quality=85) for p in pieces), kind=Kind.ALBUM, **ON)
    assert media.frames[-1].role is Role.WHOLE


def test_different_pictures_have_no_whole_and_no_parents() -> None:
    media = decode(*(encoded(scene(k)) for k in range(9)), kind=Kind.ALBUM, **ON)
    assert roles(media) == [(k, "frame", None) for k in range(9)]


def test_album_with_a_broken_picture_is_not_put_together() -> None:
    pieces = [encoded(p) for p in cut(scene(7, 300, 300), 3, 3)]
    media = decode(*pieces[:8], b"\x89PNG\r\n\x1a\nbroken", kind=Kind.ALBUM, **ON)
    assert media.error is not None
    assert all(f.role is Role.FRAME and f.parent is None for f in media.frames)


def test_tiles_in_an_album_are_numbered_on_and_bounded() -> None:
    pictures = [encoded(collage(3, 3, 6)), encoded(scene(1)), encoded(collage(2, 2, 6))]
    media = decode(*pictures, kind=Kind.ALBUM, **ON)
    indices = [f.index for f in media.frames]
    assert media.frames_total == 3 and indices == list(range(3 + 9 + 4))
    assert [f.parent for f in media.frames[3:]] == [0] * 9 + [2] * 4
    few = decode(*pictures, kind=Kind.ALBUM, max_frames=3, **ON)
    assert all(f.role is Role.FRAME for f in few.frames)


def test_animations_and_keyframes_have_no_tiles() -> None:
    sink = io.BytesIO()
    first, second = (Image.fromarray(collage(3, 3, 6, side=60 + k)) for k in (0, 1))
    first.save(sink, "WEBP", save_all=True, append_images=[second.resize(first.size)], lossless=True, duration=100)
    assert {f.role for f in decode(sink.getvalue(), **ON).frames} == {Role.FRAME}
    assert len(decode(encoded(collage(3, 3, 6)), kind=Kind.KEYFRAMES, **ON).frames) == 1

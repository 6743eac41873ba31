"""Backdrops beside tiles, in albums, keyframes and animations; and that the policy judges them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.media import decode_item
from moderation.policy.context import find_kinship, pool_in_context
from moderation.types import ErrorCode, Item, ItemVotes, Kind, Media, MediaObject, Role
from tests.drawn_media import draw, encode


def see_through(width: int = 80, height: int = 60) -> Image.Image:
    """All white, the picture in its alpha channel."""
    white = Image.new("RGBA", (width, height), "white")
    white.putalpha(draw(width, height).convert("L"))
    return white


CLEAR = encode(see_through(), "PNG")
OPAQUE = encode(draw(80, 60), "PNG")


def decode(payloads: list[bytes], kind: Kind | None = None, **limits: object) -> Media:
    objects = tuple(
        MediaObject(uri=f"{k}.png", name=f"{k}.png", frame=k * 30 if kind is Kind.KEYFRAMES else None)
        for k in range(len(payloads))
    )
    item = Item(item_id="a", uri="a", objects=objects, kind=kind)
    return decode_item(item, payloads, MediaConfig(**limits))  # type: ignore[arg-type]  # keywords of one test


def test_a_picture_in_the_alpha_channel_is_seen_over_black() -> None:
    white, black = decode([CLEAR]).frames
    assert white.pixels.min() == 255
    assert np.abs(black.pixels[..., 0].astype(int) - np.asarray(draw(80, 60).convert("L"))).max() <= 1


def test_an_album_numbers_backdrops_behind_all_its_frames() -> None:
    media = decode([CLEAR, OPAQUE, CLEAR], Kind.ALBUM)
    assert media.frames_total == 3
    assert [(f.index, f.role) for f in media.frames] == [
        (0, Role.FRAME),
        (1, Role.FRAME),
        (2, Role.FRAME),
        (3, Role.BACKDROP),
        (4, Role.BACKDROP),
    ]
    assert media.frames[3].pixels.std() > 20


def test_tiles_of_a_backdrop_have_it_as_their_parent_also_in_an_album() -> None:
    large = encode(see_through(1000, 900), "PNG")
    for media in (decode([large], tiles="auto"), decode([OPAQUE, large], Kind.ALBUM, tiles="auto")):
        assert len({f.index for f in media.frames}) == len(media.frames)
        (backdrop,) = [f for f in media.frames if f.role is Role.BACKDROP]
        tiles = [f for f in media.frames if f.role is Role.TILE]
        assert backdrop.pixels.shape[0] == 448
        assert backdrop.index >= media.frames_total
        assert len([t for t in tiles if t.parent == backdrop.index]) == 4
        assert len([t for t in tiles if t.parent == media.frames_total - 1]) == 4


def test_keyframes_keep_their_backdrops() -> None:
    media = decode([OPAQUE, CLEAR], Kind.KEYFRAMES)
    assert [(f.index, f.role) for f in media.frames] == [(0, Role.FRAME), (30, Role.FRAME), (31, Role.BACKDROP)]


def test_an_animation_has_a_backdrop_for_each_transparent_frame() -> None:
    pictures = [see_through(), Image.new("RGBA", (80, 60), "red")]
    data = encode(pictures[0], "PNG", save_all=True, append_images=pictures[1:], duration=100, blend=0)
    media = decode([data])
    assert (media.kind, media.frames_total) == (Kind.ANIMATION, 2)
    assert [(f.index, f.role) for f in media.frames] == [(0, Role.FRAME), (1, Role.FRAME), (2, Role.BACKDROP)]


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_named_as_a_keyframe_is_unsupported(format_: str) -> None:
    film = encode(draw(), format_, save_all=True, append_images=[draw(shift=1)])
    media = decode([OPAQUE, film], Kind.KEYFRAMES)
    assert media.error is ErrorCode.UNSUPPORTED_TYPE
    assert "an animation among keyframes" in media.error_detail


def test_a_second_picture_of_a_keyframe_is_unseen() -> None:
    two = encode(draw(), "JPEG") + encode(draw(shift=1), "JPEG")
    assert decode([OPAQUE, two], Kind.KEYFRAMES).unseen == ("picture",)


def test_an_album_says_what_was_not_seen_of_its_members() -> None:
    pictures = [Image.fromarray(np.random.default_rng(k).integers(0, 255, (30, 40, 3), np.uint8)) for k in range(60)]
    film = encode(pictures[0], "WEBP", save_all=True, append_images=pictures[1:], duration=50)
    assert decode([OPAQUE, film], Kind.ALBUM, max_frames=6).unseen == ("frames",)


def test_a_backdrop_is_judged_as_a_picture_of_its_own() -> None:
    votes = ItemVotes(
        labels=("a.x",),
        frames=(0, 1),
        times_s=(None, None),
        scores=np.array([[0.1], [0.9]], np.float32),
        roles=(Role.FRAME, Role.BACKDROP),
        parents=(None, None),
        boxes=(None, None),
    )
    kinship = find_kinship(votes)
    assert kinship is not None
    assert (kinship.roots, kinship.own, kinship.frames) == ((0, 1), (0,), (0,))
    assert pool_in_context([0.1, 0.9], kinship, max, 0.5) == (0.9, 0.9)

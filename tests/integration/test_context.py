"""Parts and wholes with the real networks: a portrait cut into nine, a collage, a tall screenshot, a small detail."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moderation.config.load import load_config
from moderation.config.model import Config
from moderation.pipeline.items import moderate_items
from moderation.pipeline.pools import make_pools
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy
from moderation.results.tables import ItemRow
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.types import Item, Kind, MediaObject, Role, Verdict
from tests.job_runs import SHARED

pytestmark = [pytest.mark.weights, pytest.mark.slow, pytest.mark.shared]

SETTINGS = ("media.tiles=auto", "media.wholes=auto", "stack.only=[open_nsfw,image_safety]", "stack.dtype=fp32")


@pytest.fixture(scope="module")
def loaded() -> tuple[Config, Stack]:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    config = load_config("default.yaml", SETTINGS)
    stack = build_stack(config)
    stack.load()
    return config, stack


def policy_of(stack: Stack, block: float, review: float) -> BoundPolicy:
    votes = ["image_safety.nsfw", "open_nsfw.nsfw"]
    check = {"side": "negative", "votes": votes, "fuse": "max", "block": block, "review": review}
    return bind(Policy.model_validate({"default": "pass", "checks": {"nsfw": check}}), stack.labels)


def moderate(loaded: tuple[Config, Stack], policy: BoundPolicy, *pictures: bytes) -> ItemRow:
    config, stack = loaded
    objects = tuple(MediaObject(uri=f"{k}.jpg", name=f"{k}.jpg") for k in range(len(pictures)))
    kind = Kind.ALBUM if len(pictures) > 1 else None
    item = Item(item_id="i", uri="u", objects=objects, kind=kind)
    (row,) = moderate_items(
        (item,), config=config, stack=stack, policy=policy, pools=make_pools(config, 1), fetch=lambda _: pictures
    )
    return row


def jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=90)
    return sink.getvalue()


def open_picture(name: str) -> Image.Image:
    path: Path = next(SHARED.rglob(name))
    return Image.open(path).convert("RGB")


def cut_into_nine(picture: Image.Image, zoom: int) -> list[bytes]:
    w, h = picture.width // 3, picture.height // 3
    boxes = [(c * w, r * h, (c + 1) * w, (r + 1) * h) for r in range(3) for c in range(3)]
    return [jpeg(picture.crop(box).resize((w * zoom, h * zoom), Image.Resampling.BICUBIC)) for box in boxes]


def test_portrait_cut_into_nine_zoomed_pieces_is_judged_by_its_whole(loaded: tuple[Config, Stack]) -> None:
    portrait = open_picture("person-b-1.jpg")
    # From the highest that any piece alone scores on: the piece is over `block`, the whole far below `review`.
    pieces = cut_into_nine(portrait, 2)
    first = moderate(loaded, policy_of(loaded[1], 1.0, 1.0), *pieces)
    assert first.votes is not None
    assert first.frames_total == first.frames_scored == 9
    scores = np.nanmax(first.votes.scores[:, [1, 3]], axis=1).tolist()
    whole = scores[first.votes.roles.index(Role.WHOLE)]
    parts = [s for s, p in zip(scores, first.votes.parents, strict=True) if p == 9]
    assert len(parts) >= 6 and max(parts) > whole
    between = (max(parts) + whole) / 2
    judged = moderate(loaded, policy_of(loaded[1], max(parts), between), *pieces).judgement
    assert judged is not None
    assert (judged.verdict, judged.reason) == (Verdict.REVIEW, "context:nsfw:review")


def test_bad_picture_cut_into_nine_is_found_by_the_whole(loaded: tuple[Config, Stack]) -> None:
    # The picture of the 200 that the networks like least; cut up, no piece of it says so.
    row = moderate(loaded, policy_of(loaded[1], 0.8, 0.5), *cut_into_nine(open_picture("*miniskirt*"), 2))
    assert row.votes is not None and row.judgement is not None
    assert Role.WHOLE in row.votes.roles
    assert row.judgement.reason == "negative:nsfw:block"
    assert row.judgement.evidence[0].frame == 9


def test_collage_of_nine_is_judged_tile_by_tile_and_does_not_block_by_one(loaded: tuple[Config, Stack]) -> None:
    names = sorted(p.name for p in (SHARED / "images").iterdir())[:60:7]
    pictures = [open_picture(name).resize((300, 300)) for name in names]
    pictures[4] = open_picture("*miniskirt*").resize((300, 300))
    collage = Image.new("RGB", (924, 924), (255, 255, 255))
    for k, picture in enumerate(pictures):
        collage.paste(picture, (k % 3 * 312, k // 3 * 312))
    row = moderate(loaded, policy_of(loaded[1], 0.8, 0.8), jpeg(collage))
    assert row.votes is not None and row.judgement is not None
    assert (row.frames_total, row.frames_scored, len(row.votes.frames)) == (1, 1, 10)
    worst = int(np.nanmax(row.votes.scores[:, [1, 3]], axis=1)[1:].argmax()) + 1
    assert worst == 5
    assert row.judgement.reason == "context:nsfw:review"
    assert row.judgement.evidence[0].box == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3), abs=0.03)


def test_detail_of_a_tall_screenshot_is_seen_in_its_tile(loaded: tuple[Config, Stack]) -> None:
    page = Image.new("RGB", (600, 4800), (250, 250, 250))
    page.paste(open_picture("*miniskirt*").resize((600, 600)), (0, 3600))
    row = moderate(loaded, policy_of(loaded[1], 0.8, 0.8), jpeg(page))
    assert row.votes is not None and row.judgement is not None
    assert row.frames_scored == 1 and len(row.votes.frames) > 4
    assert row.judgement.verdict is Verdict.REVIEW
    assert row.judgement.evidence[0].box is not None and row.judgement.evidence[0].box[1] > 0.6

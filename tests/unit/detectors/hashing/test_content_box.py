"""Bars around a picture are cut off: plain ones, with letters on them, blurred ones; others stay whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from moderation.detectors.hashing import pdq
from moderation.detectors.hashing.content_box import can_have_bars, find_content, may_have_bars
from moderation.types import F32, U8

CPU = torch.device("cpu")


def picture(seed: int = 3, height: int = 240, width: int = 320) -> U8:
    """Shapes with hard edges over a soft field, up to every side."""
    chance = np.random.default_rng(seed)
    field = chance.integers(30, 226, (12, 16, 3)).astype(np.uint8)
    drawn = np.array(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC))
    for _ in range(40):
        x, y = int(chance.integers(-20, width)), int(chance.integers(-20, height))
        drawn[max(0, y) : y + 40, max(0, x) : x + 50] = chance.integers(0, 256, 3)
    return drawn


def framed(inner: U8, left: int, top: int, right: int, bottom: int, colour: int) -> U8:
    return np.pad(inner, ((top, bottom), (left, right), (0, 0)), constant_values=colour)


def luma(frame: U8) -> F32:
    return np.asarray(Image.fromarray(frame).convert("L"), np.float32)


bars = st.integers(12, 80)


@settings(max_examples=10, deadline=None)
@given(left=bars, top=bars, right=bars, bottom=bars, colour=st.sampled_from([0, 18, 128, 255]), noise=st.integers(0, 2))
def test_plain_bars_are_cut_off(left: int, top: int, right: int, bottom: int, colour: int, noise: int) -> None:
    frame = framed(picture(), left, top, right, bottom, colour).astype(int)
    shaken = (frame + np.random.default_rng(1).integers(-noise, noise + 1, frame.shape)).clip(0, 255).astype(np.uint8)
    box = find_content(luma(shaken))
    assert box is not None
    assert np.abs(np.subtract(box, (left, top, left + 320, top + 240))).max() <= 2


def test_a_bar_with_letters_on_it_is_a_bar() -> None:
    frame = framed(picture(), 0, 50, 0, 0, 255)
    frame[15:35, 20:150:6] = 0
    assert find_content(luma(frame)) == (0, 50, 320, 290)


@pytest.mark.parametrize("upright", [False, True])
def test_blurred_bars_are_cut_off(upright: bool) -> None:
    inner = picture()
    back = np.array(
        Image.fromarray(inner).resize((480, 360)).crop((0, 60, 480, 300)).filter(ImageFilter.GaussianBlur(20))
    )
    back[:, 80:400] = inner
    frame = back.transpose(1, 0, 2) if upright else back
    assert find_content(luma(frame)) == ((0, 80, 240, 400) if upright else (80, 0, 400, 240))


def test_a_picture_without_bars_stays_whole() -> None:
    frame = picture()
    assert find_content(luma(frame)) is None
    # All of one colour: nothing would be left.
    assert find_content(np.full((200, 300), 80, np.float32)) is None


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_of_many_at_once_none_that_has_bars_is_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lumas = []
    for _ in range(6):
        high, wide = rng.integers(65, 200, 2)
        drawn = rng.normal(128, 40, (high, wide)).clip(0, 255).astype(np.float32)
        top, left = rng.integers(0, high // 3), rng.integers(0, wide // 3)
        drawn[:top], drawn[:, :left] = rng.integers(0, 256, 2)
        if rng.random() < 0.5:
            width = int(rng.integers(0, wide // 3))
            drawn[:, :width], drawn[:, wide - width :] = rng.normal(120, 0.3), rng.normal(120, 0.3)
        lumas.append(drawn)
    sides = np.array([drawn.shape for drawn in lumas])
    padded = rng.integers(0, 256, (len(lumas), *sides.max(axis=0))).astype(np.float32)
    for place, drawn in zip(padded, lumas, strict=True):
        place[: drawn.shape[0], : drawn.shape[1]] = drawn
    can = can_have_bars(torch.from_numpy(padded), *torch.from_numpy(sides).T).tolist()
    assert all(possible or find_content(drawn) is None for possible, drawn in zip(can, lumas, strict=True))
    noise = torch.from_numpy(rng.normal(128, 40, (1, 150, 180)).clip(0, 255).astype(np.float32))
    assert not can_have_bars(noise, torch.tensor([150]), torch.tensor([180])).any()


def test_frames_that_have_bars_get_the_closer_look() -> None:
    frames = [torch.from_numpy(f) for f in (framed(picture(), 0, 30, 0, 30, 0), picture())]
    assert may_have_bars(pdq.shrink(frames, CPU)).tolist() == [True, False]


def test_the_hash_within_bars_is_that_of_the_picture() -> None:
    frames = [framed(picture(), 60, 0, 60, 0, 0), picture()]
    small = pdq.shrink([torch.from_numpy(f) for f in frames], CPU)
    blobs = pdq.content_hashes(frames, small)
    assert blobs["inner"][1] is None
    assert blobs["inner"][0] is not None
    whole = pdq.pack(pdq.hash_bits(small))
    assert pdq.distance(blobs["inner"][0], whole[1]) <= 4 < 31 < pdq.distance(whole[0], whole[1])
    assert blobs["quarters"][0] is not None and blobs["edges"][0] is not None


def test_what_has_too_little_content_has_none_of_these_hashes() -> None:
    frames = [np.zeros((100, 100, 3), dtype=np.uint8)]
    blobs = pdq.content_hashes(frames, pdq.shrink([torch.from_numpy(f) for f in frames], CPU))
    assert {name: blobs[name] for name in ("inner", "quarters", "edges")} == {
        "inner": [None], "quarters": [None], "edges": [None]
    }  # fmt: skip

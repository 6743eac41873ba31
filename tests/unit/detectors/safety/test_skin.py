"""Skin by colour: detection on drawn patches, and the shape of regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moderation.detectors.safety.skin import Skin, describe_regions, find_skin, label_regions
from moderation.detectors.views import TensorFrames
from moderation.types import U8

TONES = [(215, 155, 120), (198, 134, 100), (141, 85, 60), (230, 160, 120)]


def score(*frames: U8) -> torch.Tensor:
    batch = TensorFrames(list(frames), [(f.shape[1], f.shape[0]) for f in frames], torch.device("cpu"))
    return Skin({}).score(batch, {}).scores


def plain(colour: tuple[int, int, int]) -> U8:
    return np.full((224, 224, 3), colour, np.uint8)


@pytest.mark.parametrize("tone", TONES)
def test_tones_from_pale_to_dark_are_skin(tone: tuple[int, int, int]) -> None:
    assert score(plain(tone))[0, :3].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("colour", [(128, 128, 128), (60, 140, 60), (70, 100, 200), (255, 255, 255), (0, 0, 0)])
def test_grey_grass_and_sky_are_not(colour: tuple[int, int, int]) -> None:
    assert score(plain(colour))[0].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_rough_texture_of_that_colour_is_not() -> None:
    noise = np.random.default_rng(0).normal(0, 100, (56, 56, 1)).repeat(4, axis=0).repeat(4, axis=1)
    rough = (plain(TONES[1]) + noise).clip(0, 255).astype(np.uint8)
    assert score(rough)[0, 0] < 0.2


def test_share_and_regions_of_two_patches() -> None:
    pixels = plain((70, 100, 200))
    pixels[20:100, 20:100] = TONES[0]
    pixels[140:180, 140:200] = TONES[0]
    share, largest, fill, regions = score(pixels)[0].tolist()
    assert regions == 2
    assert share == pytest.approx((0.80 * 0.80 + 0.40 * 0.60) / 2.24**2 * 1.0, abs=0.05)
    assert largest < share and fill > 0.8


def test_regions_are_told_apart_whatever_their_shape() -> None:
    mask = torch.zeros((2, 12, 12), dtype=torch.bool)
    mask[0, 0] = mask[0, :, 11] = mask[0, 11] = mask[0, 2:, 0] = True  # one bent line that does not touch its start
    mask[0, 5:7, 5:7] = True
    mask[1, ::2, ::2] = True
    names = label_regions(mask)
    assert len(names[0].unique()) == 3  # outside and two
    assert len(names[1].unique()) == 37
    assert not names[~mask].any()


def test_spiral_is_one_region() -> None:
    mask = torch.zeros((1, 21, 21), dtype=torch.bool)
    top, left, bottom, right = 0, 0, 20, 20
    while top < bottom and left < right:
        mask[0, top, max(0, left - 2) : right + 1] = mask[0, top : bottom + 1, right] = True
        mask[0, bottom, left : right + 1] = mask[0, top + 2 : bottom + 1, left] = True
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    assert len(label_regions(mask).unique()) == 2


def test_nothing_found_is_nought_not_null() -> None:
    assert describe_regions(torch.zeros((1, 8, 8), dtype=torch.bool)).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert not find_skin(torch.zeros((1, 3, 8, 8))).any()

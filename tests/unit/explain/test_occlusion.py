"""Covering parts of frames, and what that does to a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from moderation.config.explain import ExplainConfig
from moderation.config.model import Config
from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View
from moderation.detectors.views import TensorFrames
from moderation.explain.covering import COVERS, CoveredFrames, CoveredVariant
from moderation.explain.maps import overlap, responsible_box
from moderation.explain.occlusion import occlude, score_variants
from moderation.explain.vote_stack import VoteStack
from moderation.explain.windows import Place
from moderation.scoring.slots import Slot
from moderation.scoring.stack import Stack
from moderation.types import U8, Frame

RED = (220, 30, 30)
VIEW = View(mode="squash", resize=64, crop=64)
# The local mean of a red patch is red: what tells by colour alone is covered by grey.
COARSE = ExplainConfig(window_px=16, stride_px=8, cover="grey")


def with_patch(place: Place, size: tuple[int, int] = (240, 240), seed: int = 0) -> Frame:
    """Grey noise with a red patch."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(90, 150, (height, width, 1)).repeat(3, axis=2).astype(np.uint8)
    x0, y0, x1, y1 = (round(p * side) for p, side in zip(place, (width, height, width, height), strict=True))
    pixels[y0:y1, x0:x1] = RED
    return Frame(index=0, pixels=pixels, width=width, height=height)


class RedShare(DetectorDefaults):
    """The share of the view that is red."""

    name = "red"
    version = "1"
    labels: Sequence[str] = ("share",)
    view = VIEW
    cost_ms = 0.1

    def __init__(self) -> None:
        self.batches: list[int] = []

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Nothing to load."""

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        self.batches.append(len(batch))
        pixels = batch.view(self.view)
        red = (pixels[:, 0] > 150) & (pixels[:, 1] < 80)
        return Scored(scores=red.float().mean(dim=(1, 2))[:, None])


@pytest.fixture
def red() -> VoteStack:
    detector = RedShare()
    slot = Slot(detector=detector, condition=None, columns=slice(0, 1), weights=())
    return VoteStack(title="red", stack=Stack([slot], Config()), view=VIEW)


def frames_of(*pixels: U8) -> TensorFrames:
    return TensorFrames(list(pixels), [(p.shape[1], p.shape[0]) for p in pixels], torch.device("cpu"))


@pytest.mark.parametrize("cover", COVERS)
def test_covering_changes_what_is_inside_and_alone_keeps_just_that(cover: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    place = (0.25, 0.5, 0.5, 0.75)
    variants = [CoveredVariant(row=0, places=(place,)), CoveredVariant(row=0, places=(place,), alone=True)]
    batch = CoveredFrames(frames_of(pixels), variants, cover, 0.25)
    whole = frames_of(pixels).view(VIEW)[0]
    covered, alone = batch.view(VIEW)
    inside = torch.zeros((64, 64), dtype=torch.bool)
    inside[32:48, 16:32] = True
    assert torch.equal(covered[:, ~inside], whole[:, ~inside])
    assert torch.equal(alone[:, inside], whole[:, inside])
    assert (covered[:, inside] != whole[:, inside]).float().mean() > 0.9
    assert (alone[:, ~inside] != whole[:, ~inside]).float().mean() > 0.9


def test_a_detector_that_reads_the_canvas_gets_it_covered_at_the_same_place() -> None:
    pixels = np.full((64, 64, 3), 200, np.uint8)
    variant = CoveredVariant(row=0, places=((0.25, 0.5, 0.5, 0.75),))
    batch = CoveredFrames(frames_of(pixels), [variant], "black", 0.25)
    canvas, view = batch.frames_HWC[0], batch.view(VIEW)[0].permute(1, 2, 0)
    assert torch.equal(canvas.float(), view)
    assert batch.sizes == [(64, 64)]
    assert torch.equal(batch.select([0]).frames_HWC[0], canvas)


@pytest.mark.parametrize("place", [(0.1, 0.1, 0.45, 0.5), (0.5, 0.4, 0.95, 0.9)], ids=["upper left", "lower right"])
def test_the_box_is_where_the_score_comes_from(red: VoteStack, place: Place) -> None:
    frame = with_patch(place)
    column = red.column("share")
    (occluded,) = occlude(red.stack, column, red.view, [frame], COARSE)
    assert occluded.score > 0.05
    assert 0 < occluded.largest_drop <= occluded.score + 1e-6
    box = responsible_box(occluded.drop)
    assert box is not None and overlap(box, place) >= 0.3
    alone = responsible_box(occluded.alone)
    assert alone is not None and overlap(alone, place) >= 0.3


def test_where_a_low_score_decided_the_box_is_of_what_lowers_it(red: VoteStack) -> None:
    place = (0.1, 0.1, 0.4, 0.4)
    pixels = np.full((240, 240, 3), RED, np.uint8)
    pixels[24:96, 24:96] = np.random.default_rng(0).integers(0, 255, (72, 72, 1))
    frame = Frame(index=0, pixels=pixels, width=240, height=240)
    config = COARSE.model_copy(update={"cover": "picture_mean"})
    (occluded,) = occlude(red.stack, red.column("share"), red.view, [frame], config, sign=-1.0)
    box = responsible_box(occluded.drop)
    assert box is not None and overlap(box, place) >= 0.3


def test_pictures_of_several_sizes_in_one_batch_score_as_each_alone(red: VoteStack) -> None:
    frames = [with_patch((0.1, 0.1, 0.5, 0.5)), with_patch((0.4, 0.2, 0.8, 0.9), (300, 180), seed=1)]
    column = red.column("share")
    together = occlude(red.stack, column, red.view, frames, COARSE)
    for frame, one in zip(frames, together, strict=True):
        (single,) = occlude(red.stack, column, red.view, [frame], COARSE)
        np.testing.assert_allclose(one.drop, single.drop, atol=0.02)
        assert one.score == single.score


def test_batches_are_bounded_by_the_stack(red: VoteStack) -> None:
    frame = with_patch((0.1, 0.1, 0.5, 0.5))
    occlude(red.stack, red.column("share"), red.view, [frame, frame], COARSE)
    detector = red.detector
    assert isinstance(detector, RedShare)
    assert set(detector.batches[:-1]) == {red.stack.batch_size} and detector.batches[-1] <= red.stack.batch_size


def test_no_variant_is_scored_for_no_frame(red: VoteStack) -> None:
    assert occlude(red.stack, 0, red.view, [], COARSE) == []
    assert score_variants(red.stack, frames_of(), [], "grey", 0.3).shape == (0, len(red.stack.labels))

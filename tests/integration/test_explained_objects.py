"""Explanations of real scores: the box lies on the object, and the map tells of these weights and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from moderation.config.explain import ExplainConfig
from moderation.explain.deletion import deletion_curve, order_of_map, random_order
from moderation.explain.gradients import attribute, rank_correlation
from moderation.explain.maps import Map, overlap, responsible_box
from moderation.explain.occlusion import occlude
from moderation.explain.vote_stack import VoteStack, load_vote_stack
from tests.job_runs import SHARED
from tests.pasted_objects import PastedObject, draw_objects, object_config, randomise

pytestmark = [
    pytest.mark.long,
    pytest.mark.weights,
    pytest.mark.shared,
    pytest.mark.skipif(not (SHARED / "images").is_dir(), reason="../shared/data is not there"),
]
PICTURES = SHARED / "images"
# Coarser than the default, for time: 25 windows instead of 121.
COARSE = ExplainConfig(stride_px=40)
CASES = 50
MIN_OVERLAP, MIN_SHARE = 0.3, 0.9


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """A second one, on a machine that does other things, is waited for many times over."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def votes() -> VoteStack:
    return load_vote_stack(object_config(PICTURES, device="cpu"), "imagenet")


@pytest.fixture(scope="module")
def exact() -> VoteStack:
    return load_vote_stack(object_config(PICTURES, device="cpu"), "imagenet", exact=True)


@pytest.fixture(scope="module")
def cases(votes: VoteStack) -> list[PastedObject]:
    return draw_objects(PICTURES, votes, CASES, seed=3)


def occlusion_maps(votes: VoteStack, cases: list[PastedObject]) -> list[Map]:
    return [occlude(votes.stack, votes.column(case.label), votes.view, [case.frame], COARSE)[0].drop for case in cases]


def gradient_maps(votes: VoteStack, cases: list[PastedObject]) -> list[Map]:
    return [attribute(votes, votes.column(case.label), [case.frame], "gradcam")[0] for case in cases]


def share_on_the_object(maps: list[Map], cases: list[PastedObject]) -> float:
    boxes = [responsible_box(values) for values in maps]
    hits = [box is not None and overlap(box, case.place) >= MIN_OVERLAP for box, case in zip(boxes, cases, strict=True)]
    return float(np.mean(hits))


def test_occlusion_boxes_the_pasted_object(votes: VoteStack, cases: list[PastedObject]) -> None:
    assert share_on_the_object(occlusion_maps(votes, cases), cases) >= MIN_SHARE


def test_gradients_box_the_pasted_object(exact: VoteStack, cases: list[PastedObject]) -> None:
    assert share_on_the_object(gradient_maps(exact, cases), cases) >= MIN_SHARE


def test_covering_what_a_map_names_lowers_the_score_faster_than_chance(
    votes: VoteStack, exact: VoteStack, cases: list[PastedObject]
) -> None:
    some = cases[:5]
    rng = np.random.default_rng(0)
    for maps in (occlusion_maps(votes, some), gradient_maps(exact, some)):
        areas = [[], []]
        for values, case in zip(maps, some, strict=True):
            column = votes.column(case.label)
            for own, order in zip(areas, (order_of_map(values), random_order(rng)), strict=True):
                own.append(float(deletion_curve(votes, column, case.frame, order, COARSE).mean()))
        assert np.mean(areas[0]) < 0.8 * np.mean(areas[1])


def test_with_random_weights_the_maps_are_others(cases: list[PastedObject], tmp_path: Path) -> None:
    some = cases[:3]
    for exact_, maps_of in ((False, occlusion_maps), (True, gradient_maps)):
        loaded = load_vote_stack(object_config(PICTURES, device="cpu", dtype="fp32"), "imagenet", exact=exact_)
        before = maps_of(loaded, some)
        loaded.detector.unpack()
        randomise(loaded, seed=4)
        alike = [rank_correlation(*pair) for pair in zip(before, maps_of(loaded, some), strict=True)]
        assert abs(float(np.mean(alike))) < 0.3, alike

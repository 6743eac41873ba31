"""The part of a stack that casts one vote."""

from __future__ import annotations

import pytest

from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.explain.vote_stack import _needed, load_vote_stack

DETECTORS = [
    {"name": "quality"},
    {"name": "open_nsfw"},
    {"name": "image_safety"},
    {
        "name": "imagenet",
        "options": {"concepts": {"swimwear": ["bikini"], "underwear": ["brassiere"], "worn": ["suit"]}},
    },
    {"name": "classes"},
    {"name": "skin", "when": "open_nsfw.nsfw >= 0.1"},
    {"name": "faces"},
]


def config(**stack: object) -> Config:
    return Config.model_validate({"stack": {"detectors": DETECTORS, "device": "cpu", **stack}})


def test_a_vote_needs_what_its_detector_reads_and_nothing_that_comes_after_it() -> None:
    # `classes` reads `faces` where the stack has it before it: here it comes later.
    assert _needed(config(), "classes") == {"classes", "open_nsfw", "image_safety", "imagenet"}
    assert _needed(config(), "quality") == {"quality"}


def test_a_detector_behind_a_condition_is_asked_without_it() -> None:
    votes = load_vote_stack(config(), "skin")
    assert votes.stack.gated == () and [slot.detector.name for slot in votes.stack.slots] == ["skin"]
    assert votes.column("share") == 0
    with pytest.raises(UsageError, match=r"did you mean 'skin\.share'"):
        votes.column("shere")


def test_a_detector_that_the_run_lacks_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'open_nsfw'"):
        load_vote_stack(config(), "open_nsfv")

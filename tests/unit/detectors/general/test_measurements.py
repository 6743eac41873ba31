"""quality and pdq: pictures whose values are known, and the reference of PDQ on real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moderation.detectors.general.quality import QualityDetector
from moderation.detectors.hashing import pdq
from moderation.detectors.hashing.pdq import Pdq
from moderation.detectors.views import TensorFrames
from moderation.types import U8

CPU = torch.device("cpu")
IMAGES = Path(__file__).resolve().parents[4].parent / "shared" / "data" / "images"


def measure(*frames: U8, sizes: list[tuple[int, int]] | None = None) -> list[dict[str, float]]:
    detector = QualityDetector({})
    batch = TensorFrames(frames, sizes or [(f.shape[1], f.shape[0]) for f in frames], CPU)
    return [dict(zip(QualityDetector.labels, row, strict=True)) for row in detector.score(batch, {}).scores.tolist()]


def hash_of(*frames: U8) -> tuple[list[float], list[bytes]]:
    scored = Pdq({}).score(TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU), {})
    return scored.scores[:, 0].tolist(), [h for h in scored.blobs["hash"] if h is not None]


def grey(level: int, width: int = 256, height: int = 256) -> U8:
    return np.full((height, width, 3), level, dtype=np.uint8)


def photograph(seed: int, width: int = 300, height: int = 200) -> U8:
    small = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def test_one_grey_has_a_brightness_and_nothing_else() -> None:
    (found,) = measure(grey(51))
    assert found["brightness"] == pytest.approx(0.2)
    assert found["sharpness"] == found["contrast"] == found["entropy"] == 0


def test_half_black_half_white_has_the_highest_contrast_and_one_bit() -> None:
    frame = grey(0)
    frame[:, 128:] = 255
    (found,) = measure(frame)
    assert found["contrast"] == pytest.approx(0.5)
    assert found["entropy"] == pytest.approx(1.0)
    assert found["brightness"] == pytest.approx(0.5)


def test_a_chessboard_of_pixels_is_as_sharp_as_can_be() -> None:
    frame = grey(0)
    frame[::2, ::2] = frame[1::2, 1::2] = 255
    assert measure(frame)[0]["sharpness"] == pytest.approx((4 * 255) ** 2, rel=1e-5)


def test_blurring_lowers_sharpness_and_leaves_brightness() -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    soft = np.array(Image.fromarray(sharp).reduce(2).resize((256, 256), Image.Resampling.BICUBIC))
    before, after = measure(sharp, soft)
    assert after["sharpness"] < before["sharpness"] / 4
    assert after["brightness"] == pytest.approx(before["brightness"], abs=0.01)


def test_green_is_brighter_than_blue() -> None:
    green, blue = grey(0), grey(0)
    green[..., 1] = blue[..., 2] = 255
    assert [m["brightness"] for m in measure(green, blue)] == pytest.approx([150 / 255, 29 / 255])


def test_megapixels_are_of_the_stored_picture_not_of_the_canvas() -> None:
    assert measure(grey(9), sizes=[(4000, 3000)])[0]["megapixels"] == pytest.approx(12.0)


def test_a_scaled_copy_has_nearly_the_same_hash_and_another_picture_has_not() -> None:
    frame = photograph(1)
    copy = np.array(Image.fromarray(frame).resize((450, 300), Image.Resampling.BILINEAR))
    _, (first, scaled, other) = hash_of(frame, copy, photograph(2))
    assert pdq.distance(first, scaled) <= 31  # what Meta's advice calls a near copy
    assert pdq.distance(first, other) > 90


def test_a_plain_picture_has_no_quality_and_a_busy_one_all() -> None:
    busy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (plain, full), _ = hash_of(grey(128), busy)
    assert plain == 0
    assert full == 1


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (129, 65), (500, 375), (30, 900), (1, 1)])
def test_half_the_bits_at_most_are_set_and_pixels_decide_them_all_as_the_reference(size: tuple[int, int]) -> None:
    reference = pytest.importorskip("pdqhash")
    frame = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    bits, quality = reference.compute(frame)
    (found,), (hashed,) = hash_of(frame)
    assert found * 100 == pytest.approx(quality)
    if min(size) > 1:  # of one pixel every frequency is 0 but for rounding
        assert pdq.distance(hashed, np.packbits(bits).tobytes()) <= 2
    assert int.from_bytes(hashed).bit_count() <= 128


@pytest.mark.shared
@pytest.mark.skipif(not IMAGES.is_dir(), reason="no ../shared/data/images beside the repository")
def test_photographs_hash_as_with_the_reference() -> None:
    reference = pytest.importorskip("pdqhash")
    frames = []
    for path in sorted(IMAGES.glob("*.JPEG"))[::4]:
        with Image.open(path) as image:
            frames.append(np.array(image.convert("RGB")))
    assert len(frames) == 50
    expected = [reference.compute(frame) for frame in frames]
    qualities, hashes = hash_of(*frames)
    distances = [pdq.distance(h, np.packbits(bits).tobytes()) for h, (bits, _) in zip(hashes, expected, strict=True)]
    assert max(distances) <= 2
    assert qualities == pytest.approx([quality / 100 for _, quality in expected])

"""Copies of the 200 photographs find their originals, and no two photographs find each other."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from moderation.analysis.duplicates import Nearness, group_pictures
from moderation.analysis.pictures import Pictures
from moderation.config.model import DetectorConfig
from moderation.detectors import registry
from moderation.detectors.base import Detector, Scored
from moderation.detectors.hashing.pdq import Pdq
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights import locator as weights
from moderation.hashes.search import HASH_BYTES
from tests.job_runs import SHARED

CPU = torch.device("cpu")
BATCH = 20
LEAST_GROUPED = 0.95
Alter = Callable[[Image.Image], Image.Image]

pytestmark = [
    pytest.mark.shared,
    pytest.mark.weights,
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "images").is_dir(), reason="no ../shared/data/images beside the repository"),
]


def encoded(picture: Image.Image, quality: int = 85) -> Image.Image:
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=quality)
    return Image.open(io.BytesIO(sink.getvalue())).convert("RGB")


def scaled(picture: Image.Image, by: float) -> Image.Image:
    return encoded(picture.resize((round(picture.width * by), round(picture.height * by))))


def cropped(picture: Image.Image, share: float) -> Image.Image:
    x, y = int(picture.width * share / 2), int(picture.height * share / 2)
    return encoded(picture.crop((x, y, picture.width - x, picture.height - y)))


def cut_at_one_side(picture: Image.Image, share: float) -> Image.Image:
    return encoded(picture.crop((int(picture.width * share), 0, picture.width, picture.height)))


def captioned(picture: Image.Image, band: bool) -> Image.Image:
    """Words over the lower part, perhaps on a black band of an eighth of the picture."""
    copy = picture.copy()
    drawing, (width, height) = ImageDraw.Draw(copy), copy.size
    if band:
        drawing.rectangle((0, int(height * 0.88), width, height), fill="black")
    font = ImageFont.load_default(size=max(12, height // 14))
    place = (width // 2, int(height * 0.94))
    drawing.text(place, "when you see it", font=font, fill="white", stroke_width=2, stroke_fill="black", anchor="mm")
    return encoded(copy)


ALTERED: dict[str, Alter] = {
    "re-encoded": lambda p: encoded(p, 50),
    "half the size": lambda p: scaled(p, 0.5),
    "larger": lambda p: scaled(p, 1.5),
    "2% cropped": lambda p: cropped(p, 0.02),
    "5% cropped": lambda p: cropped(p, 0.05),
    "5% off one side": lambda p: cut_at_one_side(p, 0.05),
    "captioned": lambda p: captioned(p, band=False),
    "captioned on a band": lambda p: captioned(p, band=True),
}


def load(name: str) -> Detector:
    config = DetectorConfig(name=name)
    detector = registry.build(config)
    detector.load(CPU, torch.float32, [str(weights.resolve(w)) for w in registry.weights_of(detector, config)])
    return detector


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """The photographs, then each alteration of all of them."""
    files = sorted((SHARED / "images").glob("*.JPEG"))
    imagenet, hashes, inner, quality, vectors, pixels = load("imagenet"), [], [], [], [], []
    for alter in (lambda p: p, *ALTERED.values()):
        for start in range(0, len(files), BATCH):
            frames = []
            for path in files[start : start + BATCH]:
                with Image.open(path) as picture:
                    frames.append(np.array(alter(picture.convert("RGB"))))
            batch = TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU)
            with torch.inference_mode():
                hashed: Scored = Pdq({}).score(batch, {})
                embedding = imagenet.score(batch, {}).embedding
            assert embedding is not None
            hashes += [h or b"" for h in hashed.blobs["hash"]]
            inner += [h or bytes(HASH_BYTES) for h in hashed.blobs["inner"]]
            quality += (hashed.scores[:, 0] * 100).round().int().tolist()
            vectors.append(embedding.half().numpy())
            pixels += [f.shape[0] * f.shape[1] for f in frames]
    count = len(hashes)
    none = pa.array([None] * count, pa.string()).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.string()))
    ids = pa.array([f"{i:05d}" for i in range(count)], pa.large_string())
    return Pictures(
        items=pa.table({"item_id": ids, "run_out": none, "verdict": pa.array(["pass"] * count).dictionary_encode()}),
        pixels=np.array(pixels, np.int64),
        size_bytes=np.zeros(count, np.int64),
        content=np.random.default_rng(0).integers(1, 2**63, (count, 2)).astype(np.uint64),
        hashes=np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES),
        inner=np.frombuffer(b"".join(inner), np.uint8).reshape(-1, HASH_BYTES),
        quality=np.array(quality, np.int16),
        embeddings=np.concatenate(vectors),
    )


def grouped(pictures: Pictures, nearness: Nearness, alteration: str) -> float:
    """Share of copies in the group of their original, of the photographs and their copies of one kind alone.

    No two photographs, nor copies of two, may be in one group.
    """
    count = len(pictures) // (len(ALTERED) + 1)
    place = list(ALTERED).index(alteration) + 1
    rows = np.concatenate([np.arange(count), np.arange(count) + place * count])
    assert pictures.embeddings is not None
    chosen = Pictures(
        items=pictures.items.take(pa.array(rows)),
        pixels=pictures.pixels[rows],
        size_bytes=pictures.size_bytes[rows],
        content=pictures.content[rows],
        hashes=pictures.hashes[rows],
        inner=pictures.inner[rows],
        quality=pictures.quality[rows],
        embeddings=pictures.embeddings[rows] if nearness.embedding else None,
    )
    head = group_pictures(chosen, nearness).head
    assert (head % count == np.arange(len(head)) % count).all(), "two photographs in one group"
    return float((head[:count] == head[count:]).mean())


@pytest.mark.parametrize("alteration", ALTERED)
def test_copies_are_grouped_with_their_original_by_hash_and_embedding(pictures: Pictures, alteration: str) -> None:
    share = grouped(pictures, Nearness(embedding="imagenet"), alteration)
    assert share >= LEAST_GROUPED


@pytest.mark.parametrize("alteration", ["re-encoded", "half the size", "larger", "2% cropped"])
def test_the_hash_alone_finds_what_was_not_cut_much(pictures: Pictures, alteration: str) -> None:
    assert grouped(pictures, Nearness(), alteration) >= LEAST_GROUPED


def test_all_copies_together_join_no_two_photographs(pictures: Pictures) -> None:
    count = len(pictures) // (len(ALTERED) + 1)
    head = group_pictures(pictures, Nearness(embedding="imagenet")).head
    of_original = np.arange(len(head)) % count
    assert (of_original[head] == of_original).all()
    together = np.mean([(head[of_original == i] == head[i]).mean() for i in range(count)])
    assert together >= LEAST_GROUPED
    # The largest picture is the head.
    assert (pictures.pixels[head] >= pictures.pixels).all()

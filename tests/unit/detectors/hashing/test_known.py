"""known: listed pictures, also mirrored, rotated and as a part of a picture; and when the scores are null."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from moderation.detectors.hashing.known import KnownDetector
from moderation.detectors.hashing.pdq import Pdq
from moderation.detectors.views import TensorFrames
from moderation.errors import UsageError
from moderation.hashes.lists import KnownPicture as Listed
from moderation.hashes.lists import encode_list
from moderation.types import U8, Region

CPU = torch.device("cpu")


def photograph(seed: int, width: int = 320, height: int = 240) -> U8:
    # Detail up to the hashed frequencies: without it half of the bits would be noise.
    small = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def batch_of(frames: Sequence[U8]) -> TensorFrames:
    return TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU)


def hashes_of(*frames: U8) -> list[bytes]:
    return [h for h in Pdq({}).score(batch_of(frames), {}).blobs["hash"] if h is not None]


def detector(folder: Path, listed: Sequence[Listed], **options: Any) -> KnownDetector:
    path = folder / "known.arrow"
    path.write_bytes(encode_list(listed)[0])
    found = KnownDetector(options)
    found.load(CPU, torch.float32, [str(path)])
    return found


def ask(known: KnownDetector, *frames: U8) -> tuple[list[dict[str, float]], list[Sequence[Region]]]:
    batch = batch_of(frames)
    scored = known.score(batch, {"pdq": Pdq({}).score(batch, {})})
    assert scored.regions is not None
    return [dict(zip(known.labels, row, strict=True)) for row in scored.scores.tolist()], list(scored.regions)


@pytest.fixture
def listed() -> list[Listed]:
    return [Listed(hash=h, label=f"picture {i}") for i, h in enumerate(hashes_of(photograph(1), photograph(2)))]


@pytest.mark.parametrize("dihedral", [False, True])
def test_a_listed_picture_matches_and_another_does_not(tmp_path: Path, listed: list[Listed], dihedral: bool) -> None:
    known = detector(tmp_path, listed, dihedral=dihedral)
    (hit, miss), regions = ask(known, photograph(2), photograph(3))
    assert hit == {"match": 1.0, "similarity": 1.0, "distance": 0.0}
    assert miss["match"] == miss["similarity"] == 0.0
    assert np.isnan(miss["distance"])
    assert [(r.label, r.score) for r in regions[0]] == [("match", 1.0), ("picture 1", 1.0)]
    assert (regions[0][0].x0, regions[0][0].y1) == (0.0, 1.0)
    assert not regions[1]


def test_similarity_says_how_near(tmp_path: Path, listed: list[Listed]) -> None:
    turned = bytes([listed[0].hash[0] ^ 0xFF, *listed[0].hash[1:]])
    (hit,), _ = ask(detector(tmp_path, [Listed(hash=turned, label="x")], dihedral=False), photograph(1))
    assert hit == {"match": 1.0, "similarity": 1 - 8 / 256, "distance": 8.0}
    (miss,), _ = ask(detector(tmp_path, [Listed(hash=turned, label="x")], dihedral=False, distance=7), photograph(1))
    assert miss["match"] == 0.0


TURNS = {
    "mirrored": lambda a: a[:, ::-1],
    "upside down": lambda a: a[::-1],
    "half turn": lambda a: a[::-1, ::-1],
    "quarter turn": lambda a: np.rot90(a),
    "three quarters": lambda a: np.rot90(a, 3),
    "transposed": lambda a: a.transpose(1, 0, 2),
    "transposed across": lambda a: np.rot90(a, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_mirrored_or_turned_copy_is_found_only_with_dihedral(tmp_path: Path, listed: list[Listed], turn: str) -> None:
    copy = np.ascontiguousarray(TURNS[turn](photograph(1)))
    (hit,), _ = ask(detector(tmp_path, listed, dihedral=True), copy)
    (miss,), _ = ask(detector(tmp_path, listed, dihedral=False), copy)
    assert (hit["match"], miss["match"]) == (1.0, 0.0)
    assert hit["distance"] <= 2  # bits decided by rounding


@pytest.mark.parametrize("cut", [2, 3])
def test_a_picture_in_a_collage_is_found_where_it_is(tmp_path: Path, listed: list[Listed], cut: int) -> None:
    cells = [[photograph(10 + y * cut + x) for x in range(cut)] for y in range(cut)]
    cells[1][0] = photograph(1)
    collage = np.concatenate([np.concatenate(row, axis=1) for row in cells], axis=0)
    (whole,), _ = ask(detector(tmp_path, listed), collage)
    (hit,), regions = ask(detector(tmp_path, listed, tiles=[1, 2, 3]), collage)
    assert (whole["match"], hit["match"]) == (0.0, 1.0)
    box = regions[0][0]
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx((0, 1 / cut, 1 / cut, 2 / cut), abs=0.01)
    assert regions[0][1].label == "picture 0"


@pytest.mark.parametrize("options", [{}, {"dihedral": False}, {"tiles": [1, 2, 3]}])
def test_a_plain_picture_is_not_asked(tmp_path: Path, listed: list[Listed], options: dict[str, Any]) -> None:
    plain = np.full((240, 320, 3), 9, np.uint8)
    black = [*listed, *(Listed(hash=h, label="black") for h in hashes_of(plain))]
    rows, regions = ask(detector(tmp_path, black, **options), plain, photograph(1))
    assert all(np.isnan(v) for v in rows[0].values())
    assert not regions[0]
    assert rows[1]["match"] == 1.0


def test_small_pictures_are_not_cut(tmp_path: Path, listed: list[Listed]) -> None:
    (found,), _ = ask(detector(tmp_path, listed, tiles=[2], quality=0), photograph(1, 100, 100))
    assert np.isnan(found["match"])  # its halves have 50 pixels
    (whole,), _ = ask(detector(tmp_path, listed, tiles=[1, 2], quality=0), photograph(5, 5, 3))
    assert whole["match"] == 0.0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"distance": 48}, "0 to 47"),
        ({"quality": 101}, "0 to 100"),
        ({"tiles": []}, r"\[1, 2, 3\]"),
        ({"tiles": [0]}, "1 to 8"),
        ({"tiles": [True]}, "1 to 8"),
        ({"tiles": 2}, "must be list"),
        ({"list": "known.arrow"}, "go together"),
        ({"lists": "a"}, "did you mean 'list'"),
        ({"dihedral": 1}, "must be bool"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        KnownDetector(options)


def test_the_list_is_named_as_weights_are() -> None:
    (named,) = KnownDetector({"list": "lists/known.arrow", "sha256": "0" * 64}).weights
    assert named.locator == f"file://{Path('lists/known.arrow').absolute()}"
    (remote,) = KnownDetector({"list": "s3://bucket/known.arrow", "sha256": "0" * 64}).weights
    assert remote.locator == "s3://bucket/known.arrow"
    assert not KnownDetector({}).weights[0].locator  # for the configuration to fill


def test_a_listed_picture_within_bars_matches(tmp_path: Path, listed: list[Listed]) -> None:
    framed = np.pad(photograph(1), ((0, 0), (90, 90), (0, 0)))
    (hit, miss), _ = ask(detector(tmp_path, listed, dihedral=False), framed, photograph(3))
    assert hit["match"] == 1.0 and miss["match"] == 0.0

"""nudity: the table of meanings, suppression, and parity with the package; none of it needs an explicit picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moderation.detectors.safety.nudity import DEFAULT_MEANING, PARTS, Nudity, keep_best
from moderation.detectors.safety.nudity_network import CLASSES
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError

CPU = torch.device("cpu")
SHARED = Path(__file__).resolve().parents[4].parent / "shared" / "data"


def found(*boxes: tuple[float, float, float, float, str, float]) -> torch.Tensor:
    """float32 [1,22,N] in the network's format: centre x, y, width, height, then one score per class."""
    out = torch.zeros((1, 4 + CLASSES, len(boxes)))
    for i, (x, y, w, h, part, score) in enumerate(boxes):
        out[0, :4, i] = torch.tensor([x, y, w, h])
        out[0, 4 + PARTS.index(part), i] = score
    return out


def test_the_surest_of_overlapping_boxes_stays_whatever_their_class() -> None:
    result = found(
        (100, 100, 80, 80, "belly_exposed", 0.5),
        (104, 100, 80, 80, "belly_covered", 0.8),
        (250, 200, 40, 40, "face_male", 0.3),
        (30, 30, 20, 20, "face_female", 0.24),
    )
    best = keep_best(result, torch.tensor([[320.0, 320.0]]))
    names = [PARTS[int(best.classes[0, k])] for k in best.kept[0].nonzero().flatten()]
    assert names == ["belly_covered", "face_male"]
    assert best.scores[0, 0] == pytest.approx(0.8)
    assert best.boxes[0, 0].tolist() == [64, 60, 144, 140]


def test_boxes_are_in_the_frames_own_pixels_and_end_at_its_edges() -> None:
    # 640x320: the square's lower half is black.
    best = keep_best(found((300, 150, 100, 80, "face_male", 0.9)), torch.tensor([[640.0, 320.0]]))
    assert best.boxes[0, 0].tolist() == [500, 220, 640, 320]


def test_every_label_reads_parts_that_exist() -> None:
    assert set(DEFAULT_MEANING) == set(Nudity.labels) - {"parts"}
    assert all(part in PARTS for parts in DEFAULT_MEANING.values() for part in parts)
    # Faces have no meaning.
    assert not [p for parts in DEFAULT_MEANING.values() for p in parts if p.startswith("face")]


def test_a_part_says_what_the_table_makes_of_it() -> None:
    detector = Nudity({"meaning": {"explicit": {"belly_exposed": 0.5}}})
    best = keep_best(found((99, 99, 80, 80, "belly_exposed", 0.8)), torch.tensor([[320.0, 320.0]]))
    explicit, suggestive, covered, parts = detector._summary(best)[0].tolist()
    assert (explicit, suggestive, covered, parts) == pytest.approx((0.4, 0.4, 0.0, 1.0))


@pytest.mark.parametrize(
    ("meaning", "named"),
    [
        ({"explicitt": {}}, "explicit"),
        ({"explicit": {"belly": 1}}, "belly_"),
        ({"explicit": {"face_male": 3}}, "weight"),
    ],
)
def test_a_wrong_table_is_refused_naming_the_nearest(meaning: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Nudity({"meaning": meaning})


def test_its_licence_is_said() -> None:
    assert Nudity.weights[0].licence == "AGPL-3.0"
    assert "AGPL-3.0" in (Nudity.__doc__ or "")


@pytest.mark.weights
@pytest.mark.shared
def test_it_finds_what_the_package_finds() -> None:
    nudenet = pytest.importorskip("nudenet")
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    paths = sorted((SHARED / "faces").glob("*.jp*g")) + sorted((SHARED / "images").glob("*.JPEG"))[::8]
    frames = [np.array(Image.open(path).convert("RGB")) for path in paths]
    detector = Nudity({})
    detector.load(CPU, torch.float32, [str(resolve(w)) for w in Nudity.weights])
    sizes = [(f.shape[1], f.shape[0]) for f in frames]
    with torch.inference_mode():
        scored = detector.score(TensorFrames(frames, sizes, CPU), {})
    assert scored.regions is not None
    package = nudenet.NudeDetector()
    total = 0
    for path, frame, (width, height), regions in zip(paths, frames, sizes, scored.regions, strict=True):
        wanted = package.detect(np.ascontiguousarray(frame[..., ::-1]))
        total += len(wanted)
        # A score close to the threshold may fall on either side of it.
        sure = [w for w in wanted if w["score"] > 0.27]
        assert len(sure) <= len(regions) <= len(wanted) + 1, path.name
        for want in sure:
            x, y, w, h = want["box"]
            near = [
                r
                for r in regions
                if r.label == want["class"].lower()
                and overlap((r.x0 * width, r.y0 * height, r.x1 * width, r.y1 * height), (x, y, x + w, y + h)) > 0.85
            ]
            assert near, (path.name, want, regions)
            assert min(abs(r.score - want["score"]) for r in near) < 0.02
    assert total > 10


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union. Two boxes of nearly equal scores may swap places: pixels differ by rounding."""
    (left, top, right, bottom), (x0, y0, x1, y1) = one, other
    shared = max(0.0, min(right, x1) - max(left, x0)) * max(0.0, min(bottom, y1) - max(top, y0))
    return shared / ((right - left) * (bottom - top) + (x1 - x0) * (y1 - y0) - shared)

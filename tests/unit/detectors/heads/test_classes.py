"""The fused head: its rule, the format of its file, and missing votes."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from moderation.config.model import Config, DetectorConfig, StackConfig
from moderation.detectors import registry
from moderation.detectors.base import Detector, Scored
from moderation.detectors.heads.classes import Classes
from moderation.detectors.heads.linear import read_head
from moderation.detectors.views import TensorFrames
from moderation.errors import FatalError, UsageError
from moderation.scoring.build import build_stack
from tests.fake_detectors import Fake, frame, stack_of

PACKAGED = Path(__file__).parents[4] / "moderation" / "detectors" / "heads" / "classes.json"
CLASSES = ("explicit", "suggestive", "person", "other")
HEAD: dict[str, Any] = json.loads(PACKAGED.read_text())


def said(nsfw: float = 0.02, safety: float = 0.04, worn: float = 0.0, swim: float = 0.0) -> dict[str, Scored]:
    return {
        "open_nsfw": Scored(scores=torch.tensor([[1 - nsfw, nsfw]]), labels=("sfw", "nsfw")),
        "image_safety": Scored(scores=torch.tensor([[0.03, safety, 0.93]]), labels=("nsfl", "nsfw", "sfw")),
        "imagenet": Scored(scores=torch.tensor([[worn, swim, 0.0]]), labels=("worn", "swimwear", "underwear")),
    }


def classify(path: Path = PACKAGED, **earlier: Scored) -> dict[str, float]:
    detector = Classes({})
    detector.load(torch.device("cpu"), torch.float32, [str(path)])
    pixels = frame(0).pixels
    scores = detector.score(TensorFrames([pixels], [(8, 8)], torch.device("cpu")), earlier).scores[0].tolist()
    return dict(zip(detector.labels, scores, strict=True))


def best(scores: dict[str, float]) -> str:
    return max(scores, key=lambda name: scores[name])


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "head.json"
    path.write_text(json.dumps({**HEAD, **changes}))
    return path


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        (said(), "other"),
        (said(nsfw=0.99, safety=0.97), "explicit"),
        (said(nsfw=0.96, safety=0.86), "suggestive"),
        (said(nsfw=0.2, safety=0.4, swim=0.9), "suggestive"),
        (said(worn=0.7), "person"),
        (said(nsfw=0.31), "other"),
    ],
)
def test_rule_as_documented(votes: dict[str, Scored], expected: str) -> None:
    scores = classify(**votes)
    assert best(scores) == expected
    assert sum(scores.values()) == pytest.approx(1)


def test_face_makes_a_person_where_there_is_that_detector() -> None:
    faces = Scored(scores=torch.tensor([[1.0, 0.3, 0.99]]), labels=("count", "largest_share", "best"))
    assert best(classify(**said(), faces=faces)) == "person"


def test_optional_vote_that_was_not_asked_counts_as_its_stand_in() -> None:
    faces = Scored(scores=torch.full((1, 3), math.nan), labels=("count", "largest_share", "best"))
    assert classify(**said(), faces=faces) == classify(**said())


def test_needed_vote_that_is_null_leaves_no_classes() -> None:
    assert all(math.isnan(score) for score in classify(**said(nsfw=math.nan)).values())


def test_concept_that_the_stack_lacks_is_named() -> None:
    votes = said()
    votes["imagenet"] = Scored(scores=torch.zeros((1, 1)), labels=("work",))
    with pytest.raises(UsageError, match=r"imagenet\.\w+"):
        classify(**votes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "other"}, "format"),
        ({"extra": 1}, "extra"),
        ({"bias": {"explicit": 0.0}}, "bias"),
        ({"weights": {name: [0.0] for name in CLASSES}}, "8 features"),
        ({"features": []}, "features"),
    ],
)
def test_head_that_does_not_fit_is_refused_by_what_is_wrong(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(FatalError, match=words):
        read_head(write(tmp_path, **changes))


def test_file_too_large_for_a_head_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "big.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(FatalError, match="no head"):
        read_head(tmp_path / "big.json")


def built(path: Path) -> Detector:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return registry.build(DetectorConfig(name="classes", weights=f"file://{path}", sha256=sha256))


def test_packaged_head_gives_the_labels_and_reads_the_detectors_that_it_always_did() -> None:
    detector = registry.build(DetectorConfig(name="classes"))
    assert detector.labels == CLASSES
    assert set(detector.requires) == {"open_nsfw", "image_safety", "imagenet"}
    assert set(detector.optional) == {"faces", "nudity"}


def test_labels_and_what_is_read_follow_from_the_file(tmp_path: Path) -> None:
    feature = {"votes": ["clip_b32.tent"], "transform": "identity"}
    extra = {"votes": ["quality.entropy"], "transform": "identity", "missing": 0}
    weights = {"dress": [4.0, 0.0], "shoe": [0.0, 0.0], "hat": [0.0, 0.0]}
    path = write(tmp_path, features=[feature, extra], weights=weights, bias=dict.fromkeys(weights, 0.0))
    detector = built(path)
    assert detector.labels == ("dress", "shoe", "hat")
    assert (detector.requires, detector.optional) == (("clip_b32",), ("quality",))
    detector.load(torch.device("cpu"), torch.float32, [str(path)])
    votes = {"clip_b32": Scored(scores=torch.tensor([[1.0]]), labels=("tent",))}
    batch = TensorFrames([frame(0).pixels], [(8, 8)], torch.device("cpu"))
    (scores,) = detector.score(batch, votes).scores.tolist()
    odds = math.exp(4)
    assert scores == pytest.approx([odds / (odds + 2), 1 / (odds + 2), 1 / (odds + 2)])


def test_head_of_one_class_or_of_a_name_that_is_no_column_is_refused(tmp_path: Path) -> None:
    for name, words in (("b", "2 items"), ("B c", "'B c'")):
        weights = {"b": [0.0] * 8, name: [0.0] * 8}
        with pytest.raises(FatalError, match=words):
            read_head(write(tmp_path, weights=weights, bias=dict.fromkeys(weights, 0.0)))


def test_head_that_reads_what_the_stack_lacks_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, features=[{**HEAD["features"][0], "votes": ["quality.entropy"]}, *HEAD["features"][1:]])
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entries = [DetectorConfig(name=name) for name in ("open_nsfw", "image_safety", "imagenet")]
    head = DetectorConfig(name="classes", weights=f"file://{path}", sha256=sha256)
    with pytest.raises(UsageError, match="needs 'quality' before it"):
        build_stack(Config(stack=StackConfig(detectors=(*entries, head))))


class ReadsAnother(Fake):
    """Reads another detector where the stack has it."""

    optional = ("fake",)


def test_detector_reads_an_optional_one_as_it_was_asked_whatever_its_neighbours() -> None:
    first, gated, reader = Fake("first"), Fake("fake"), ReadsAnother("reader", ("red",))
    stack = stack_of(first, gated, reader, when={"fake": "first.red >= 0.5"})
    stack.score([frame(255), frame(0)])
    stack.score([frame(255)])
    mixed, alone = (seen["fake"] for seen in reader.seen)
    assert mixed.labels == ("red", "green")
    assert mixed.scores[0].tolist() == alone.scores[0].tolist() == [1.0, 0.0]
    assert mixed.scores[1].isnan().all()


def test_detector_without_the_optional_one_runs_all_the_same() -> None:
    reader = ReadsAnother("reader", ("red",))
    stack_of(Fake("first"), reader).score([frame(255)])
    assert "fake" not in reader.seen[0]


def test_votes_counted_on_the_host_are_read_on_the_device_of_the_batch() -> None:
    detector = Classes({})
    detector.load(torch.device("cpu"), torch.float32, [str(PACKAGED)])
    # A device without arithmetic that, like a GPU, refuses to be mixed with others.
    device = torch.device("meta")
    there = {
        name: Scored(scores=scored.scores.to(device), labels=scored.labels) for name, scored in said(worn=0.7).items()
    }
    faces = Scored(scores=torch.tensor([[1.0, 0.2, 0.9]]), labels=("count", "largest_share", "best"))
    batch = TensorFrames([frame(0).pixels], [(8, 8)], device)
    assert detector.score(batch, {**there, "faces": faces}).scores.device == device

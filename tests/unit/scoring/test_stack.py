"""The stack: gating, which results others may read, order, nulls, batches that are cut, and its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from moderation.config.model import Config, DetectorConfig, MediaConfig, StackConfig
from moderation.errors import UsageError
from moderation.scoring.build import build_stack
from moderation.scoring.conditions import parse_condition
from moderation.scoring.devices import pick_device, pick_dtype
from moderation.scoring.slots import fingerprint
from moderation.scoring.votes import BatchVotes
from moderation.types import F32
from tests.fake_detectors import Fake, frame, stack_of

FRAMES = [frame(red, green) for red, green in ((10, 1), (200, 2), (30, 3), (250, 4), (20, 5))]


def column(votes: BatchVotes, stack: Any, label: str) -> F32:
    scores: F32 = votes.scores[:, stack.labels.index(label)]
    return scores


def test_votes_are_columns_in_the_order_of_the_detectors() -> None:
    stack = stack_of(Fake("b"), Fake("a", ("only",)))
    assert stack.labels == ("b.red", "b.green", "a.only")
    votes = stack.score(FRAMES)
    assert votes.scores.dtype == np.float32
    assert (votes.scores[:, :2] * 255).round().astype(int).tolist() == [
        [10, 1],
        [200, 2],
        [30, 3],
        [250, 4],
        [20, 5],
    ]


def test_a_gated_detector_sees_only_the_frames_that_meet_the_condition() -> None:
    gated = Fake("late", ("x",), blob=True, regions=True)
    stack = stack_of(Fake(), gated, when={"late": "fake.red >= 0.5"}, batch_size=8)
    votes = stack.score(FRAMES)
    asked = [False, True, False, True, False]
    assert (~np.isnan(column(votes, stack, "late.x"))).tolist() == asked
    assert gated.batches == [2]
    assert [b is not None for b in votes.blobs["late.hash"]] == asked
    assert [bool(r) for r in votes.regions] == asked
    assert round(votes.regions[3][0].score * 255) == 250
    assert votes.ran == {"fake": 5, "late": 2}
    assert stack.gated == ("late.x",)


def test_a_gated_detector_that_nothing_meets_is_not_called() -> None:
    gated = Fake("late", ("x",))
    stack = stack_of(Fake(), gated, when={"late": "fake.red > 1"})
    assert np.isnan(column(stack.score(FRAMES), stack, "late.x")).all()
    assert gated.batches == []


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("compare", [">=", "<="])
def test_what_was_not_answered_meets_no_condition_and_is_null(answer: float, compare: str) -> None:
    stack = stack_of(
        Fake(spoil=lambda scores: torch.full_like(scores, answer)),
        Fake("late", ("x",)),
        when={"late": f"fake.red {compare} 0.5"},
    )
    assert np.isnan(stack.score(FRAMES).scores).all()


def test_conditions_may_stand_on_a_gated_vote() -> None:
    stack = stack_of(
        Fake(),
        Fake("second", ("x",)),
        Fake("third", ("y",)),
        when={"second": "fake.red >= 0.5", "third": "second.x >= 0.9"},
        batch_size=8,
    )
    votes = stack.score(FRAMES)
    assert (~np.isnan(column(votes, stack, "third.y"))).tolist() == [False, False, False, True, False]


def test_a_detector_reads_what_it_requires_and_nothing_else() -> None:
    reader = Fake("reader", ("x",), requires=("fake",))
    stack_of(Fake(), Fake("other"), reader, batch_size=8).score(FRAMES)
    (seen,) = reader.seen
    assert list(seen) == ["fake"]
    assert seen["fake"].scores.shape == (5, 2)


def test_a_gated_detector_reads_the_rows_of_its_own_frames() -> None:
    reader = Fake("reader", ("x",), requires=("fake",))
    first = Fake(embedding_dim=3, blob=True, regions=True)
    stack_of(first, reader, when={"reader": "fake.red >= 0.5"}, batch_size=8).score(FRAMES)
    (seen,) = reader.seen
    assert (seen["fake"].scores[:, 0] * 255).round().tolist() == [200, 250]
    assert seen["fake"].embedding is not None
    assert seen["fake"].embedding.shape == (2, 3)
    assert seen["fake"].blobs["hash"] == [bytes([200]) * 4, bytes([250]) * 4]
    assert seen["fake"].regions is not None
    assert [round(r[0].score * 255) for r in seen["fake"].regions] == [200, 250]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_batches_that_are_cut_score_as_one(batch_size: int) -> None:
    detectors: Mapping[str, Any] = {"blob": True, "regions": True, "embedding_dim": 2}
    whole = stack_of(Fake(**detectors), batch_size=16, keep_embeddings=True).score(FRAMES)
    cut = stack_of(Fake(**detectors), batch_size=batch_size, keep_embeddings=True).score(FRAMES)
    assert np.array_equal(cut.scores, whole.scores)
    assert (cut.blobs, cut.regions, cut.ran) == (whole.blobs, whole.regions, whole.ran)
    assert np.array_equal(cut.embeddings["fake"], whole.embeddings["fake"])


def test_no_frames_give_no_rows() -> None:
    votes = stack_of(Fake(blob=True)).score([])
    assert votes.scores.shape == (0, 2)
    assert votes.blobs == {"fake.hash": ()}


def test_out_of_memory_halves_the_batch_and_loses_nothing() -> None:
    def spoil(scores: torch.Tensor) -> torch.Tensor:
        if len(scores) > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return scores

    stack = stack_of(Fake(spoil=spoil), batch_size=8)
    votes = stack.score(FRAMES)
    assert (votes.scores[:, 0] * 255).round().astype(int).tolist() == [10, 200, 30, 250, 20]
    assert stack.batch_size == 2


@pytest.mark.parametrize(
    "spoil",
    [lambda s: s[:1], lambda s: s[:, :1], lambda s: torch.cat([s, s]), lambda s: s[:, 0]],
    ids=["one row for all", "one label for all", "too many rows", "no labels"],
)
def test_a_detector_that_answers_in_another_shape_is_refused(spoil: Any) -> None:
    with pytest.raises(ValueError, match="fake: scores"):
        stack_of(Fake(spoil=spoil)).score(FRAMES)


def test_a_detector_whose_hash_has_another_size_is_refused() -> None:
    detector = Fake(blob=True)
    stack = stack_of(detector)
    detector.blob_sizes = {"hash": 5}
    with pytest.raises(ValueError, match="'hash' is not 4 values of 5 bytes"):
        stack.score(FRAMES[:4])


def test_embeddings_are_kept_only_when_asked_for() -> None:
    assert stack_of(Fake(embedding_dim=3)).score(FRAMES).embeddings == {}


def config(*detectors: DetectorConfig, **changes: Any) -> Config:
    return Config(stack=StackConfig(detectors=detectors, device="cpu", **changes))


QUALITY, PDQ = DetectorConfig(name="quality"), DetectorConfig(name="pdq")


def test_a_configured_stack_has_its_detectors_in_order() -> None:
    stack = build_stack(config(PDQ, QUALITY))
    assert [s.detector.name for s in stack.slots] == ["pdq", "quality"]
    assert stack.labels[0].startswith("pdq.")
    assert stack.blob_sizes == {f"pdq.{name}": 32 for name in ("hash", "inner", "quarters", "edges")}


def test_only_leaves_the_others_out_and_names_their_labels() -> None:
    stack = build_stack(config(PDQ, QUALITY, only=("quality",)))
    assert [s.detector.name for s in stack.slots] == ["quality"]
    assert stack.disabled == ("pdq.quality",)


@pytest.mark.parametrize(
    ("detectors", "changes", "says"),
    [
        ((), {}, "stack.detectors is empty"),
        ((DetectorConfig(name="qualty"),), {}, "unknown detector 'qualty'; did you mean 'quality'"),
        ((QUALITY,), {"only": ("qualty",)}, "stack.only: 'qualty' is not in stack.detectors; did you mean 'quality'"),
        ((QUALITY, QUALITY), {}, "'quality' stands twice"),
        ((DetectorConfig(name="pdq", when="quality.sharpness > 1"), QUALITY), {}, "no earlier vote"),
        ((QUALITY, DetectorConfig(name="pdq", when="quality.sharpnes > 1")), {}, "did you mean 'quality.sharpness'"),
    ],
)
def test_a_wrong_stack_is_a_usage_error(detectors: Any, changes: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build_stack(config(*detectors, **changes))


@pytest.mark.parametrize("text", ["a.b", "a.b >= x", "a.b => 1", "a.b > 1.2.3", "a.b > .", "a.b > 1 or a.b < 0", ""])
def test_a_condition_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected `detector\.label >= number`"):
        parse_condition(text, ["a.b"])


@pytest.mark.parametrize(
    ("text", "number"),
    [("a.b >= 0.1", 0.1), ("a.b<-2", -2), (" a.b > .5 ", 0.5), ("a.b > 1e-3", 1e-3), ("a.b > 2E+1", 20)],
)
def test_numbers_of_conditions(text: str, number: float) -> None:
    assert parse_condition(text, ["a.b"]).number == number


def _fingerprint(stack_changes: Mapping[str, Any], media: Mapping[str, Any], *detectors: DetectorConfig) -> str:
    built = Config(
        stack=StackConfig(detectors=detectors or (QUALITY, PDQ), **stack_changes), media=MediaConfig(**media)
    )
    return build_stack(built).fingerprint


PLAIN = DetectorConfig(name="imagenet")
IMAGENET = DetectorConfig(name="imagenet", options={"concepts": {"weapon": ["rifle"]}})


@pytest.mark.parametrize(
    "changed",
    [
        lambda: _fingerprint({"dtype": "fp32"}, {}),
        lambda: _fingerprint({"only": ("quality",)}, {}),
        lambda: _fingerprint({"keep_embeddings": True}, {}),
        lambda: _fingerprint({}, {"canvas_px": 512}),
        lambda: _fingerprint({}, {"max_frames": 8}),
        lambda: _fingerprint({}, {"sampling": "uniform"}),
        lambda: _fingerprint({}, {}, PDQ, QUALITY),
        lambda: _fingerprint({}, {}, QUALITY),
        lambda: _fingerprint({}, {}, QUALITY, DetectorConfig(name="pdq", when="quality.sharpness > 1")),
    ],
)
def test_the_fingerprint_changes_with_what_can_move_a_vote(changed: Any) -> None:
    assert changed() != _fingerprint({}, {})


def test_the_fingerprint_changes_with_options_and_weights() -> None:
    other = DetectorConfig(name="imagenet", options=IMAGENET.options, weights="file:///w.onnx", sha256="0" * 64)
    assert len({_fingerprint({}, {}, d) for d in (PLAIN, IMAGENET, other)}) == 3


def test_the_fingerprint_changes_with_a_detectors_version() -> None:
    stack = stack_of(Fake())
    newer = Fake()
    newer.version = "2"
    assert stack_of(newer).fingerprint != stack.fingerprint


@pytest.mark.parametrize(
    ("stack", "media"),
    [({"batch_size": 3}, {}), ({"device": "cpu"}, {}), ({}, {"decode_timeout_s": 5}), ({}, {"max_bytes": 1000})],
)
def test_the_fingerprint_does_not_change_with_what_moves_no_vote(stack: Any, media: Any) -> None:
    assert _fingerprint(stack, media) == _fingerprint({}, {})


def test_the_fingerprint_is_that_of_the_slots() -> None:
    stack = build_stack(config(QUALITY))
    assert stack.fingerprint == fingerprint(stack.slots, config(QUALITY))
    assert len(stack.fingerprint) == 32


@pytest.mark.parametrize(("name", "says"), [("gpu0", "is no device"), ("cuda:99", "no 'cuda:99' here|not available")])
def test_a_device_that_is_not_there_is_a_usage_error(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        pick_device(name)


def test_dtypes() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("fp32", cpu) is torch.float32
    assert pick_dtype("bf16", cpu) is torch.bfloat16
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)

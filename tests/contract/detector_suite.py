"""What every detector must do. Authors of plug-ins: subclass `DetectorSuite`, name your detector, run pytest.

    from tests.contract.detector_suite import DetectorSuite

    class TestMine(DetectorSuite):
        name = "my_detector"

Scores must lie in 0..1 unless the detector has other `ranges`: label -> (lowest, highest). A detector without networks
has an empty `networks`; in the others every network that scored carries gradients once unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from moderation.config.model import DetectorConfig
from moderation.detectors import registry
from moderation.detectors.base import Detector, Scored
from moderation.detectors.nn.gradients import as_leaf, with_gradients
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights import locator as weights
from moderation.errors import UsageError
from moderation.types import U8

CPU = torch.device("cpu")
# Width, height: ordinary, the same again (grouped), upright, a strip, square, tiny.
SIZES = ((320, 240), (320, 240), (240, 320), (700, 60), (224, 224), (5, 3))


def draw(width: int, height: int, seed: int) -> U8:
    """uint8 [H,W,3]: smooth colours, an edge and some noise, so that every measurement has something to measure."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (7 + seed + 3 * c)) + np.cos(y / (11 + 2 * seed + c)) for c in range(3)]
    pixels = 127 + 50 * np.stack(waves, axis=2) + noise.normal(0, 8, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] += 60 * (seed % 3 - 1)
    drawn: U8 = pixels.clip(0, 255).astype(np.uint8)
    return drawn


def batch_of(frames: Sequence[U8]) -> TensorFrames:
    """A batch whose pictures are stored as they are; their files say all that a file can say of itself."""
    readings = {"c2pa.present": 1.0, "c2pa.valid": 1.0, "c2pa.generative": 0.0}
    return TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU, [readings] * len(frames))


class DetectorSuite:
    """Subclass it and set `name`; `options` and `tolerance` if need be."""

    name: str
    options: Mapping[str, Any] = {}
    # Of one score, between a batch of one and a batch of many, because kernels sum in another order. Relative above 1.
    tolerance = 1e-5
    # Between packed and unpacked networks, which use other kernels. Relative above 1.
    unpacked_tolerance = 1e-4
    earlier: Mapping[str, Scored] = {}  # results of the detectors in `requires`

    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls) -> Detector:
        return cls.load()

    @pytest.fixture(scope="class")
    @classmethod
    def frames(cls) -> list[U8]:
        return [draw(width, height, seed) for seed, (width, height) in enumerate(SIZES)]

    @classmethod
    def load(cls) -> Detector:
        config = DetectorConfig(name=cls.name, options=cls.options)
        detector = registry.build(config)
        paths = [str(weights.resolve(w)) for w in registry.weights_of(detector, config)]
        detector.load(CPU, torch.float32, paths)
        return detector

    def score(self, detector: Detector, batch: TensorFrames) -> Scored:
        with torch.inference_mode():
            return detector.score(batch, self.earlier)

    def assert_close(self, left: Scored, right: Scored) -> None:
        torch.testing.assert_close(
            left.scores, right.scores, rtol=self.tolerance, atol=self.tolerance, equal_nan=True, check_dtype=True
        )

    def test_says_what_it_is(self, detector: Detector) -> None:
        assert detector.name == self.name
        assert detector.version
        assert detector.cost_ms > 0
        assert len(detector.labels) == len(set(detector.labels)) > 0
        # Columns of a table are `name.label`.
        assert not [label for label in detector.labels if "." in label or label != label.strip() or not label]

    def test_says_under_which_terms_its_weights_come(self, detector: Detector) -> None:
        for w in detector.weights:
            assert w.licence
            assert w.origin
            assert len(w.sha256) == 64

    def test_refuses_an_option_it_does_not_know(self) -> None:
        with pytest.raises(UsageError, match="no_such_option"):
            registry.available()[self.name]({**self.options, "no_such_option": 1})

    def test_gives_a_row_a_frame(self, detector: Detector, frames: list[U8]) -> None:
        scored = self.score(detector, batch_of(frames))
        assert scored.scores.shape == (len(frames), len(detector.labels))
        assert scored.scores.dtype == torch.float32
        if detector.embedding_dim:
            assert scored.embedding is not None
            assert scored.embedding.shape == (len(frames), detector.embedding_dim)
        assert set(scored.blobs) == set(detector.blob_sizes)
        for key, blobs in scored.blobs.items():
            assert len(blobs) == len(frames)
            assert {len(b) for b in blobs if b is not None} <= {detector.blob_sizes[key]}
        if scored.regions is not None:
            assert len(scored.regions) == len(frames)

    def test_gives_no_rows_for_no_frames(self, detector: Detector) -> None:
        scored = self.score(detector, batch_of([]))
        assert scored.scores.shape == (0, len(detector.labels))
        assert all(len(blobs) == 0 for blobs in scored.blobs.values())

    def test_scores_are_finite_and_in_range(self, detector: Detector, frames: list[U8]) -> None:
        scores = self.score(detector, batch_of(frames)).scores
        assert torch.isfinite(scores).all()
        for column, label in enumerate(detector.labels):
            lowest, highest = detector.ranges.get(label, (0.0, 1.0))
            assert scores[:, column].min() >= lowest, label
            assert scores[:, column].max() <= highest, label

    def test_a_batch_of_one_scores_as_a_batch_of_many(self, detector: Detector, frames: list[U8]) -> None:
        many = self.score(detector, batch_of(frames))
        for i, frame in enumerate(frames):
            one = self.score(detector, batch_of([frame]))
            self.assert_close(one, Scored(scores=many.scores[i : i + 1]))
            assert {k: b[0] for k, b in one.blobs.items()} == {k: b[i] for k, b in many.blobs.items()}

    def test_keeps_the_order(self, detector: Detector, frames: list[U8]) -> None:
        forth = self.score(detector, batch_of(frames))
        back = self.score(detector, batch_of(frames[::-1]))
        self.assert_close(forth, Scored(scores=back.scores.flip(0)))
        assert {k: list(b) for k, b in forth.blobs.items()} == {k: list(b)[::-1] for k, b in back.blobs.items()}

    def test_a_selection_scores_as_its_frames(self, detector: Detector, frames: list[U8]) -> None:
        batch = batch_of(frames)
        whole = self.score(detector, batch)
        some = self.score(detector, batch.select([4, 1]))
        self.assert_close(some, Scored(scores=whole.scores[[4, 1]]))

    def test_keeps_no_state_between_calls(self, detector: Detector, frames: list[U8]) -> None:
        first = self.score(detector, batch_of(frames)).scores
        self.score(detector, batch_of(frames[2:4]))
        assert torch.equal(first, self.score(detector, batch_of(frames)).scores)

    def test_loaded_again_it_scores_the_same(self, detector: Detector, frames: list[U8]) -> None:
        again = self.score(self.load(), batch_of(frames[:2])).scores
        assert torch.equal(again, self.score(detector, batch_of(frames[:2])).scores)

    def test_leaves_the_shared_pixels_alone(self, detector: Detector, frames: list[U8]) -> None:
        batch = batch_of(frames)
        copies = [frame.copy() for frame in frames]
        view = None if detector.view.mode == "canvas" else batch.view(detector.view).clone()
        self.score(detector, batch)
        assert all(np.array_equal(frame, copy) for frame, copy in zip(frames, copies, strict=True))
        assert view is None or torch.equal(view, batch.view(detector.view))

    def test_unpacked_it_scores_the_same_and_its_networks_carry_gradients(
        self, detector: Detector, frames: list[U8]
    ) -> None:
        own = self.load()
        inputs: dict[nn.Module, torch.Tensor] = {}

        def remember(network: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            inputs.setdefault(network, given[0])

        for network in own.networks:
            network.register_forward_pre_hook(remember)
        batch = batch_of(frames[:2])
        packed = self.score(own, batch)
        own.unpack()
        torch.testing.assert_close(
            self.score(own, batch).scores,
            packed.scores,
            rtol=self.unpacked_tolerance,
            atol=self.unpacked_tolerance,
            equal_nan=True,
        )
        assert bool(inputs) == bool(own.networks)
        for network, given in list(inputs.items()):
            with with_gradients():
                x = as_leaf(given)
                network(x).float().square().sum().backward()
            assert x.grad is not None
            assert x.grad.isfinite().all()
            assert x.grad.count_nonzero() > 0
        # Other instances are as they were.
        assert torch.equal(self.score(detector, batch).scores, packed.scores)

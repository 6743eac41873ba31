"""On devices other than a CPU many frames are hashed and measured at once: the same hashes and counts."""

from __future__ import annotations

import numpy as np
import torch

from moderation.detectors import views
from moderation.detectors.general.quality import _count_each, count_together
from moderation.detectors.hashing.pdq import Pdq
from moderation.detectors.hashing.sampling import SamplingBank, sampling_matrix
from moderation.types import U8

CPU = torch.device("cpu")


def draw_frames() -> list[U8]:
    # Waves, so that hashes do not depend on rounding alone.
    frames = []
    for index, (height, width) in enumerate([(300, 400), (400, 300), (448, 620), (64, 64), (300, 410), (20, 700)]):
        y, x = np.mgrid[0:height, 0:width]
        wave = 127 + 60 * np.sin(x / (7 + index)) + 60 * np.cos(y / (11 + index))
        frames.append(np.stack([wave, wave[::-1], 255 - wave], axis=2).clip(0, 255).astype(np.uint8))
    # Within bars: of one colour, and blurred.
    frames.append(np.pad(frames[0], ((40, 40), (0, 0), (0, 0))))
    frames.append(np.pad(frames[1], ((0, 0), (120, 120), (0, 0)), constant_values=128))
    return frames


def padded_batch(frames: list[U8]) -> views.TensorFrames:
    batch = views.TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU)
    batch._padded = views._upload(frames, CPU)
    return batch


def test_padded_frames_have_the_hashes_of_frames_alone() -> None:
    frames = draw_frames()
    detector = Pdq({})
    detector.load(CPU, torch.float32, [])
    alone = views.TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU)
    expected, got = (detector.score(batch, {}) for batch in (alone, padded_batch(frames)))
    assert torch.equal(expected.scores, got.scores)
    assert all(expected.blobs["inner"][-2:])
    for name, hashes in expected.blobs.items():
        for one, other in zip(hashes, got.blobs[name], strict=True):
            assert (one is None) == (other is None)
            # Rounding decides some bits.
            assert (int.from_bytes(one or b"") ^ int.from_bytes(other or b"")).bit_count() <= 2


def test_a_bank_has_the_matrix_of_each_side_whatever_came_before() -> None:
    bank = SamplingBank(CPU)
    for sides in ([100, 50, 100], [70], [50, 300], list(range(64, 400))):
        matrices = bank.matrices(sides, max(sides) + 5)
        for matrix, side in zip(matrices, sides, strict=True):
            assert torch.equal(matrix[:, :side], sampling_matrix(side))
            assert not matrix[:, side:].any()


def test_levels_are_counted_together_as_one_by_one() -> None:
    luma = torch.randint(0, 256, (3, 17, 19)).float()
    assert torch.equal(count_together(luma).long(), _count_each(luma))

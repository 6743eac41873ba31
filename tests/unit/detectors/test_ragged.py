"""Many sizes resampled together equal each frame resampled alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moderation.detectors import ragged, resampling, views
from moderation.detectors.base import View

SIZES = [(448, 600), (500, 448), (448, 448), (448, 1300), (100, 80), (60, 448), (224, 224), (37, 911), (1, 1), (3, 700)]


def draw_frames() -> list[torch.Tensor]:
    random = np.random.default_rng(3)
    return [torch.from_numpy(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in SIZES]


def whole(length: int, out: int) -> ragged.Axis:
    return ragged.Axis(start=0, length=length, out=out, first=0)


def fitted(length: int, out: int, place: int) -> ragged.Axis:
    return ragged.Axis(start=0, length=length, out=out, first=-place)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [224, 256])
def test_all_at_once_equals_one_by_one(kernel: ragged.Kernel, side: int) -> None:
    frames = draw_frames()
    got = ragged.resample(
        ragged.pad_frames(frames),
        [whole(frame.shape[0], side) for frame in frames],
        [whole(frame.shape[1], side) for frame in frames],
        side,
        kernel,
    )
    for pixels, frame in zip(got, frames, strict=True):
        planes = frame.permute(2, 0, 1)[None].float()
        alone = torch.nn.functional.interpolate(planes, (side, side), mode=kernel, antialias=True)
        difference = (pixels - alone[0].round().clamp(0, 255)).abs()
        assert difference.max() <= 1  # ties are rounded either way
        assert (difference > 0).float().mean() < 0.001


def test_fitted_frames_lie_on_their_blurred_copies_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's own lanczos for uint8 rounds otherwise, and only a CPU has it.
    monkeypatch.setattr(resampling, "_torch_has_lanczos", lambda: False)
    frames = draw_frames()
    sizes = [(frame.shape[1], frame.shape[0]) for frame in frames]
    view = View(mode="fit", crop=224, interpolation="lanczos")
    alone = views.TensorFrames([frame.numpy() for frame in frames], sizes, torch.device("cpu")).view(view)
    boxes = ragged.fit_boxes(sizes, 224)
    vertical = [fitted(f.shape[0], box[3], box[1]) for f, box in zip(frames, boxes, strict=True)]
    horizontal = [fitted(f.shape[1], box[2], box[0]) for f, box in zip(frames, boxes, strict=True)]
    pixels = ragged.resample(ragged.pad_frames(frames), vertical, horizontal, 224, "lanczos")
    together = ragged.surround(pixels, boxes, ragged.blur_matrix(224))
    assert (together - alone).abs().max() <= 1


def test_frames_of_unlike_shape_share_no_padding() -> None:
    buckets = ragged.bucket_frames([(448, 600), (600, 448), (448, 5000), (448, 610)])
    assert sorted(map(sorted, buckets)) == [[0, 3], [1], [2]]

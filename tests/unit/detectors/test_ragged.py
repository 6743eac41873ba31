"""Many sizes resampled together equal each frame resampled alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moderation.detectors import ragged, resampling, views
from moderation.detectors.base import View
from moderation.types import U8

SIZES = [(448, 600), (500, 448), (448, 448), (448, 1300), (100, 80), (60, 448), (224, 224), (37, 911), (1, 1), (3, 700)]
FIT = View(mode="fit", crop=224, interpolation="lanczos")
CPU = torch.device("cpu")


def draw_frames() -> list[U8]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in SIZES]


def derive_together(frames: list[U8], view: View) -> torch.Tensor:
    boxes = views._boxes([(frame.shape[1], frame.shape[0]) for frame in frames], view)
    return views._resample_together(views._upload(frames, CPU), views._wrap(frames), boxes, view, CPU)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "crop"), [(224, 224), (256, 224)])
def test_all_at_once_equals_one_by_one(kernel: ragged.Kernel, resize: int, crop: int) -> None:
    assert kernel != "lanczos"
    frames = draw_frames()
    together = derive_together(frames, View(mode="squash", resize=resize, crop=crop, interpolation=kernel))
    margin = (resize - crop) // 2
    for pixels, frame in zip(together, frames, strict=True):
        planes = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        alone = torch.nn.functional.interpolate(planes, (resize, resize), mode=kernel, antialias=True)[0]
        alone = alone[:, margin : margin + crop, margin : margin + crop].round().clamp(0, 255)
        difference = (pixels - alone).abs()
        assert difference.max() <= 1  # ties are rounded either way
        assert (difference > 0).float().mean() < 0.001


def test_fitted_frames_lie_on_their_blurred_copies_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's own lanczos for uint8 rounds otherwise, and only a CPU has it.
    monkeypatch.setattr(resampling, "_torch_has_lanczos", lambda: False)
    frames = draw_frames()
    sizes = [(frame.shape[1], frame.shape[0]) for frame in frames]
    alone = views.TensorFrames(frames, sizes, CPU).view(FIT)
    assert (derive_together(frames, FIT) - alone).abs().max() <= 1


def test_a_selection_keeps_its_order_over_several_groups() -> None:
    frames = draw_frames()
    whole = derive_together(frames, FIT)
    groups = views._upload(frames, CPU)
    chosen = [7, 0, 3]
    selected = [group for padded in groups if (group := padded.select(chosen)) is not None]
    some = [frames[row] for row in chosen]
    boxes = views._boxes([(frame.shape[1], frame.shape[0]) for frame in some], FIT)
    derived = views._resample_together(selected, views._wrap(some), boxes, FIT, CPU)
    assert (derived - whole[chosen]).abs().max() <= 1


def test_frames_of_unlike_shape_share_no_padding() -> None:
    buckets = ragged.bucket_frames([(448, 600), (600, 448), (448, 5000), (448, 610)])
    assert sorted(map(sorted, buckets)) == [[0, 3], [1], [2]]

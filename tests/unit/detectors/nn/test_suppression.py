"""Suppression by torchvision keeps the same boxes as the loops that it replaced."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moderation.detectors.nn.suppression import distinct
from moderation.detectors.safety.nudity import keep_best
from moderation.types import F32


def boxes_of(seed: int, count: int, side: float) -> F32:
    """float32 [count,4], many of which overlap, some of no area and some equal."""
    noise = np.random.default_rng(seed)
    centres = noise.uniform(0, side, (max(1, count // 6), 2))[noise.integers(0, max(1, count // 6), count)]
    low = centres + noise.normal(0, side / 40, (count, 2))
    boxes = np.concatenate([low, low + noise.uniform(0, side / 5, (count, 2))], axis=1)
    boxes[count // 2 :: 7, 2:] = boxes[count // 2 :: 7, :2]
    boxes[1::9] = boxes[: len(boxes[1::9])]
    return boxes.astype(np.float32)


def kept_by_a_loop(boxes: F32, overlap: float) -> list[int]:
    """The loop that `faces` had."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.ones(len(boxes), dtype=bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not left[i]:
            continue
        kept.append(i)
        sides = np.minimum(boxes[i, 2:], boxes[:, 2:]) - np.maximum(boxes[i, :2], boxes[:, :2])
        common = sides.clip(min=0).prod(axis=1)
        left &= common <= overlap * (area[i] + area - common)
    return kept


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("count", "overlap"), [(0, 0.3), (1, 0.3), (60, 0.3), (200, 0.45), (400, 0.3)])
def test_as_before_of_boxes_that_overlap_the_best_stays(count: int, overlap: float, dtype: type) -> None:
    for seed in range(10):
        boxes = boxes_of(seed, count, 1.0).astype(dtype)
        # Without area a box equals itself alone; the loop counted 0 <= 0 as apart, and so does torchvision.
        assert distinct(torch.from_numpy(boxes), overlap).tolist() == kept_by_a_loop(boxes, overlap)


def test_as_before_nudity_keeps_the_surest_of_each_frame_whatever_its_neighbours() -> None:
    noise = torch.Generator().manual_seed(0)
    outputs = torch.rand((5, 4 + 18, 300), generator=noise)
    outputs[:, :2] *= 320
    outputs[:, 2:4] = 20 + 80 * outputs[:, 2:4]
    outputs[:, 4:] = outputs[:, 4:] ** 9
    outputs[3, 4:] = 0.1  # a frame without anything
    sizes = torch.tensor([[320.0, 200.0], [640.0, 480.0], [90.0, 320.0], [320.0, 320.0], [1000.0, 10.0]])
    together = keep_best(outputs, sizes)
    assert not together.kept[3].any()
    for frame in range(5):
        sure = int((together.scores[frame] >= 0.25).sum())
        expected = kept_by_a_loop(together.boxes[frame, :sure].numpy(), 0.45)
        assert together.kept[frame].nonzero().flatten().tolist() == expected
        alone = keep_best(outputs[frame : frame + 1], sizes[frame : frame + 1])
        kept = alone.kept[0]
        assert torch.equal(alone.boxes[0, kept], together.boxes[frame, together.kept[frame]])

"""Every detector of the packaged configurations scores on the device, in fp32 and bf16, as on the CPU in fp32.

Frames are resampled in float32 there and in uint8 here, up to two levels apart; convolutions are TF32 there. So the
tolerances are those of `tests/integration/test_parity.py` in fp32, and wider in bf16. Measures that have no 0..1 are
compared relative to their size; counts may be off by one in ten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from moderation.detectors.base import View
from moderation.detectors.views import TensorFrames
from moderation.types import F32
from tests.gpu.device_stacks import CONFIGS, detectors, frames, load_stack, reference

pytestmark = [pytest.mark.gpu, pytest.mark.weights, pytest.mark.slow]

TOLERANCE: Mapping[str, float] = {"fp32": 0.05, "bf16": 0.10}
COUNTS = re.compile(r"\.(count|words|regions)$")
MEASURES = re.compile(r"\.(sharpness|entropy)$")
# Of a mask of pixels within limits, which a single level moves: `fill` was 0.072 off in fp32.
MASKS = re.compile(r"^skin\.")
MASK_TOLERANCE = 0.15
HASH_BITS = 12  # near copies are told apart at 31
VIEWS = (
    View(mode="squash", resize=256, crop=224, interpolation="bilinear"),
    View(mode="crop", resize=256, crop=224, interpolation="bicubic"),
    View(mode="crop", resize=224, crop=224, interpolation="bicubic"),
    View(mode="fit", crop=224, interpolation="lanczos"),
)


def differences(labels: tuple[str, ...], ours: F32, theirs: F32) -> dict[str, float]:
    """Of each label the largest: absolute, of counts beyond one relative, of measures relative."""
    found = {}
    for column, label in enumerate(labels):
        off = np.abs(ours[:, column] - theirs[:, column])
        size = np.abs(theirs[:, column])
        if COUNTS.search(label):
            off = np.maximum(off - 1, 0) / np.maximum(size, 1)
        elif MEASURES.search(label):
            off = off / np.maximum(size, 1)
        found[label] = float(np.nanmax(off, initial=0.0))
    return found


def compare(name: str, only: str | None, device: torch.device, dtype: str, told: Any) -> None:
    stack = load_stack(name, only, device, dtype)
    ours, theirs = stack.score(frames()), reference(name, only)
    by_label = differences(stack.labels, ours.scores, theirs.scores)
    mine = {k: v for k, v in by_label.items() if only is None or k.startswith(f"{only}.")}
    bits = [
        (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()
        for blob, values in theirs.blobs.items()
        for a, b in zip(values, ours.blobs[blob], strict=True)
        if a is not None and b is not None
    ]
    regions = sum(len(a) != len(b) for a, b in zip(ours.regions, theirs.regions, strict=True))
    asked = int((np.isnan(ours.scores) != np.isnan(theirs.scores)).sum())
    worst = {k: round(v, 5) for k, v in sorted(mine.items(), key=lambda pair: -pair[1])[:8]}
    facts = {"labels": worst, "hash_bits": max(bits, default=0), "frames_of_other_regions": regions}
    told(
        f"difference {name}/{only or 'all'}/{dtype}",
        max_difference=round(max(mine.values()), 5),
        asked_otherwise=asked,
        **facts,
    )
    assert max(bits, default=0) <= HASH_BITS
    if only is not None:
        assert asked == 0
    beyond = [k for k, off in mine.items() if off > (MASK_TOLERANCE if MASKS.match(k) else TOLERANCE[dtype])]
    assert not beyond, worst


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "only"), detectors())
def test_a_detector_scores_on_the_device_as_on_the_cpu(
    name: str, only: str, dtype: str, device: torch.device, told: Any
) -> None:
    compare(name, only, device, dtype, told)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_whole_stack_scores_on_the_device_as_on_the_cpu(
    name: str, dtype: str, device: torch.device, told: Any
) -> None:
    compare(name, None, device, dtype, told)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view.mode}-{view.interpolation}-{view.resize}")
def test_a_view_on_the_device_is_the_view_on_the_cpu(view: View, cuda: torch.device, told: Any) -> None:
    pixels, sizes = [f.pixels for f in frames()], [(f.width, f.height) for f in frames()]
    here = TensorFrames(pixels, sizes, torch.device("cpu")).view(view)
    there = TensorFrames(pixels, sizes, cuda).view(view).cpu()
    off = (here - there).abs()
    told(f"levels {view.mode} {view.interpolation} {view.resize}", max=float(off.max()), mean=float(off.mean()))
    assert float(off.mean()) <= 0.5
    assert float(off.max()) <= 4

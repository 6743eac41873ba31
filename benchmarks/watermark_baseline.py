"""The classical baseline of `benchmarks.watermark`: a sliding window of edge orientations, and a linear classifier.

Histograms of oriented gradients (Dalal and Triggs 2005, https://doi.org/10.1109/CVPR.2005.177) of windows of 64 pixels,
every 32 pixels of the picture squashed to 320; logistic regression; a picture's score is that of its surest window. It
learns from composites on the backgrounds of training, and goes once over its own false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from skimage.feature import hog

from moderation.media.pixels import scale_array
from moderation.training.heads.probe import Probe, fit_probe
from moderation.training.heads.quality import fit_line
from moderation.training.watermark.composites import Composite
from moderation.types import U8

_SIDE, _CELL, _WINDOW, _STEP = 320, 8, 8, 4  # pixels; the last two in cells
_BLOCKS: Final = _SIDE // _CELL - 1
_PLACES: Final = [(y, x) for y in range(0, _BLOCKS - 6, _STEP) for x in range(0, _BLOCKS - 6, _STEP)]
_NEGATIVES: Final = 6  # windows of a composite without a mark
_PENALTY: Final = 0.01

F32 = npt.NDArray[np.float32]
Make = Callable[[int], Composite]


class HogBaseline:
    """A trained baseline. seconds of CPU are its caller's to measure."""

    def __init__(self, probe: Probe, slope: float, shift: float) -> None:
        self._probe, self._slope, self._shift = probe, slope, shift

    def score(self, frames: Sequence[U8]) -> list[float]:
        """The chance of each picture, uint8 [H,W,3], to be marked, where half of all are."""
        logits = torch.tensor([_surest(self._probe, frame) for frame in frames])
        return (self._slope * logits + self._shift).sigmoid().tolist()


def train_baseline(make: Make, count: int) -> HogBaseline:
    """Learn from composites 0 to count - 1; the last fifth fits the scores."""
    rng = np.random.default_rng(0)
    learned = range(count * 4 // 5)
    windows, kinds = [], []
    for number in learned:
        composite = make(number)
        features, yes = _windows(composite.pixels), _marked(composite)
        chosen = [*np.flatnonzero(yes)[:_NEGATIVES], *rng.permutation(np.flatnonzero(~yes))[:_NEGATIVES]]
        windows.append(features[chosen])
        kinds.append(yes[chosen])
    probe = _fit(windows, kinds)
    # Hard negatives: windows of clean composites that it is surest of.
    for number in learned:
        composite = make(number)
        if not len(composite.boxes):
            features = _windows(composite.pixels)
            worst = np.argsort(-_logits(probe, features))[:2]
            windows.append(features[worst])
            kinds.append(np.zeros(len(worst), np.bool_))
    probe = _fit(windows, kinds)
    held = [make(number) for number in range(learned.stop, count)]
    logits = torch.tensor([_surest(probe, composite.pixels) for composite in held])
    return HogBaseline(probe, *fit_line(logits, torch.tensor([float(len(c.boxes) > 0) for c in held])))


def _fit(windows: Sequence[F32], kinds: Sequence[npt.NDArray[np.bool_]]) -> Probe:
    yes = torch.from_numpy(np.concatenate(kinds)).long()
    x = torch.from_numpy(np.concatenate(windows))[:, None]
    return fit_probe(x, torch.nn.functional.one_hot(yes, 2).float(), _PENALTY, several=False, balance=True)


def _logits(probe: Probe, features: F32) -> F32:
    two = probe.logits(torch.from_numpy(features)).numpy()
    logits: F32 = two[:, 1] - two[:, 0]
    return logits


def _surest(probe: Probe, pixels: U8) -> float:
    return float(_logits(probe, _windows(pixels)).max())


def _windows(pixels: U8) -> F32:
    """float32 [windows, 7 x 7 blocks x 36]."""
    grey = scale_array(pixels, (_SIDE, _SIDE)).astype(np.float32).mean(axis=2)
    blocks = hog(
        grey, orientations=9, pixels_per_cell=(_CELL, _CELL), cells_per_block=(2, 2), feature_vector=False
    ).astype(np.float32)
    flat = [blocks[y : y + 7, x : x + 7].reshape(-1) for y, x in _PLACES]
    return np.stack(flat)


def _marked(composite: Composite) -> npt.NDArray[np.bool_]:
    """bool [windows]: whether a mark covers the middle of the window."""
    y, x = (np.array(_PLACES).T + _WINDOW / 2) * _CELL / _SIDE
    yes = np.zeros(len(_PLACES), np.bool_)
    for x0, y0, x1, y1 in composite.boxes.tolist():
        margin = _STEP * _CELL / _SIDE / 2  # a small mark lies in the window nearest to it
        yes |= (x > x0 - margin) & (x < x1 + margin) & (y > y0 - margin) & (y < y1 + margin)
    return yes

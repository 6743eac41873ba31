"""A detector from another package, found by its entry point when this folder is on PYTHONPATH.

It needs no weights and a millisecond a frame, and does on plain colours what decoders and drivers do on bad days.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View
from moderation.detectors.registry import check_options

ABORTS, HANGS, IS_KILLED = (255, 0, 255), (0, 255, 255), (0, 0, 255)
RAISES = (255, 255, 0)
_TOLERANCE = 6  # JPEG moves plain colours a little


class Tiny(DetectorDefaults):
    """Share of red, green and blue; with `deadly`, plain magenta aborts, cyan hangs and blue is killed.

    most_frames: a larger batch does not fit in memory. waits_for: a file that must be there before anything is scored,
    so that a test may take its time.
    """

    name = "tiny"
    version = "1"
    labels: Sequence[str] = ("red", "green", "blue")
    view = View(mode="canvas")
    cost_ms = 0.1

    def __init__(self, options: Mapping[str, Any]) -> None:
        known = {"deadly": bool, "slow_s": (float, int), "load_dies": bool, "waits_for": str, "most_frames": int}
        check_options(self.name, options, known)
        self._deadly = bool(options.get("deadly", False))
        self._slow_s = float(options.get("slow_s", 0.0))
        self._most_frames = options.get("most_frames")
        self._waits_for = options.get("waits_for")
        self._load_dies = bool(options.get("load_dies", False))

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        if self._load_dies:
            os.abort()

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        while self._waits_for is not None and not os.path.exists(self._waits_for):  # noqa: PTH110 - polled often
            time.sleep(0.05)
        if self._most_frames is not None and len(batch.frames_HWC) > self._most_frames:
            os.kill(os.getpid(), signal.SIGKILL)
        rows = []
        for frame in batch.frames_HWC:
            mean = frame.float().mean(dim=(0, 1))
            if self._deadly:
                _misbehave(mean)
            time.sleep(self._slow_s)
            rows.append(mean / 255)
        return Scored(scores=torch.stack(rows) if rows else torch.zeros((0, 3)))


def _misbehave(mean: torch.Tensor) -> None:
    def shows(colour: tuple[int, int, int]) -> bool:
        return bool((mean.cpu() - torch.tensor(colour, dtype=torch.float32)).abs().max() < _TOLERANCE)

    if shows(ABORTS):
        os.abort()
    if shows(HANGS):
        time.sleep(3600)
    if shows(IS_KILLED):
        os.kill(os.getpid(), signal.SIGKILL)
    if shows(RAISES):
        raise RuntimeError("a detector that does not like yellow")

"""Occlusion, both ways: how far a score falls when a window is covered, and the score of a window's content alone.

Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901. It asks the detector itself and needs no gradients, so that it
works for every detector of a stack. Windows of several pictures share a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moderation.config.explain import ExplainConfig
from moderation.detectors.base import View
from moderation.detectors.views import TensorFrames
from moderation.explain.covering import CoveredFrames, CoveredVariant, put_frames
from moderation.explain.maps import Map, average_windows
from moderation.explain.windows import Place, place_windows, view_geometry
from moderation.scoring.stack import Stack
from moderation.types import F32, Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class OccludedFrame:
    """What occlusion shows of one frame.

    score: of the frame; covered_score: with all of it covered. drop: float32 [h,w], by how much the score falls where
    that place is covered, averaged over the windows that hold it; alone: float32 [h,w], the mean score of these windows
    alone. NaN where the detector does not look, or gave no score. largest_drop: of one window.
    """

    score: float
    covered_score: float
    drop: Map
    alone: Map
    largest_drop: float
    windows: int


def occlude(
    stack: Stack, column: int, view: View, frames: Sequence[Frame], config: ExplainConfig, *, sign: float = 1.0
) -> list[OccludedFrame]:
    """Occlude each frame. column: of the score in the stack's labels; view: of its detector.

    sign: -1 where a low score is what decided: drops are then rises.
    """
    batch = put_frames(frames, stack.device)
    geometries = [view_geometry(view, f.pixels.shape, (f.width, f.height)) for f in frames]
    places = [place_windows(geometry, config.window_px, config.stride_px) for geometry in geometries]
    short_px = [min(g.wide_px, g.high_px) for g in geometries]
    variants = [variant for row, own in enumerate(places) for variant in _variants(row, own)]
    window = config.window_px / min(short_px, default=1)
    scores = score_variants(stack, batch, variants, config.cover, window)[:, column]
    occluded, start = [], 0
    for frame, own in zip(frames, places, strict=True):
        stop = start + 2 + 2 * len(own)
        occluded.append(_read_scores(scores[start:stop], own, frame, sign))
        start = stop
    return occluded


def _variants(row: int, places: Sequence[Place]) -> Iterator[CoveredVariant]:
    """The frame, the frame covered whole, then each window covered, then each window alone."""
    yield CoveredVariant(row=row)
    yield CoveredVariant(row=row, alone=True)
    for alone in (False, True):
        for place in places:
            yield CoveredVariant(row=row, places=(place,), alone=alone)


def score_variants(
    stack: Stack, frames: TensorFrames, variants: Sequence[CoveredVariant], cover: str, window: float
) -> F32:
    """float32 [V,L]: the stack's scores of each variant, NaN where a detector gave none; batches are bounded.

    window: the side of a window as a share of the short side of what is covered.
    """
    scores: list[F32] = []
    covers: dict[tuple[View | None, int], torch.Tensor] = {}
    start = 0
    while start < len(variants):
        chunk = variants[start : start + stack.batch_size]
        try:
            scores.append(stack.score_batch(CoveredFrames(frames, chunk, cover, window, covers)).scores)
        except torch.cuda.OutOfMemoryError:
            if stack.batch_size == 1:
                raise
            stack.batch_size = max(1, stack.batch_size // 2)
            torch.cuda.empty_cache()
            continue
        start += len(chunk)
    return np.concatenate(scores) if scores else np.empty((0, len(stack.labels)), np.float32)


def _read_scores(scores: F32, places: Sequence[Place], frame: Frame, sign: float) -> OccludedFrame:
    score, covered_score = float(scores[0]), float(scores[1])
    covered, alone = scores[2 : 2 + len(places)], scores[2 + len(places) :]
    drops = sign * (scores[0] - covered)
    seen = drops[np.isfinite(drops)]
    return OccludedFrame(
        score=score,
        covered_score=covered_score,
        drop=average_windows(places, drops, frame.pixels.shape),
        alone=average_windows(places, alone, frame.pixels.shape),
        largest_drop=float(seen.max()) if len(seen) else float("nan"),
        windows=len(places),
    )

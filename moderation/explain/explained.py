"""Frames -> maps, the most responsible box of each, and what covering it does to the score; by any method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moderation.config.explain import ExplainConfig
from moderation.explain.covering import CoveredVariant, put_frames
from moderation.explain.differentiable import NotDifferentiableError
from moderation.explain.gradients import attribute, gradient_method
from moderation.explain.maps import Map, responsible_box
from moderation.explain.occlusion import occlude, score_variants
from moderation.explain.overlay import MapPanel
from moderation.explain.vote_stack import VoteStack
from moderation.explain.windows import Place, view_geometry
from moderation.types import Frame

_PER_BOX = 3  # variants that measure one box


class LoadVotes(Protocol):
    """Loads the detectors that cast a vote; see `vote_stack`."""

    def __call__(self, title: str, exact: bool = False) -> VoteStack:
        """exact: in float32, with gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedFrame:
    """What one method says of one frame; error_code where it says nothing. score: None where the detector gave none."""

    score: float | None = None
    settings: str = ""
    panels: tuple[MapPanel, ...] = ()
    box: Place | None = None
    drop: float | None = None
    covered: float | None = None
    alone: float | None = None
    error_code: str | None = None
    error_detail: str = ""


def explain_frames(
    load: LoadVotes,
    votes: VoteStack,
    label: str,
    frames: Sequence[Frame],
    method: str,
    config: ExplainConfig,
    *,
    sign: float = 1.0,
) -> list[ExplainedFrame]:
    """Explain a vote on each frame, by `occlusion`, `gradient`, or one of `gradients.METHODS`.

    sign: -1 where a low score decided: then what lowers it is shown.
    """
    if not frames:
        return []
    column = votes.column(label)
    try:
        settings, panels = _make_panels(load, votes, column, frames, method, config, sign)
    except NotDifferentiableError as error:
        failed = ExplainedFrame(error_code="no_gradient", error_detail=str(error))
        return [failed for _ in frames]
    boxes = [responsible_box(own[0].values) for own in panels]
    measured = _measure_boxes(votes, column, frames, boxes, config)
    return [
        _explained(score, settings, own, box, covered, alone, sign)
        for own, box, (score, covered, alone) in zip(panels, boxes, measured, strict=True)
    ]


def _make_panels(
    load: LoadVotes,
    votes: VoteStack,
    column: int,
    frames: Sequence[Frame],
    method: str,
    config: ExplainConfig,
    sign: float,
) -> tuple[str, list[tuple[MapPanel, ...]]]:
    """How it was done, and the maps of each frame; the first of them is the one that the box is of."""
    if method == "occlusion":
        settings = f"occlusion, window {config.window_px} px, stride {config.stride_px} px, {config.cover}"
        occluded = occlude(votes.stack, column, votes.view, frames, config, sign=sign)
        falls = "falls" if sign > 0 else "rises"
        return settings, [
            (
                MapPanel(title=f"score {falls} when covered", values=one.drop),
                MapPanel(title="score of the part alone", values=one.alone),
            )
            for one in occluded
        ]
    chosen = gradient_method(votes) if method == "gradient" else method
    maps: list[Map] = attribute(load(votes.title, exact=True), column, frames, chosen, sign=sign)
    raises = "raises" if sign > 0 else "lowers"
    return chosen, [(MapPanel(title=f"{raises} the score ({chosen})", values=one),) for one in maps]


def _measure_boxes(
    votes: VoteStack, column: int, frames: Sequence[Frame], boxes: Sequence[Place | None], config: ExplainConfig
) -> list[tuple[float, float, float]]:
    """(score, score with the box covered, score of the box alone) of each frame; without a box those of all of it."""
    batch = put_frames(frames, votes.stack.device)
    variants = []
    for row, box in enumerate(boxes):
        places = () if box is None else (box,)
        variants += [
            CoveredVariant(row=row),
            CoveredVariant(row=row, places=places),
            CoveredVariant(row=row, places=places, alone=True),
        ]
    first = view_geometry(votes.view, frames[0].pixels.shape, (frames[0].width, frames[0].height))
    window = config.window_px / min(first.wide_px, first.high_px)
    scores = score_variants(votes.stack, batch, variants, config.cover, window)[:, column].tolist()
    return [(scores[start], scores[start + 1], scores[start + 2]) for start in range(0, len(scores), _PER_BOX)]


def _explained(
    score: float,
    settings: str,
    panels: tuple[MapPanel, ...],
    box: Place | None,
    covered: float,
    alone: float,
    sign: float,
) -> ExplainedFrame:
    if math.isnan(score):
        return ExplainedFrame(
            settings=settings, error_code="not_scored", error_detail="the detector gives this frame no score"
        )
    drop = None if box is None or math.isnan(covered) else sign * (score - covered)
    return ExplainedFrame(
        score=score,
        settings=settings,
        panels=panels,
        box=box,
        drop=drop,
        covered=None if drop is None else covered,
        alone=None if box is None or math.isnan(alone) else alone,
    )

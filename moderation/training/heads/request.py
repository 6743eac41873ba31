"""What `moderation train-head` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from moderation.config.model import Config
from moderation.training.heads.backbone import FoundBackbone, find_backbone, takes_side
from moderation.training.heads.labelled import LabelReading

TUNED_INPUT_PX: Final = 288  # of a backbone whose layers are trained: it has a pass of its own anyway
VIEWS: Final = 4  # of each picture, for a probe: more change its figures by less than chance
TUNED_VIEWS: Final = 16  # where layers are trained, which learn few views by heart


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRequest:
    """What to train. blocks: how many of the last layers are trained, too; 0: a linear probe. views: the picture and
    its augmented views. held_share: share of groups held back. test: other labelled pictures, only for the report.
    replay: most pictures that are kept as embeddings, so that the head can be continued; 0: none. input_px: the side
    that the backbone reads; 0: as the stack has it; None: larger where layers are trained. workers: processes that
    train together, for the record.
    """

    images: str
    out: str
    name: str
    backbone: str = "imagenet"
    reading: LabelReading = field(default_factory=LabelReading)
    test: str | None = None
    test_labels: str | None = None
    blocks: int = 0
    views: int = VIEWS
    held_share: float = 0.2
    replay: int = 2000
    licence: str = "unknown"
    cache: Path | None = None
    input_px: int | None = None
    workers: int = 1


def find_requested(config: Config, request: HeadRequest) -> FoundBackbone:
    """The backbone, at the size that it shall read. Raises UsageError."""
    side = request.input_px
    if side is None and request.blocks and takes_side(config, request.backbone):
        side = TUNED_INPUT_PX
    return find_backbone(config, request.backbone, input_px=side or None)

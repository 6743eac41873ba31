"""Non-maximum suppression: keeps the most confident of overlapping boxes."""

from __future__ import annotations

import torch


def load_suppression() -> None:
    """Import torchvision, which takes seconds (models and data sets): when a detector loads, not at the first batch."""
    import torchvision.ops  # noqa: F401


def distinct(boxes: torch.Tensor, overlap: float) -> torch.Tensor:
    """int64 [k]: indices of boxes [n,4], best first, without boxes that overlap a better one by more (IoU).

    For the boxes of one frame: `batched_nms` shifts those of other frames by large numbers, whose float32 rounding
    would make a frame's scores depend on its neighbours.
    """
    from torchvision.ops import nms

    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype, device=boxes.device)
    kept: torch.Tensor = nms(boxes, ranks, overlap)
    return kept

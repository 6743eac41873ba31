"""A face as an ensemble of its parts: the same network on the whole chip and on parts of it, weighted and fused.

A part is the chip with all else in the chip's mean colour, so that the visible part stays where the network expects it.
The weights sum to 1, and the row of a face is the parts' embeddings side by side, each times the square root of its
weight. The squared distance of two rows is then the weighted mean of the parts' squared distances, and matching stays
one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from moderation.config.hints import did_you_mean
from moderation.detectors.faces.chip import CHIP, EMBEDDING
from moderation.errors import UsageError

if TYPE_CHECKING:
    import torch

    from moderation.detectors.faces.network import FaceNetwork
else:
    from moderation.detectors.deferred import torch

# x0, y0, x1, y1 in 0..1 of the chip; the eyes lie at 0.31 of its height, the mouth at 0.72.
PARTS: Final[Mapping[str, tuple[float, float, float, float]]] = {
    "whole": (0.0, 0.0, 1.0, 1.0),
    "mirror": (0.0, 0.0, 1.0, 1.0),  # the whole face, mirrored
    "upper": (0.0, 0.0, 1.0, 0.55),
    "lower": (0.0, 0.45, 1.0, 1.0),
    "left": (0.0, 0.0, 0.55, 1.0),
    "right": (0.45, 0.0, 1.0, 1.0),
    "centre": (0.15, 0.1, 0.85, 0.95),
    "eyes": (0.1, 0.15, 0.9, 0.5),
    "nose": (0.25, 0.25, 0.75, 0.68),
    "mouth": (0.15, 0.58, 0.85, 1.0),
}
DEFAULT_PARTS: Final[Mapping[str, float]] = {"whole": 1.0}
_AT_ONCE: Final = 64  # chips that go through the network at once


def check_parts(parts: object) -> dict[str, float]:
    """Check names of parts and scale their weights to a sum of 1. Raises UsageError that names the nearest part."""
    if not isinstance(parts, Mapping) or not parts:
        raise UsageError("parts of the face: expected at least one NAME=WEIGHT")
    checked: dict[str, float] = {}
    for name, weight in parts.items():
        if name not in PARTS:
            raise UsageError(f"parts of the face: unknown {name!r}{did_you_mean(name, PARTS)}")
        fine = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight <= 1000
        if not fine:
            raise UsageError(f"parts of the face: {name}: the weight must be a number above 0, got {weight!r}")
        checked[str(name)] = float(weight)
    total = sum(checked.values())
    return {name: weight / total for name, weight in checked.items()}


def width_of(parts: Mapping[str, float]) -> int:
    """Numbers in the row of a face."""
    return EMBEDDING * len(parts)


def embed_faces(network: FaceNetwork, chips: torch.Tensor, parts: Mapping[str, float]) -> torch.Tensor:
    """Embed faces: chips float32 [N,3,150,150], RGB 0..255 -> float32 [N,128 times parts]. `parts` as checked."""
    from moderation.detectors.nn.prepare import infer

    rows: list[torch.Tensor] = []
    for start in range(0, len(chips), _AT_ONCE):
        batch = chips[start : start + _AT_ONCE]
        columns = [
            infer(network, _view_part(batch, name, network.means)) * math.sqrt(weight) for name, weight in parts.items()
        ]
        rows.append(torch.cat(columns, dim=1))
    return torch.cat(rows) if rows else chips.new_zeros((0, width_of(parts)))


def _view_part(chips: torch.Tensor, name: str, means: torch.Tensor) -> torch.Tensor:
    x0, y0, x1, y1 = (round(edge * CHIP) for edge in PARTS[name])
    if name == "mirror":
        chips = chips.flip(-1)
    if (x0, y0, x1, y1) != (0, 0, CHIP, CHIP):
        seen = means.expand_as(chips).clone()
        seen[:, :, y0:y1, x0:x1] = chips[:, :, y0:y1, x0:x1]
        chips = seen
    return chips.contiguous(memory_format=torch.channels_last)

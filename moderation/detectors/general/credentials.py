"""Content Credentials as votes: what a file says of its own origin. Extra `provenance`.

It says nothing of a file without a manifest, which most are, and most pictures that a model made have none. No
detector of such pictures ships here: the best of sixteen published ones was right in 75% of cases, and in 18 to 30% for
generators that it had not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import c2pa  # noqa: F401 - the decoder needs it; a stack without it is refused before anything starts

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View
from moderation.detectors.registry import check_options

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch


class ContentCredentials(DetectorDefaults):
    """Labels, 0 or 1: `present` (a manifest lies in the file), `valid` (it is whole and fits the file), `generative`
    (it names a source made by a model). Null on frames other than the first of their file, and where nothing is known.

    It scores no pixels: the decoder reads the manifest (`media.credentials`, which is on where the stack has it).
    """

    name = "c2pa"
    version = "1"
    labels: Sequence[str] = ("present", "valid", "generative")
    view = View(mode="canvas")
    cost_ms = 0.2

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {})

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Needs no weights."""

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """What the decoder read of each frame's file."""
        rows = [[of.get(f"c2pa.{label}", math.nan) for label in self.labels] for of in batch.readings]
        return Scored(scores=torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(self.labels)))

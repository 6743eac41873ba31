"""What a detector is: the protocol that the stack calls and the contract suite holds.

Shape suffixes: B frames of a batch, C channels, H height, W width, L labels, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from moderation.types import F32, Region


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a detector wants its pictures. Derived on the device from the canvas, batched, shared by equal views.

    squash: to width x height whatever the aspect, then `crop` from the centre.
    crop:   short side to `resize`, then the centre `crop` x `crop`.
    fit:    whole picture inside crop x crop on a blurred copy of itself; `lanczos` is for this one only.
    canvas: the frames as decoded, sizes differ; the detector reads `FrameBatch.frames_HWC` itself.
    """

    mode: Literal["squash", "crop", "fit", "canvas"]
    resize: int = 0
    crop: int = 0
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Where a detector's weights come from, and under which terms."""

    locator: str  # pkg:// file:// s3:// hf://
    sha256: str
    licence: str
    origin: str  # repository or model card
    size_bytes: int | None = None  # where known, to say so when the file is missing


class FrameBatch(Protocol):
    """Frames on the device, uint8, and the views derived from them (each computed once)."""

    @property
    def frames_HWC(self) -> Sequence[torch.Tensor]:  # noqa: N802 - shape suffix
        """uint8 [H,W,3] a frame, RGB, on the device; sizes differ."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each picture as stored, before scaling to the canvas."""

    @property
    def device(self) -> torch.device:
        """Where the frames are."""

    def view(self, view: View) -> torch.Tensor:
        """float32 [B,3,h,w], RGB, 0..255."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What a detector says of a batch.

    scores: float32 [B,L] on any device; NaN = not computed.
    embedding: float [B,D], not normalised, on the device; for heads that share it.
    regions: a list a frame. blobs: "hash" -> one bytes value (or None) a frame.
    labels: of the columns of `scores`; the stack fills them in for those who read them.
    points: float32 [n,P,2] a frame, x and y in 0..1 of it, of each of its n regions; for detectors that read them.
    """

    scores: torch.Tensor
    embedding: torch.Tensor | None = None
    regions: Sequence[Sequence[Region]] | None = None
    blobs: Mapping[str, Sequence[bytes | None]] = field(default_factory=dict)
    labels: Sequence[str] = ()
    points: Sequence[F32] | None = None


class Detector(Protocol):
    """A model or a measurement that scores frames.

    Built as `DetectorClass(options)` by the stack (cheap: no weights, no device; raises UsageError on wrong
    options), then `load()`ed once in the worker. Holds no state between calls.

    An attribute `optional: Sequence[str]` may name detectors that it reads where the stack has them before it. Of one
    behind a `when:` the frames that were not asked are NaN in its scores; it then offers no embedding.
    """

    name: str
    version: str  # changes whenever the same frame may score differently
    labels: Sequence[str]  # columns of the votes table are `<name>.<label>`
    view: View
    cost_ms: float  # a frame, on two CPU cores; for ordering and `doctor`
    weights: Sequence[Weights]
    requires: Sequence[str]  # detectors whose `Scored` this one reads
    embedding_dim: int  # 0: none
    blob_sizes: Mapping[str, int]  # "hash" -> bytes

    def __init__(self, options: Mapping[str, Any]) -> None: ...

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights (local files, in the order of `weights`, already checked) and move to the device."""

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """Score a batch; rows in = rows out, in order. Runs under inference_mode, and autocast when bf16."""

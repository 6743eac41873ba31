"""The detector protocol that the stack calls and the contract suite tests.

Shape suffixes: B frames of a batch, C channels, H height, W width, L labels, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from moderation.types import F32, U8, Region

if TYPE_CHECKING:
    import torch
    from torch import nn

    from moderation.detectors.nn.class_mean import ClassVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The form in which a detector reads pictures: derived on the device, batched, shared by equal views.

    squash: to width x height whatever the aspect, then `crop` from the centre.
    crop:   short side to `resize`, then the centre `crop` x `crop`.
    fit:    whole picture inside crop x crop on a blurred copy of itself; only this mode supports `lanczos`.
    canvas: the frames as decoded, of different sizes; the detector reads `FrameBatch.frames_HWC` itself.
    """

    mode: Literal["squash", "crop", "fit", "canvas"]
    resize: int = 0
    crop: int = 0
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Locator, licence and origin of a detector's weights."""

    locator: str  # pkg:// file:// s3:// hf://
    sha256: str
    licence: str
    origin: str  # repository or model card
    size_bytes: int | None = None  # where known, for the message when the file is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedFrames:
    """Frames of similar shape in one tensor.

    pixels_BHWC: uint8, on the device; pixels below and to the right of a frame are undefined. rows: the index in the
    batch of each frame.
    """

    pixels_BHWC: torch.Tensor  # noqa: N815 - shape suffix
    rows: tuple[int, ...]

    def select(self, indices: Sequence[int]) -> PaddedFrames | None:
        """Its frames that are among the batch's `indices`, rows counted within these; None where there are none."""
        place_of = {row: place for place, row in enumerate(self.rows)}
        kept = [(place_of[row], place) for place, row in enumerate(indices) if row in place_of]
        if not kept:
            return None
        return PaddedFrames(
            pixels_BHWC=self.pixels_BHWC[[source for source, _ in kept]], rows=tuple(place for _, place in kept)
        )


class FrameBatch(Protocol):
    """Frames on the device, uint8, and the views derived from them (each computed once)."""

    @property
    def frames_HWC(self) -> Sequence[torch.Tensor]:  # noqa: N802 - shape suffix
        """uint8 [H,W,3] per frame, RGB, on the device; sizes differ."""

    @property
    def host_HWC(self) -> Sequence[U8]:  # noqa: N802 - shape suffix
        """uint8 [H,W,3] per frame, RGB, in the host's memory, for what a CPU does better."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each picture as stored, before scaling to the canvas."""

    @property
    def readings(self) -> Sequence[Mapping[str, float]]:
        """Of each frame, what its whole file says of itself; see `types.Frame`."""

    @property
    def device(self) -> torch.device:
        """The device that the frames are on."""

    @property
    def padded(self) -> Sequence[PaddedFrames]:
        """The frames in groups of similar shape, to process many at once; empty on a CPU."""

    def view(self, view: View) -> torch.Tensor:
        """float32 [B,3,h,w], RGB, 0..255."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The results of a detector for a batch.

    scores: float32 [B,L] on any device; NaN = not computed.
    embedding: float [B,D], not normalised, on the device; for heads that share it.
    regions: one list per frame. blobs: "hash" -> one bytes value (or None) per frame.
    labels: of the columns of `scores`; the stack fills them in for detectors that read these results.
    points: float32 [n,P,2] per frame, x and y in 0..1 of it, for each of its n regions; for detectors that read them.
    features: depth -> [B,C,h,w] on the device, what the network had computed by then; only what `offer_features` named.
    class_mean: float32 [B,D] on the device, of `nn.class_mean`; only after `offer_class_mean`.
    """

    scores: torch.Tensor
    embedding: torch.Tensor | None = None
    regions: Sequence[Sequence[Region]] | None = None
    blobs: Mapping[str, Sequence[bytes | None]] = field(default_factory=dict)
    labels: Sequence[str] = ()
    points: Sequence[F32] | None = None
    features: Mapping[int, torch.Tensor] = field(default_factory=dict)
    class_mean: torch.Tensor | None = None


@runtime_checkable
class Backbone(Protocol):
    """A detector whose network others build on: from its embedding, or from the features at a depth of it."""

    def build_trunk(self) -> nn.Sequential:
        """Its layers as they are before weights: features of the last, averaged over the picture, are its embedding."""

    def trunk(self) -> nn.Sequential:
        """The loaded layers."""

    def offer_features(self, depth: int) -> None:
        """Hand on what comes out of the first `depth` layers, in `Scored.features`. Call it before `load()`."""


@runtime_checkable
class ClassifyingBackbone(Protocol):
    """A detector whose network is a classifier of many classes, among which others may place a picture."""

    def class_vectors(self) -> ClassVectors:
        """The loaded classifier, on its device."""

    def offer_class_mean(self) -> None:
        """Hand on `Scored.class_mean`. Call it before `load()`."""


class Detector(Protocol):
    """A model or a measurement that scores frames.

    The registry builds it as `DetectorClass(options)` (cheap: no weights, no device; raises UsageError on wrong
    options). Then it takes its weights and is loaded once in the worker. It keeps no state between calls.
    `DetectorDefaults` has the members that most detectors leave as they are.

    Gradients: after `load()` the networks run in inference mode with packed weights, which carry no gradients.
    `unpack()` drops the packing; then a network of `networks`, run under `nn.gradients.with_gradients` on
    `nn.gradients.as_leaf(x)`, gives a gradient with respect to its input. Its scores stay within the parity tolerance
    but it becomes slower, so unpack a detector of your own, never one that scores shards. Parameters stay frozen.
    """

    name: str
    version: str  # changes whenever the same frame may score differently
    labels: Sequence[str]  # columns of the votes table are `<name>.<label>`
    view: View
    cost_ms: float  # per frame, on two CPU cores; for ordering and `doctor`
    weights: Sequence[Weights]
    requires: Sequence[str]  # detectors whose `Scored` it reads
    # Detectors that it reads where the stack has them before it. Behind a `when:` the scores of frames that do not meet
    # it are NaN, and such a detector offers no embedding.
    optional: Sequence[str]
    ranges: Mapping[str, tuple[float, float]]  # label -> lowest and highest score, where not 0..1
    embedding_dim: int  # 0: none
    blob_sizes: Mapping[str, int]  # "hash" -> bytes
    networks: Sequence[nn.Module]  # loaded, for compilation and gradients; empty before `load()`

    def __init__(self, options: Mapping[str, Any]) -> None: ...

    def take_weights(self, weights: Sequence[Weights]) -> None:
        """Take the weights of the configuration; labels may follow from them. Raises UsageError, FatalError."""

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights (local files, in the order of `weights`, already verified) and move to the device."""

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """Score a batch; rows in = rows out, in order. Runs under inference_mode, and autocast when bf16."""

    def unpack(self) -> None:
        """Switch the networks to plain operators, which carry gradients."""


class DetectorDefaults:
    """Defaults of most detectors: no weights, no embedding, no blobs, scores in 0..1, no other detectors read.

    Inheriting is not required; a class that lacks a member is refused with the member's name (`registry.build`).
    """

    weights: Sequence[Weights] = ()
    requires: Sequence[str] = ()
    optional: Sequence[str] = ()
    ranges: Mapping[str, tuple[float, float]] = {}
    embedding_dim: int = 0
    blob_sizes: Mapping[str, int] = {}
    networks: Sequence[nn.Module] = ()

    def take_weights(self, weights: Sequence[Weights]) -> None:
        """Replace its own weights by these."""
        self.weights = weights

    def unpack(self) -> None:
        """Switch every network to plain operators."""
        from moderation.detectors.nn.gradients import unpack_network

        for network in self.networks:
            unpack_network(network)

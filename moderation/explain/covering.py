"""Frames with a part covered, or with all but a part covered: many variants of a few frames in one batch.

Each view is derived once from the frames as they are, and covered there: resampling 121 copies of a picture would take
as long as scoring them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F

from moderation.detectors.base import PaddedFrames, View
from moderation.detectors.views import TensorFrames
from moderation.explain.windows import Place, view_geometry
from moderation.types import U8, Frame

_GREY: Final = 127.0
COVERS: Final = ("local_mean", "picture_mean", "grey", "black")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredVariant:
    """One way to cover a frame. row: of the frame. places: covered; with `alone`, all but these is.

    No places: the frame as it is; with `alone`, covered whole.
    """

    row: int
    places: tuple[Place, ...] = ()
    alone: bool = False


def put_frames(frames: Sequence[Frame], device: torch.device) -> TensorFrames:
    """Decoded frames on a device, as a stack puts them."""
    sizes, readings = [(f.width, f.height) for f in frames], [f.readings for f in frames]
    return TensorFrames([f.pixels for f in frames], sizes, device, readings)


class CoveredFrames:
    """Variants of frames on a device; a `FrameBatch` that detectors read like any other.

    cover: one of `COVERS`; window: the side of a window as a share of the frame's short side, for the local mean.
    covers: what frames are covered with, kept between batches of the same frames.
    """

    def __init__(
        self,
        frames: TensorFrames,
        variants: Sequence[CoveredVariant],
        cover: str,
        window: float,
        covers: dict[tuple[View | None, int], torch.Tensor] | None = None,
    ) -> None:
        self._frames = frames
        self._variants = tuple(variants)
        self._cover, self._window = cover, window
        self._covers = {} if covers is None else covers
        self._canvases: TensorFrames | None = None

    @property
    def frames_HWC(self) -> Sequence[torch.Tensor]:  # noqa: N802 - shape suffix
        """uint8 [H,W,3] per variant, RGB, on the device."""
        return self._covered_canvases().frames_HWC

    @property
    def host_HWC(self) -> Sequence[U8]:  # noqa: N802 - shape suffix
        """The same in the host's memory."""
        return self._covered_canvases().host_HWC

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each variant's picture as stored."""
        return [self._frames.sizes[variant.row] for variant in self._variants]

    @property
    def readings(self) -> Sequence[Mapping[str, float]]:
        """What the file of each variant's picture says of itself: covering changes nothing of it."""
        return [self._frames.readings[variant.row] for variant in self._variants]

    @property
    def device(self) -> torch.device:
        """The device that the frames are on."""
        return self._frames.device

    @property
    def padded(self) -> Sequence[PaddedFrames]:
        """The variants in groups of similar shape; empty on a CPU."""
        return self._covered_canvases().padded

    def __len__(self) -> int:
        return len(self._variants)

    def select(self, indices: Sequence[int]) -> CoveredFrames:
        """The variants at these indices."""
        chosen = [self._variants[i] for i in indices]
        return CoveredFrames(self._frames, chosen, self._cover, self._window, self._covers)

    def view(self, view: View) -> torch.Tensor:
        """float32 [B,3,h,w] RGB 0..255, channels_last in memory."""
        whole = self._frames.view(view)
        shapes = [tuple(frame.shape) for frame in self._frames.frames_HWC]
        geometries = [view_geometry(view, *of) for of in zip(shapes, self._frames.sizes, strict=True)]
        short_px = [min(geometry.wide_px, geometry.high_px) for geometry in geometries]
        out = torch.empty((len(self._variants), *whole.shape[1:]), dtype=whole.dtype, device=whole.device)
        out = out.contiguous(memory_format=torch.channels_last)
        for index, variant in enumerate(self._variants):
            boxes = [geometries[variant.row].to_view(place) for place in variant.places]
            cover = self._cover_for(view, variant.row, whole[variant.row], short_px[variant.row])
            _fill(out[index], whole[variant.row], cover, boxes, alone=variant.alone)
        return out

    def _cover_for(self, view: View | None, row: int, pixels: torch.Tensor, short_px: float) -> torch.Tensor:
        """What covers a frame in a view; view None: in the canvas."""
        if (view, row) not in self._covers:
            self._covers[view, row] = cover_of(pixels, self._cover, self._window * short_px)
        return self._covers[view, row]

    def _covered_canvases(self) -> TensorFrames:
        """The canvases, covered: for detectors that read these."""
        if self._canvases is None:
            sizes = [self._frames.sizes[variant.row] for variant in self._variants]
            self._canvases = TensorFrames([self._canvas(v) for v in self._variants], sizes, self.device)
        return self._canvases

    def _canvas(self, variant: CoveredVariant) -> U8:
        pixels = self._frames.frames_HWC[variant.row].permute(2, 0, 1).to(torch.float32)
        high, wide = pixels.shape[1:]
        boxes = [
            (round(x0 * wide), round(y0 * high), round(x1 * wide), round(y1 * high))
            for x0, y0, x1, y1 in variant.places
        ]
        covered = torch.empty_like(pixels)
        cover = self._cover_for(None, variant.row, pixels, min(high, wide))
        _fill(covered, pixels, cover, boxes, alone=variant.alone)
        canvas: U8 = covered.round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
        return canvas


def _fill(
    out: torch.Tensor,
    whole: torch.Tensor,
    cover: torch.Tensor,
    boxes: Sequence[tuple[int, int, int, int]],
    *,
    alone: bool,
) -> None:
    """Write a variant into `out`, float32 [3,h,w]. boxes: left, top, right, bottom in pixels."""
    around, within = (cover, whole) if alone else (whole, cover)
    out.copy_(around)
    for left, top, right, bottom in boxes:
        out[:, top:bottom, left:right] = within[:, top:bottom, left:right]


def cover_of(pixels: torch.Tensor, cover: str, window_px: float) -> torch.Tensor:
    """What a picture is covered with, float32 [3,h,w]: see `ExplainConfig.cover`. window_px: of the local mean."""
    if cover == "local_mean":
        return _local_mean(pixels, max(1, int(window_px) // 2))
    if cover == "picture_mean":
        return pixels.mean(dim=(1, 2), keepdim=True).expand_as(pixels)
    return torch.full_like(pixels, _GREY if cover == "grey" else 0.0)


def _local_mean(pixels: torch.Tensor, half: int) -> torch.Tensor:
    """The mean of the square of 2 half + 1 pixels a side around each pixel, of what is within the picture."""
    mean = pixels[None].contiguous()
    for kernel, padding in (((2 * half + 1, 1), (half, 0)), ((1, 2 * half + 1), (0, half))):
        mean = F.avg_pool2d(mean, kernel, stride=1, padding=padding, count_include_pad=False)
    return mean[0]

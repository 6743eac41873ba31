"""Technical quality of a picture: sharpness, brightness, contrast, entropy, resolution. Measured, no weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View
from moderation.detectors.registry import check_options
from moderation.detectors.transfer import to_device

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

# Rec. 601, as JPEG and PDQ.
LUMA: Final = (0.299, 0.587, 0.114)
_LEVELS: Final = 256


class QualityDetector(DetectorDefaults):
    """Five measurements; all but `megapixels` are of luma (0.299 R + 0.587 G + 0.114 B, rounded) at a fixed
    scale.

    The scale is that of open_nsfw's view, so it needs no resampling of its own: the picture squashed to 256x256, then
    its centre 224x224, which is 7/8 of each side. It is fixed because sharpness at different sizes is not comparable,
    and small because the score then means "blurred as a thumbnail", not "out of focus at 24 megapixels".

    - `sharpness`: variance of the Laplacian (4 neighbours) of luma 0..255; levels squared, 0 and up. Below about 100 a
      picture is blurred (or flat); ordinary photographs have 500 to 8000. After Pech-Pacheco et al., ICPR 2000.
    - `brightness`: mean luma, 0 (black) to 1 (white).
    - `contrast`: standard deviation of luma, 0 (one grey) to 0.5 (half black, half white).
    - `entropy`: of the histogram of luma in 256 levels, 0 (one level) to 8 bits; below about 3 a drawing or a blank.
    - `megapixels`: width times height of the stored picture, in millions.
    """

    name = "quality"
    version = "1"
    labels: Sequence[str] = ("sharpness", "brightness", "contrast", "entropy", "megapixels")
    # Ranges of the scores; `tests/contract` checks them (default 0..1).
    ranges: Mapping[str, tuple[float, float]] = {
        "sharpness": (0.0, 1_040_400.0),  # a chessboard of single pixels: (4 * 255)^2
        "brightness": (0.0, 1.0),
        "contrast": (0.0, 0.5),
        "entropy": (0.0, 8.0),
        "megapixels": (0.0, 1e6),
    }
    view = View(mode="squash", resize=256, crop=224, interpolation="bilinear")
    cost_ms = 0.4

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {})

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Nothing to load."""

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,5]."""
        # Not in bf16: its 8 bits are too few for a variance.
        with torch.autocast(batch.device.type, enabled=False):
            luma = to_luma(batch.view(self.view))
            megapixels = to_device([w * h / 1e6 for w, h in batch.sizes], torch.float32, batch.device)
            histogram = luma_histogram(luma)
            mean, deviation = moments(histogram)
            columns = [sharpness(luma), mean / 255, (deviation / 255).clamp_(max=0.5), entropy(histogram), megapixels]
        return Scored(scores=torch.stack(columns, dim=1))


def to_luma(pixels: torch.Tensor) -> torch.Tensor:
    """float32 RGB [B,3,H,W] 0..255 -> luma [B,H,W] 0..255, integers in float32."""
    red, green, blue = pixels.unbind(dim=1)
    # Rows of their own: the planes of a channels_last view have a stride of three.
    luma = torch.empty(red.shape, dtype=torch.float32, device=pixels.device)
    torch.mul(red, LUMA[0], out=luma)
    luma.add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).round_()
    return luma


def sharpness(luma: torch.Tensor) -> torch.Tensor:
    """Variance of the 4-neighbour Laplacian, borders left out; [B,H,W] in levels -> [B] in levels squared."""
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
    laplacian.add_(luma[:, 1:-1, :-2]).add_(luma[:, 1:-1, 2:]).sub_(luma[:, 1:-1, 1:-1], alpha=4)
    # Its mean is close to 0, so nothing cancels; torch's own var takes eight times as long.
    mean = laplacian.mean(dim=(1, 2))
    return (laplacian.square_().mean(dim=(1, 2)) - mean.square()).clamp_(min=0)


def luma_histogram(luma: torch.Tensor) -> torch.Tensor:
    """The share of each of 256 levels: [B,H,W] -> float32 [B,256], rows sum to 1."""
    if not len(luma):
        return luma.new_zeros((0, _LEVELS))
    counts = _count_each(luma) if luma.device.type == "cpu" else count_together(luma)
    return counts.to(torch.float32) / luma[0].numel()


def _count_each(luma: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.bincount(row.flatten(), minlength=_LEVELS) for row in luma.to(torch.uint8)])


def count_together(luma: torch.Tensor) -> torch.Tensor:
    """Pixels per level, [B,H,W] -> int32 [B,256], all frames in one call: each bincount would wait for the device."""
    levels = luma.flatten(1).to(torch.int64)
    counts = torch.zeros((len(luma), _LEVELS), dtype=torch.int32, device=luma.device)
    return counts.scatter_add_(1, levels, torch.ones_like(levels, dtype=torch.int32))


def moments(histogram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation in levels: [B,256] -> [B], [B]."""
    levels = torch.arange(_LEVELS, dtype=torch.float32, device=histogram.device)
    mean = histogram @ levels
    distance = levels - mean.unsqueeze(1)
    return mean, (histogram * distance.square()).sum(dim=1).sqrt()


def entropy(histogram: torch.Tensor) -> torch.Tensor:
    """Entropy of a histogram of shares: [B,256] -> [B] in bits."""
    nats: torch.Tensor = torch.special.entr(histogram).sum(dim=1)
    return nats / math.log(2)

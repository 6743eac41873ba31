"""Skin by colour and texture, after Fleck, Forsyth and Bregler: the classical baseline, a poor one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View
from moderation.detectors.registry import check_options

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
else:
    from moderation.detectors.deferred import functional as F
    from moderation.detectors.deferred import torch

_SIDE: Final = 56  # a quarter of the view: only large skin regions count (5% of a picture is 12 x 12 here)
_LOG: Final = 105.0  # L(x) = 105 log10(x + 1): 0 to 253, about the range of a byte
_TEXTURE: Final = 5.0  # skin is smooth: its amplitude is at most this, in units of L

# (hue in degrees, saturation): smooth pixels within either range are skin; pixels beside them need only the last.
_PALE: Final = ((110.0, 150.0), (20.0, 60.0))
_DARK: Final = ((130.0, 170.0), (30.0, 130.0))
_BESIDE: Final = ((110.0, 180.0), (0.0, 130.0))
_GROWTH: Final = 3  # steps, of one pixel each

_MIN_REGION: Final = 0.005  # of the picture: smaller regions are not counted
_MAX_ROUNDS: Final = 128  # of labelling; a spiral that needs more counts as two regions. Photographs need < 30


class Skin(DetectorDefaults):
    """Share and shape of skin-coloured regions; measured, no weights.

    - `share`: the share of the picture that is skin, 0..1.
    - `largest`: the share of the largest connected region, 0..1.
    - `fill`: the share of its bounding box that this region fills, 0..1: limbs and backs are compact, wood and sand are
      ragged.
    - `regions`: the number of connected regions of at least 0.5% of the picture.

    After Fleck, Forsyth and Bregler, "Finding Naked People", ECCV 1996: log-opponent colours Rg = L(R) - L(G) and
    By = L(B) - (L(R) + L(G)) / 2, hue their angle and saturation their length; skin lies between the red of blood and
    the yellow of melanin, and is smooth. Here at 56 x 56 pixels, with medians of 3 x 3 and texture means of 5 x 5.

    It is poor: use it only for comparison and as a first gate. At a share of 30% it flags 63 of the 200 sample
    photographs (one per ImageNet class, none explicit): 23 of their 79 animals, a projector, a quilt, a loafer and a
    bakery before the first person. It flags three of six portraits of people in suits. It knows no context: wood, sand,
    fur and bread count as skin; very pale skin (224, 172, 140) and skin in coloured light or monochrome do not. It does
    not tell which part of a body is shown.
    """

    name = "skin"
    version = "1"
    labels: Sequence[str] = ("share", "largest", "fill", "regions")
    ranges: Mapping[str, tuple[float, float]] = {"regions": (0.0, 1 / _MIN_REGION)}
    # The view of open_nsfw and quality: costs no resampling of its own beside them.
    view = View(mode="squash", resize=256, crop=224, interpolation="bilinear")
    cost_ms = 3.5

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {})

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Nothing to load."""

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,4]."""
        pixels = batch.view(self.view)
        if not len(pixels):
            return Scored(scores=pixels.new_zeros((0, len(self.labels))))
        # Not in bf16: its 8 bits are too few for a difference of logarithms near the edge of a range.
        with torch.autocast(batch.device.type, enabled=False):
            skin = find_skin(F.avg_pool2d(pixels, pixels.shape[-1] // _SIDE))
            return Scored(scores=describe_regions(skin))


def find_skin(pixels: torch.Tensor) -> torch.Tensor:
    """bool [B,h,w] from RGB float32 [B,3,h,w], 0..255."""
    red, green, blue = (_LOG * torch.log10(pixels + 1)).unbind(dim=1)
    light = (red + green + blue) / 3
    rg = red - green
    by = blue - (red + green) / 2
    hue = torch.rad2deg(torch.atan2(rg, by))
    saturation = torch.hypot(rg, by)
    smooth = _amplitude(light) < _TEXTURE
    skin = smooth & (_within(hue, saturation, _PALE) | _within(hue, saturation, _DARK))
    beside = _within(hue, saturation, _BESIDE)
    for _ in range(_GROWTH):
        skin = skin | (beside & (F.max_pool2d(skin.float(), 3, stride=1, padding=1) > 0))
    return skin


def describe_regions(skin: torch.Tensor) -> torch.Tensor:
    """share, largest, fill, regions of a mask: bool [B,h,w] -> float32 [B,4]."""
    count, height, width = skin.shape
    area = height * width
    names = label_regions(skin).view(count, area)
    sizes = torch.zeros((count, area + 1), device=skin.device).scatter_add_(
        1, names, torch.ones((count, area), device=skin.device)
    )
    sizes[:, 0] = 0  # label 0 is not skin
    largest, which = sizes.max(dim=1)
    inside = (names == which.unsqueeze(1)).view(count, height, width) & skin
    rows, columns = inside.any(dim=2), inside.any(dim=1)
    box = _span(rows) * _span(columns)
    fill = torch.where(largest > 0, largest / box.clamp_(min=1), torch.zeros_like(largest))
    regions = (sizes >= _MIN_REGION * area).sum(dim=1)
    share = skin.flatten(1).float().mean(dim=1)
    return torch.stack([share, largest / area, fill, regions.float()], dim=1)


def label_regions(mask: torch.Tensor) -> torch.Tensor:
    """A number for each connected region (8 neighbours): bool [B,h,w] -> int64 [B,h,w], 0 outside.

    In each round every pixel takes the largest number around it, then the number of the pixel that this number names,
    which doubles the distance covered; until nothing changes.
    """
    count, height, width = mask.shape
    # float32 is exact up to 2^24, and max_pool2d takes no integers.
    own = torch.arange(1, height * width + 1, dtype=torch.float32, device=mask.device).view(1, height, width)
    names = own * mask
    for _ in range(_MAX_ROUNDS):
        spread = F.max_pool2d(names, 3, stride=1, padding=1) * mask
        flat = spread.view(count, -1)
        jumped = flat.gather(1, (flat.long() - 1).clamp_(min=0)).view_as(spread) * mask
        jumped = torch.maximum(spread, jumped)
        if torch.equal(jumped, names):
            break
        names = jumped
    return names.long()


def _amplitude(light: torch.Tensor) -> torch.Tensor:
    """The mean deviation of pixels from the median around them: [B,h,w] -> [B,h,w]."""
    distance = (light - _median(light)).abs()
    return F.avg_pool2d(distance.unsqueeze(1), 5, stride=1, padding=2, count_include_pad=False).squeeze(1)


def _median(light: torch.Tensor) -> torch.Tensor:
    """The median of 3 x 3, edges repeated: [B,h,w] -> [B,h,w]. By minima and maxima: torch's own is ten times slower.

    Columns are sorted first; the median of nine is then that of the largest minimum, the median middle and the smallest
    maximum.
    """
    padded = F.pad(light.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    low, middle, high = _sort3(padded[:, :-2], padded[:, 1:-1], padded[:, 2:])
    largest_low = torch.maximum(torch.maximum(low[..., :-2], low[..., 1:-1]), low[..., 2:])
    smallest_high = torch.minimum(torch.minimum(high[..., :-2], high[..., 1:-1]), high[..., 2:])
    _, between, _ = _sort3(middle[..., :-2], middle[..., 1:-1], middle[..., 2:])
    return _sort3(largest_low, between, smallest_high)[1]


def _sort3(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.minimum(low, c), torch.maximum(low, torch.minimum(high, c)), torch.maximum(high, c)


def _within(
    hue: torch.Tensor, saturation: torch.Tensor, bounds: tuple[tuple[float, float], tuple[float, float]]
) -> torch.Tensor:
    (low_hue, high_hue), (low, high) = bounds
    return (hue > low_hue) & (hue < high_hue) & (saturation > low) & (saturation < high)


def _span(used: torch.Tensor) -> torch.Tensor:
    """The distance from the first to the last true value: bool [B,n] -> float32 [B], 0 where there is none."""
    length = used.shape[1]
    places = torch.arange(length, dtype=torch.float32, device=used.device)
    first = torch.where(used, places, torch.full_like(places, length)).amin(dim=1)
    last = torch.where(used, places, torch.full_like(places, -1.0)).amax(dim=1)
    return (last - first + 1).clamp_(min=0)

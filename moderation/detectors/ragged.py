"""Frames of many sizes resampled together: a few matrix products per batch, for devices with slow calls.

Resampling is linear: each frame becomes rows @ pixels @ columns.T, with small weights that depend on its size alone.
Frames lie padded in one tensor, the weights of all are computed on the device, and padding has weight 0. Frame by frame
a batch of 64 sizes takes hundreds of calls of a few microseconds each, for which the device waits.

Shape suffixes: B frames, S side of the view, H and W padded height and width, N either of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import torch

from moderation.detectors.base import View
from moderation.detectors.transfer import to_device
from moderation.types import U8

Kernel = Literal["bilinear", "bicubic", "lanczos"]

# Frames whose padded sizes differ by more than this share no tensor, because padding is computed too.
_BUCKET_RATIO = 1.5
# More threads copy no faster than memory allows.
_COPY_THREADS = 4
_MIDDLE = 128  # of the levels
# The reach of each kernel from its centre, in source pixels, where the picture is not made smaller.
_REACH: dict[Kernel, int] = {"bilinear": 1, "bicubic": 2, "lanczos": 3}


class Axis(NamedTuple):
    """One axis of one frame: source pixels `start` to `start + length` become `out` pixels; the view shows those from
    `first` on (negative: the view begins before them). A tuple: a batch makes and compares a thousand."""

    start: int
    length: int
    out: int
    first: int


def view_axes(
    shapes: Sequence[Sequence[int]], boxes: Sequence[tuple[int, int, int, int]], view: View
) -> tuple[list[Axis], list[Axis]]:
    """(vertical, horizontal) axes of a view, for frames of (height, width, ...); boxes: of each frame in the view."""
    pairs = [_axes_of(shape, box, view) for shape, box in zip(shapes, boxes, strict=True)]
    return [vertical for vertical, _ in pairs], [horizontal for _, horizontal in pairs]


def _axes_of(shape: Sequence[int], box: tuple[int, int, int, int], view: View) -> tuple[Axis, Axis]:
    height, width = shape[:2]
    if view.mode == "fit":
        x, y, wide, high = box
        return Axis(start=0, length=height, out=high, first=-y), Axis(start=0, length=width, out=wide, first=-x)
    if view.mode == "squash":
        return _cropped(0, height, view.resize, view.crop), _cropped(0, width, view.resize, view.crop)
    top, high = middle_of(height, width)
    left, wide = middle_of(width, height)
    # The long side is truncated, as in torchvision's Resize.
    rows, columns = (int(view.resize * side / min(high, wide)) for side in (high, wide))
    return _cropped(top, high, rows, view.crop), _cropped(left, wide, columns, view.crop)


def _cropped(start: int, length: int, out: int, crop: int) -> Axis:
    return Axis(start=start, length=length, out=out, first=round((out - crop) / 2))


def middle_of(side: int, other: int) -> tuple[int, int]:
    """(start, length) of the pixels read along a side: of a long strip its middle, twice as long as the strip is wide.

    That is the centre square and far more margin than a filter reaches. Nearly square pictures are left whole: cutting
    them to the crop's pixels would shift their sampling grid by a fraction of a pixel.
    """
    if side <= 3 * other:
        return 0, side
    return (side - 2 * other) // 2, 2 * other


def bucket_frames(shapes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of frames that share a padded tensor. shapes: (height, width, ...) of each."""
    buckets: dict[tuple[int, int], list[int]] = {}
    for index, shape in enumerate(shapes):
        height, width = (round(math.log(max(1, side), _BUCKET_RATIO)) for side in shape[:2])
        buckets.setdefault((height, width), []).append(index)
    return list(buckets.values())


def pad_frames(frames: Sequence[U8], *, pinned: bool = False) -> torch.Tensor:
    """uint8 [h,w,3] each -> uint8 [B,H,W,3] on the host; pixels below and to the right are undefined: they weigh 0.

    pinned: in memory that a device can copy from by itself.
    """
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    padded = torch.empty((len(frames), height, width, 3), dtype=torch.uint8, pin_memory=pinned)
    target = padded.numpy()

    def fill(index: int) -> None:
        frame = frames[index]
        target[index, : frame.shape[0], : frame.shape[1]] = frame

    # numpy copies without the GIL; a single thread copies some 5 GB/s, which is less than a device scores.
    with ThreadPoolExecutor(_COPY_THREADS) as pool:
        for _ in pool.map(fill, range(len(frames))):
            pass
    return padded


def resample(
    padded_BHWC: torch.Tensor,  # noqa: N803 - shape suffix
    vertical: Sequence[Axis],
    horizontal: Sequence[Axis],
    side: int,
    kernel: Kernel,
) -> torch.Tensor:
    """uint8 [B,H,W,3] -> float32 [B,3,S,S], whole numbers 0..255; 0 where a frame has no pixel of the view.

    bilinear and bicubic: as torch does with `antialias=True`. lanczos: as libvips, rows rounded before columns.
    """
    count, height, width, _ = padded_BHWC.shape
    device = padded_BHWC.device
    # Tensor cores multiply 16-bit numbers ten times as fast as float32 ones. Levels are exact in them, weights are off
    # by 2^-12 of themselves: less than a tenth of a level, and half as much when levels are counted from the middle.
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with torch.autocast(device.type, enabled=False):
        rows_BSH = axis_weights(vertical, side, height, kernel, device)  # noqa: N806
        columns_BSW = axis_weights(horizontal, side, width, kernel, device)  # noqa: N806
        pixels = padded_BHWC.reshape(count, height, width * 3).to(dtype) - _MIDDLE
        shorter = (rows_BSH.to(dtype) @ pixels).view(count, side, width, 3).permute(0, 3, 1, 2)
        if kernel == "lanczos":
            shorter = shorter.round().clamp_(-_MIDDLE, 255 - _MIDDLE)
        levels = (shorter @ columns_BSW.to(dtype).transpose(1, 2)[:, None]).float()
        # The sums are 1 where the view shows the frame, else 0.
        levels += _MIDDLE * (rows_BSH.sum(dim=2)[:, None, :, None] * columns_BSW.sum(dim=2)[:, None, None])
        return levels.round_().clamp_(0, 255)


def axis_weights(axes: Sequence[Axis], side: int, padded: int, kernel: Kernel, device: torch.device) -> torch.Tensor:
    """float32 [B,S,N]: the weight of each source pixel of each frame in each pixel of the view."""
    # Many frames have a side in common with others.
    unlike = {axis: place for place, axis in enumerate(dict.fromkeys(axes))}
    weights = _unlike_weights(list(unlike), side, padded, kernel, device)
    if len(unlike) == len(axes):
        return weights
    return weights[to_device([unlike[axis] for axis in axes], torch.int64, device)]


def _unlike_weights(axes: Sequence[Axis], side: int, padded: int, kernel: Kernel, device: torch.device) -> torch.Tensor:
    start, length, out, first = to_device(axes, torch.float32, device).T[:, :, None, None]
    scale: torch.Tensor = length / out
    target = torch.arange(side, device=device, dtype=torch.float32)[None, :, None] + first
    # With a margin on both sides: a kernel's weight beyond an edge is folded back onto the edge.
    reach = math.ceil(_REACH[kernel] * max(1.0, max(a.length / a.out for a in axes))) + 2 if kernel == "lanczos" else 0
    source = torch.arange(-reach, padded + reach, device=device, dtype=torch.float32)[None, None, :] - start
    weights = _kernel_at(source, target, scale, kernel)
    weights = weights * ((target >= 0) & (target < out))
    if reach:
        weights = _fold_edges(weights, source, length)
    weights = weights * ((source >= 0) & (source < length))
    weights = weights / weights.sum(dim=2, keepdim=True).clamp_min(1e-12)
    kept: torch.Tensor = weights.narrow(2, reach, padded).contiguous()
    return kept


def _kernel_at(source: torch.Tensor, target: torch.Tensor, scale: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    if kernel == "lanczos":
        return _lanczos(source, target, scale)
    x = ((source + 0.5 - (target + 0.5) * scale) / scale.clamp_min(1.0)).abs()
    return (1.0 - x).clamp_min(0.0) if kernel == "bilinear" else _cubic(x)


def _cubic(x: torch.Tensor) -> torch.Tensor:
    # Keys' cubic with a = -0.5 (Catmull-Rom), as in Pillow and torch's antialias.
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, torch.zeros_like(x)))


def _lanczos(source: torch.Tensor, target: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    # See `resampling.resampling_matrix`: libvips enlarges by Catmull-Rom, half an output pixel off.
    down = (source + 0.5 - (target + 0.5) * scale).abs() / scale
    smaller = torch.where(down < 3.0, torch.sinc(down) * torch.sinc(down / 3.0), torch.zeros_like(down))
    larger = _cubic((source - target * scale + 0.5).abs())
    return torch.where(scale < 1.0, larger, smaller)


def _fold_edges(weights: torch.Tensor, source: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Edges are repeated: weight before the first pixel goes to the first, weight after the last to the last."""
    before = (weights * (source < 0)).sum(dim=2, keepdim=True)
    behind = (weights * (source >= length)).sum(dim=2, keepdim=True)
    return weights + before * (source == 0) + behind * (source == length - 1)


def surround_all(
    pixels_B3SS: torch.Tensor,  # noqa: N803 - shape suffix
    boxes: Sequence[tuple[int, int, int, int]],
    blur: torch.Tensor,
) -> torch.Tensor:
    """Each frame in its box on a blurred copy of itself, squashed to the square; float32 [B,3,S,S], whole numbers.

    pixels: 0 outside the boxes. boxes: x, y, width, height. blur: float32 [S,S], blurs a column of the square.
    """
    device, side = pixels_B3SS.device, pixels_B3SS.shape[-1]
    x, y, width, height = to_device(boxes, torch.float32, device).T[:, :, None, None]
    with torch.autocast(device.type, enabled=False):
        rows = blur @ _enlargement(y, height, side)
        columns = blur @ _enlargement(x, width, side)
        # libvips truncates, hence floor.
        around = (rows[:, None] @ pixels_B3SS @ columns.transpose(1, 2)[:, None]).floor_()
    at = torch.arange(side, device=device, dtype=torch.float32)
    inside_rows = ((at[None, :, None] >= y) & (at[None, :, None] < y + height)).view(-1, 1, side, 1)
    inside_columns = ((at[None, :, None] >= x) & (at[None, :, None] < x + width)).view(-1, 1, 1, side)
    return torch.where(inside_rows & inside_columns, pixels_B3SS, around)


def _enlargement(first: torch.Tensor, length: torch.Tensor, side: int) -> torch.Tensor:
    """float32 [B,S,S]: `length` samples from `first` on, enlarged linearly to the whole square."""
    at = torch.arange(side, device=first.device, dtype=torch.float32)
    place = ((at[None, :, None] + 0.5) * length / side - 0.5).clamp_min(0.0)
    place = torch.minimum(place, length - 1)
    source = at[None, None, :] - first
    weights = (1.0 - (source - place).abs()).clamp_min(0.0)
    return weights * ((source >= 0) & (source < length))

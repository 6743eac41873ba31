"""Frames on the device, and the views that detectors ask for: each derived once, batched, shared.

On a CPU each frame is resampled by itself, in uint8 (see `resampling`). On other devices frames of similar shape are
uploaded as one padded tensor and resampled together, in float32, rounded like the uint8 path (see `ragged`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from moderation.detectors import ragged
from moderation.detectors.base import PaddedFrames, View
from moderation.detectors.resampling import Resample, resample_lanczos, resample_uint8
from moderation.detectors.surround import Box, blur_matrix, surround
from moderation.detectors.transfer import to_device
from moderation.types import U8


class TensorFrames:
    """Frames on a device; a `FrameBatch`.

    frames: uint8 [H,W,3] RGB each; sizes: (width, height) of each picture as stored. Pixels are uploaded once, in one
    copy per group of similar shapes; on the CPU they are not copied at all and must not change while the batch lives.
    readings: see `types.Frame`; none: of no frame.
    """

    def __init__(
        self,
        frames: Sequence[U8],
        sizes: Sequence[tuple[int, int]],
        device: torch.device,
        readings: Sequence[Mapping[str, float]] = (),
    ) -> None:
        if len(frames) != len(sizes):
            raise ValueError(f"{len(frames)} frames and {len(sizes)} sizes")
        self._readings = tuple(readings) or ({},) * len(frames)
        for frame in frames:
            _check_frame(frame)
        self._host = tuple(frames)
        self._padded = [] if device.type == "cpu" else _upload(frames, device)
        self._frames = _wrap(frames) if device.type == "cpu" else _unpad(self._padded, frames)
        self._sizes = tuple(sizes)
        self._device = device
        self._views: dict[View, torch.Tensor] = {}
        self._parent: tuple[TensorFrames, tuple[int, ...]] | None = None

    @property
    def frames_HWC(self) -> Sequence[torch.Tensor]:  # noqa: N802 - shape suffix
        """uint8 [H,W,3] per frame, RGB, on the device; sizes differ."""
        return self._frames

    @property
    def host_HWC(self) -> Sequence[U8]:  # noqa: N802 - shape suffix
        """uint8 [H,W,3] per frame, RGB, in the host's memory, for what a CPU does better."""
        return self._host

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each picture as stored, before scaling to the canvas."""
        return self._sizes

    @property
    def readings(self) -> Sequence[Mapping[str, float]]:
        """What the file of each frame says of itself."""
        return self._readings

    @property
    def device(self) -> torch.device:
        """The device that the frames are on."""
        return self._device

    @property
    def padded(self) -> Sequence[PaddedFrames]:
        """The frames in groups of similar shape, to process many at once; empty on a CPU."""
        return self._padded

    def __len__(self) -> int:
        return len(self._frames)

    def view(self, view: View) -> torch.Tensor:
        """float32 [B,3,crop,crop] RGB 0..255, channels_last in memory; shared, so never write into it.

        Raises ValueError for `canvas`, which is not derived, and for impossible numbers.
        """
        if view not in self._views:
            self._views[view] = self._derive(view)
        return self._views[view]

    def select(self, indices: Sequence[int]) -> TensorFrames:
        """The frames at these indices, in this order; views already derived are reused."""
        chosen = TensorFrames([], [], self._device)
        chosen._frames = [self._frames[i] for i in indices]
        chosen._host = tuple(self._host[i] for i in indices)
        chosen._sizes = tuple(self._sizes[i] for i in indices)
        chosen._readings = tuple(self._readings[i] for i in indices)
        chosen._padded = [group for padded in self._padded if (group := padded.select(indices)) is not None]
        chosen._parent = (self, tuple(indices))
        return chosen

    def _derive(self, view: View) -> torch.Tensor:
        _check(view)
        if self._parent is not None:
            parent, indices = self._parent
            if view in parent._views:
                return parent._views[view][to_device(indices, torch.int64, self._device)]
        boxes = [
            fit_box(size, view.crop) if view.mode == "fit" else (0, 0, view.crop, view.crop) for size in self._sizes
        ]
        if self._device.type == "cpu":
            return _resample_each(self._frames, boxes, view)
        return _resample_together(self._padded, self._frames, boxes, view, self._device)


def _check(view: View) -> None:
    if view.mode == "canvas":
        raise ValueError("a canvas view is not derived: read frames_HWC")
    if view.interpolation == "lanczos" and view.mode != "fit":
        raise ValueError("lanczos is for fit only")
    if view.crop < 1 or (view.mode != "fit" and view.resize < view.crop):
        raise ValueError(f"{view}: needs 1 <= crop, and crop <= resize except for fit")


def _check_frame(frame: U8) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"expected uint8 [H,W,3] with pixels, got {frame.dtype} {list(frame.shape)}")


def _wrap(frames: Sequence[U8]) -> list[torch.Tensor]:
    return [torch.from_numpy(_writable(frame)) for frame in frames]


def _upload(frames: Sequence[U8], device: torch.device) -> list[PaddedFrames]:
    """One transfer per group of similar shapes: a hundred small ones cost more than their bytes."""
    groups = []
    for rows in ragged.bucket_frames([frame.shape for frame in frames]):
        padded = ragged.pad_frames([frames[row] for row in rows], pinned=device.type == "cuda")
        groups.append(PaddedFrames(pixels_BHWC=padded.to(device, non_blocking=True), rows=tuple(rows)))
    return groups


def _unpad(groups: Sequence[PaddedFrames], frames: Sequence[U8]) -> list[torch.Tensor]:
    """Each frame as a slice of its group's tensor, uint8 [H,W,3] on the device; nothing is copied."""
    place_of = {row: (group, place) for group in groups for place, row in enumerate(group.rows)}
    unpadded = []
    for row, frame in enumerate(frames):
        group, place = place_of[row]
        unpadded.append(group.pixels_BHWC[place, : frame.shape[0], : frame.shape[1]])
    return unpadded


class _Shared:
    """A read-only array with the writable flag: torch warns of read-only ones, though we never write into frames."""

    def __init__(self, array: U8) -> None:
        self.array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def _writable(frame: U8) -> U8:
    frame = np.ascontiguousarray(frame)
    return frame if frame.flags.writeable else np.asarray(_Shared(frame))


def _resample_each(frames: Sequence[torch.Tensor], boxes: Sequence[Box], view: View) -> torch.Tensor:
    """The view of all frames, float32 [B,3,crop,crop] channels_last, on a CPU."""
    out_BHWC = torch.empty((len(frames), view.crop, view.crop, 3), dtype=torch.uint8)  # noqa: N806
    _fill_cpu(out_BHWC, frames, boxes, view)
    pixels = out_BHWC.permute(0, 3, 1, 2).to(torch.float32)
    if view.mode == "fit":
        surround(pixels, boxes)
    return pixels


def _resample_together(
    groups: Sequence[PaddedFrames],
    frames: Sequence[torch.Tensor],
    boxes: Sequence[Box],
    view: View,
    device: torch.device,
) -> torch.Tensor:
    """The same on other devices: a few products per group of similar shapes."""
    out = torch.empty((len(frames), 3, view.crop, view.crop), dtype=torch.float32, device=device)
    out = out.contiguous(memory_format=torch.channels_last)
    for group in groups:
        own_boxes = [boxes[row] for row in group.rows]
        axes = ragged.view_axes([frames[row].shape for row in group.rows], own_boxes, view)
        pixels = ragged.resample(group.pixels_BHWC, *axes, view.crop, view.interpolation)
        if view.mode == "fit":
            pixels = ragged.surround_all(pixels, own_boxes, blur_matrix(view.crop, device))
        out[to_device(group.rows, torch.int64, device)] = pixels
    return out


def _fill_cpu(out: torch.Tensor, frames: Sequence[torch.Tensor], boxes: Sequence[Box], view: View) -> None:
    """Resample each frame into its box of `out` [B,crop,crop,3]; in our own threads: torch uses one for uint8."""
    target = out.numpy()

    def fill(indices: Sequence[int]) -> None:
        for i in indices:
            x, y, w, h = boxes[i]
            # [None] first: torch then sees channels_last and keeps it (planar rows cost 0.35 ms more per frame here).
            scaled = _scaled(frames[i][None].permute(0, 3, 1, 2), view, (w, h), resample_uint8)
            # numpy copies rows in this thread; torch would start a team of threads in each of ours.
            target[i, y : y + h, x : x + w] = scaled[0].permute(1, 2, 0).numpy()

    threads = min(torch.get_num_threads(), len(frames))
    if threads < 2:
        fill(range(len(frames)))
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, [range(start, len(frames), threads) for start in range(threads)]):
            pass


def _scaled(pixels: torch.Tensor, view: View, box: tuple[int, int], resample: Resample) -> torch.Tensor:
    """uint8 [B,3,H,W] -> uint8 [B,3,h,w]; for `fit` only the foreground, `box` = (w, h)."""
    if view.interpolation == "lanczos":
        return resample_lanczos(pixels, (box[1], box[0]))
    if view.mode == "fit":
        return resample(pixels, (box[1], box[0]), view.interpolation)
    if view.mode == "squash":
        height = width = view.resize
    else:
        height, width = pixels.shape[-2:]
        (top, high), (left, wide) = ragged.middle_of(height, width), ragged.middle_of(width, height)
        pixels = pixels[..., top : top + high, left : left + wide]
        short = min(pixels.shape[-2:])
        # The long side is truncated, as in torchvision's Resize.
        height, width = (int(view.resize * side / short) for side in pixels.shape[-2:])
    scaled = resample(pixels, (height, width), view.interpolation)
    top, left = round((height - view.crop) / 2), round((width - view.crop) / 2)
    return scaled[..., top : top + view.crop, left : left + view.crop]


def _boxes(sizes: Sequence[tuple[int, int]], view: View) -> list[Box]:
    """The box of each picture in the view's square."""
    if view.mode == "fit":
        return [fit_box(size, view.crop) for size in sizes]
    return [(0, 0, view.crop, view.crop)] * len(sizes)


def fit_box(size: tuple[int, int], side: int) -> Box:
    """x, y, width, height of a whole picture of this (width, height) in the middle of a square."""
    width, height = size
    scale = min(side / width, side / height)
    w, h = (max(1, min(side, round(length * scale))) for length in (width, height))
    return (side - w) // 2, (side - h) // 2, w, h

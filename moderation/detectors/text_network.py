"""The networks of PP-OCRv6 (small) written out: where text is, and what it says.

Source: https://github.com/PaddlePaddle/PaddleOCR (Apache-2.0). Detection after Liao et al., "Real-time Scene Text
Detection with Differentiable Binarization", https://arxiv.org/abs/1911.08947; recognition after Du et al., "SVTR",
https://arxiv.org/abs/2205.00159. Weights: the ONNX files of the package rapidocr, of which only the numbers are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.prepare import Conv

# A stage each: width, and of each of its blocks whether it has squeeze-and-excite.
_DETECTION: Final = ((48, (True, False)), (96, (True, False)), (192, (True, False, True, False)), (384, (True, False)))
_RECOGNITION: Final = (
    (96, (True, False, False)),
    (192, (True, False, True, False, True, False)),
    (384, (True, False)),
)
_NECK: Final = 96  # of the feature pyramid
_TOKEN: Final = 120
_HEADS: Final = 8
_SMOOTH: Final = 1e-5  # of its layer norms and batch norms
TIME_STEP_PX: Final = 8  # of a line's width
_ROWS_FIRST: Final = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
_END: Final = (0, 1, 0, 1)  # the file's SAME_UPPER of 2x2: one more to the right and below


class TextDetector(nn.Module):
    """RGB / 127.5 - 1, [B,3,H,W] -> probability that a pixel is text, [B,H,W].

    H and W must be multiples of 32. Squeeze-and-excite looks at the whole picture: a crop scores a little otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Stem(24)
        self.stages = _stages(_DETECTION, stride=(2, 2))
        widths = [width for width, _ in _DETECTION]
        # In the file's order: the coarsest level first.
        self.lateral = nn.ModuleList(_Level(width, _NECK) for width in widths[::-1])
        self.smooth = nn.ModuleList(_Smooth(_NECK, _NECK // 4) for _ in widths)
        self.fuse = Conv(_NECK, _NECK // 4, 3, activation="relu")
        # Two transposed convolutions of 2x2, stride 2: the four places that one pixel becomes, as channels.
        self.finer = Conv(_NECK // 4, 4 * (_NECK // 4), 1, activation="relu")
        self.finest = Conv(4 * (_NECK // 4), 16, 1, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # [B, (y2 x2)(y1 x1), h, w] -> [B, (y2 y1)(x2 x1), h, w] -> [B, h y2 y1, w x2 x1]
        quads = self.places(x)[:, _ROWS_FIRST]
        return F.pixel_shuffle(quads, 4)[:, 0].sigmoid_()

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
            levels.append(level if not levels else level.add_(F.interpolate(levels[-1], scale_factor=2.0)))
        fine = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]
        scaled = [F.interpolate(level, size=fine[-1].shape[-2:]) for level in fine[:-1]]
        quads: torch.Tensor = self.finest(self.finer(self.fuse(torch.cat([*scaled, fine[-1]], dim=1))))
        return quads


class Peak(nn.Module):
    """How sure a detector is of the pixel that it is surest of: [B,3,H,W] -> [B], 0..1. No map is put together."""

    def __init__(self, detector: TextDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.detector.places(x).amax(dim=(1, 2, 3)).sigmoid()


class TextRecogniser(nn.Module):
    """RGB / 127.5 - 1, [B,3,48,W] -> logits of each character at each time step, [B,W/8,classes]; class 0 is "none"."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = _Stem(48)
        self.stages = _stages(_RECOGNITION, stride=(2, 1))
        width = _RECOGNITION[-1][0]
        self.short = Conv(width, _TOKEN, 1)
        self.token = Conv(width, _TOKEN, 1)
        self.along = nn.Conv1d(_TOKEN, _TOKEN, 7, padding=3, groups=_TOKEN)
        self.blocks = nn.Sequential(_Attention(), _Attention())
        self.norm = nn.LayerNorm(_TOKEN, _SMOOTH)
        self.head = nn.Linear(_TOKEN, classes)

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


class _Stem(nn.Module):
    """A quarter of the size, twice the width: convolved and pooled side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv(3, width, 3, stride=2, activation="relu")
        self.narrow = Conv(width, width // 2, 2, padding=0, activation="relu")
        self.widen = Conv(width // 2, width, 2, padding=0, activation="relu")
        # One convolution of both in the file. Side by side they need no copy of both: a fifth of the stem's time.
        self.join_largest = Conv(width, width, 3, stride=2)
        self.join_wide = Conv(width, width, 3, stride=2, activation="relu")
        self.last = Conv(width, 2 * width, 1, activation="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        padded = F.pad(x, _END)
        wide = self.widen(F.pad(self.narrow(padded), _END))
        out: torch.Tensor = self.last(self.join_wide(wide, self.join_largest(_largest_of_four(padded))))
        return out


def _largest_of_four(x: torch.Tensor) -> torch.Tensor:
    """Maxima of 2x2 windows, stride 1; torch's own pooling takes several times as long."""
    high = torch.maximum(x[..., :-1, :], x[..., 1:, :])
    return torch.maximum(high[..., :-1], high[..., 1:])


class _Block(nn.Module):
    """Depthwise, perhaps squeeze-and-excite, then a pointwise network; added to what that reads where shapes agree."""

    def __init__(self, width_in: int, width: int, *, stride: tuple[int, int] = (1, 1), excite: bool = False) -> None:
        super().__init__()
        self.depthwise = Conv(width_in, width_in, 3, groups=width_in)
        self.depthwise.stride = stride
        self.excite = _Excite(width_in, 1 / 6) if excite else None
        self.widen = Conv(width_in, 2 * width_in, 1, activation="gelu")
        self.narrow = Conv(2 * width_in, width, 1)
        self.residual = stride == (1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(x)
        if self.excite is not None:
            x = x.mul_(self.excite(x))
        out: torch.Tensor = self.narrow(self.widen(x), x if self.residual else None)
        return out


class _Excite(nn.Module):
    """A factor a channel, from the means of all, [B,C,h,w] -> [B,C,1,1]; slope: of its hard sigmoid."""

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, width // 4, 1)
        self.expand = nn.Conv2d(width // 4, width, 1)
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        factor: torch.Tensor = self.expand(F.relu_(self.reduce(mean))) * self.slope
        return factor.add_(0.5).clamp_(0, 1)


class _Level(nn.Module):
    """Pointwise to the neck's width, then x + x * excite(x)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        # Its bias is zero: the file has none.
        self.point = Conv(width_in, width, 1)
        self.excite = _Excite(width, 0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.point(x)
        return x.mul_(self.excite(x).add_(1))


class _Smooth(nn.Module):
    """7x7 depthwise, then a level."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.depthwise = Conv(width_in, width_in, 7, groups=width_in)
        self.level = _Level(width_in, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.level(self.depthwise(x))
        return out


class _Attention(nn.Module):
    """A transformer block over the time steps of a line, [B,T,120]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_TOKEN, _SMOOTH)
        self.qkv = nn.Linear(_TOKEN, 3 * _TOKEN)
        self.project = nn.Linear(_TOKEN, _TOKEN)
        self.norm_2 = nn.LayerNorm(_TOKEN, _SMOOTH)
        self.widen = nn.Linear(_TOKEN, 2 * _TOKEN)
        self.narrow = nn.Linear(2 * _TOKEN, _TOKEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, _ = x.shape
        query, key, value = self.qkv(self.norm(x)).view(batch, steps, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        x = x + self.project(seen.transpose(1, 2).reshape(batch, steps, _TOKEN))
        out: torch.Tensor = x + self.narrow(F.silu(self.widen(self.norm_2(x))))
        return out


def _stages(plan: Sequence[tuple[int, Sequence[bool]]], stride: tuple[int, int]) -> nn.ModuleList:
    stages = nn.ModuleList()
    width_in = plan[0][0]
    for width, excited in plan:
        step = [_Block(width_in, width, stride=stride)] if width != width_in else []
        stages.append(nn.Sequential(*step, *(_Block(width, width, excite=excite) for excite in excited)))
        width_in = width
    return stages

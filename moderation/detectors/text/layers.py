"""Layers of the networks of PP-OCRv6: stems, blocks, the feature pyramid, attention along a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.nn.conv import Conv, needs_gradient

# Per stage: width, and for each of its blocks whether it has squeeze-and-excite.
StagePlan = Sequence[tuple[int, Sequence[bool]]]
TOKEN: Final = 120
_ATTENTION_HEADS: Final = 8
NORM_EPS: Final = 1e-5  # of layer norms and batch norms
# Numbers in a block of rows that stays in a core's cache from one operation to the next.
_CACHED_NUMBERS: Final = 2**16


class TextStem(nn.Module):
    """A quarter of the size, twice the width: convolution and pooling side by side.

    The file pads windows of 2x2 only at their end. Here they are padded at both ends, which takes no copy. Each of the
    two paddings adds a row and a column in front, so `wide` and `largest` begin at (2, 2), where windows of stride 2
    begin at (1, 1).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv(3, width, 3, stride=2, activation="relu")
        self.narrow = Conv(width, width // 2, 2, padding=1, activation="relu")
        self.widen = Conv(width // 2, width, 2, padding=1, activation="relu")
        # The file has one convolution of both joined. Separate ones need no joined copy: a fifth of the stem's time.
        self.join_largest = Conv(width, width, 3, stride=2)
        self.join_wide = Conv(width, width, 3, stride=2, activation="relu")
        self.last = Conv(width, 2 * width, 1, activation="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        wide = _clear_before(self.widen(self.narrow(x)))
        joined = self.join_wide(wide, self.join_largest(_largest_of_four(x)))[..., 1:, 1:]
        out: torch.Tensor = self.last(joined.contiguous(memory_format=torch.channels_last))
        return out


def _clear_before(x: torch.Tensor) -> torch.Tensor:
    """Clear the first two rows and columns, which are padding. In place where no gradient is kept."""
    x = x.clone() if needs_gradient(x) else x
    x[..., :2, :] = 0
    x[..., :2] = 0
    return x


def _largest_of_four(x: torch.Tensor) -> torch.Tensor:
    """Maxima of 2x2 windows, stride 1, of nonnegative values: [B,C,h,w] -> [B,C,h+2,w+2], from (2, 2) on.

    torch's own pooling also records positions, and takes several times as long.
    """
    if x.device.type != "cpu" or needs_gradient(x):
        return F.pad(F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1), (2, 0, 2, 0))
    count, channels, height, width = x.shape
    shape = (count, channels, height + 2, width + 2)
    whole = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    out = _clear_before(whole)[..., 2:, 2:]
    rows = max(1, _CACHED_NUMBERS // (channels * width))
    for top in range(0, height - 1, rows):
        bottom = min(top + rows, height - 1)
        _larger_of_two(torch.maximum(x[..., top:bottom, :], x[..., top + 1 : bottom + 1, :]), out[..., top:bottom, :])
    _larger_of_two(x[..., -1:, :], out[..., -1:, :])
    return whole


def _larger_of_two(x: torch.Tensor, out: torch.Tensor) -> None:
    torch.maximum(x[..., :-1], x[..., 1:], out=out[..., :-1])
    out[..., -1] = x[..., -1]


def add_enlarged(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """fine += coarse with each pixel repeated, [B,C,h,w] and [B,C,h/2,w/2], without the enlarged copy."""
    height, width = coarse.shape[-2:]
    fine.view(*fine.shape[:2], height, 2, width, 2).add_(coarse[:, :, :, None, :, None])
    return fine


class PyramidFusion(nn.Module):
    """The file's 3x3 convolution of all levels, enlarged to the finest by repeating pixels and joined.

    Where pixels are repeated, a 3x3 window contains only 2x2 different ones. The coarser levels are therefore convolved
    before the last enlargement, for all four places of a pixel, at 4/9 of the arithmetic and without large copies.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.coarse = Conv(3 * width, 4 * width, 2, padding=1)
        self.fine = Conv(width, width, 3, activation="relu")

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Levels of h/8, h/4, h/2 and h; returns [B,width,h,w]."""
        *coarser, coarse, fine = levels
        height, width = coarse.shape[-2:]
        # A window that begins above a pixel belongs to its upper places, the next one to its lower places.
        seen = self.coarse(torch.cat([*(F.interpolate(x, size=(height, width)) for x in coarser), coarse], dim=1))
        places = seen.chunk(4, dim=1)
        spread = torch.empty_like(fine, memory_format=torch.channels_last)
        for y in range(2):
            for x in range(2):
                spread[..., y::2, x::2] = places[2 * y + x][..., y : y + height, x : x + width]
        out: torch.Tensor = self.fine(fine, spread)
        return out

    def split(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Take over the file's weight [width,4*width,3,3], coarsest level first, and bias [width]."""
        coarse, fine = weight[:, : 3 * self.width], weight[:, 3 * self.width :]
        # Which of two pixels each of the three repeated ones is: for an upper place, and for a lower one.
        halves = weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        quads = torch.einsum("ycr,xds,oirs->yxoicd", halves, halves, coarse)
        self.coarse.weight.copy_(quads.flatten(0, 2))
        assert self.coarse.bias is not None and self.fine.bias is not None
        self.coarse.bias.zero_()
        self.fine.weight.copy_(fine)
        self.fine.bias.copy_(bias)


class _TextBlock(nn.Module):
    """Depthwise, optionally squeeze-and-excite, then a pointwise network; added to its input where shapes agree."""

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
            x = self.excite(x)
        out: torch.Tensor = self.narrow(self.widen(x), x if self.residual else None)
        return out


class _Excite(nn.Module):
    """x times a factor per channel, computed from all channel means, in place: `more` and a hard sigmoid of this slope.

    By matrix products: there are two dozen of a few numbers each, and the call of a convolution takes longer.
    """

    def __init__(self, width: int, slope: float, more: float = 0.0) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, width // 4, 1)
        self.expand = nn.Conv2d(width // 4, width, 1)
        self.slope = slope
        self.more = more

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = F.relu_(F.linear(x.mean(dim=(2, 3)), self.reduce.weight.flatten(1), self.reduce.bias))
        factor = F.linear(seen, self.expand.weight.flatten(1), self.expand.bias)
        low = self.more
        return x.mul_((factor * self.slope).add_(0.5 + low).clamp_(low, 1 + low)[..., None, None])


class PyramidLevel(nn.Module):
    """Pointwise to the neck's width, then x + x * excite(x)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        # Its bias is zero: the file has none.
        self.point = Conv(width_in, width, 1)
        self.excite = _Excite(width, 0.2, more=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.excite(self.point(x))
        return out


class SmoothedLevel(nn.Module):
    """Depthwise, then a `PyramidLevel`."""

    def __init__(self, width_in: int, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = Conv(width_in, width_in, kernel, groups=width_in)
        self.level = PyramidLevel(width_in, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.level(self.depthwise(x))
        return out


class LineAttention(nn.Module):
    """A transformer block over the time steps of a line, [B,T,120]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(TOKEN, NORM_EPS)
        self.qkv = nn.Linear(TOKEN, 3 * TOKEN)
        self.project = nn.Linear(TOKEN, TOKEN)
        self.norm_2 = nn.LayerNorm(TOKEN, NORM_EPS)
        self.widen = nn.Linear(TOKEN, 2 * TOKEN)
        self.narrow = nn.Linear(2 * TOKEN, TOKEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, _ = x.shape
        query, key, value = self.qkv(self.norm(x)).view(batch, steps, 3, _ATTENTION_HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        x = x + self.project(seen.transpose(1, 2).reshape(batch, steps, TOKEN))
        out: torch.Tensor = x + self.narrow(F.silu(self.widen(self.norm_2(x))))
        return out


def build_stages(plan: StagePlan, stride: tuple[int, int]) -> nn.ModuleList:
    """One sequence of blocks per stage; where the width changes, its first block has this stride."""
    stages = nn.ModuleList()
    width_in = plan[0][0]
    for width, excited in plan:
        step = [_TextBlock(width_in, width, stride=stride)] if width != width_in else []
        stages.append(nn.Sequential(*step, *(_TextBlock(width, width, excite=excite) for excite in excited)))
        width_in = width
    return stages

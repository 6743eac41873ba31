"""Building blocks shared by several networks."""

from __future__ import annotations

import torch
from torch import nn

from moderation.detectors.nn.conv import Activation, Conv


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to the input where the shapes agree.

    After MobileNetV2, https://arxiv.org/abs/1801.04381. depthwise: the filter; its channels set the widened width.
    """

    def __init__(self, width_in: int, width: int, depthwise: Conv, activation: Activation) -> None:
        super().__init__()
        hidden = depthwise.in_channels
        steps = [Conv(width_in, hidden, 1, activation=activation)] if hidden != width_in else []
        self.steps = nn.Sequential(*steps, depthwise)
        self.narrow = Conv(hidden, width, 1)
        self.residual = depthwise.stride == (1, 1) and width_in == width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Overwrites the shortcut: nothing else may read it.
        out: torch.Tensor = self.narrow(self.steps(x), x if self.residual else None)
        return out

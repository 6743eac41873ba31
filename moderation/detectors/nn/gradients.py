"""Gradients through networks prepared for inference: leaves inference mode and packed weights.

detector.unpack()
with with_gradients():
    x = as_leaf(pixels)
    network(x).sum().backward()  # x.grad: how the input affects the output
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from moderation.detectors.nn.conv import Conv


def unpack_network(network: nn.Module) -> None:
    """Switch every convolution to the plain operators: they score the same, slower, and carry gradients."""
    for module in network.modules():
        if isinstance(module, Conv):
            module.unpack()


@contextmanager
def with_gradients() -> Iterator[None]:
    """Record gradients whatever the caller's mode: inference mode and autocast are off inside."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


def as_leaf(x: torch.Tensor) -> torch.Tensor:
    """A copy that records gradients; tensors made in inference mode carry none. Call it in `with_gradients`."""
    return x.detach().clone().requires_grad_()

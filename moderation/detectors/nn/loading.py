"""Copies a file's numbers into a network of ours where they fit; batch norms are folded into their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from moderation.errors import FatalError


@contextmanager
def fitting(owner: str) -> Iterator[None]:
    """Copy without gradients. Raises FatalError that names the detector or network when something does not fit."""
    try:
        with torch.no_grad():
            yield
    except (RuntimeError, ValueError, KeyError, StopIteration) as error:
        raise FatalError(f"{owner}: weights of another network: {error}") from error


def copy_exactly(parameter: torch.Tensor | None, values: torch.Tensor) -> None:
    """Copy. Raises ValueError unless the shapes are equal; torch's `copy_` would broadcast a smaller tensor."""
    if parameter is None or parameter.shape != values.shape:
        raise ValueError(f"{list(values.shape)} instead of {None if parameter is None else list(parameter.shape)}")
    parameter.copy_(values)


def scale_and_shift(
    gamma: torch.Tensor, beta: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch norm at inference: norm(x) = scale * x + shift, in the number format of its tensors."""
    scale = gamma / torch.sqrt(variance + epsilon)
    return scale, beta - mean * scale

"""Where training of layers stands: the state of network, average and optimizer as plain tensors, taken and put back."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

_WARM_SHARE: Final = 0.1  # share of the steps in which rates rise


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """Where training stands after some whole epochs: enough to go on from.

    losses: on held-back pictures, each at its own temperature: before the first epoch, and after each; or empty.
    best: the state between start and average with the least loss (without held-back pictures: the latest); best_epoch:
    its epoch.
    """

    epoch: int
    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    losses: tuple[float, ...]
    best: dict[str, torch.Tensor]
    best_epoch: int


def set_rates(optimizer: torch.optim.Optimizer, share: float, *, warm: float = _WARM_SHARE) -> None:
    """Set rates, which rise, then fall as a cosine. share: steps done, of all; warm: share in which they rise."""
    for group in optimizer.param_groups:
        rising = min(1.0, share / warm + 0.05)
        group["lr"] = group["initial_lr"] * rising * (0.5 + 0.5 * math.cos(math.pi * min(1.0, share)))


def copy_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The numbers of a network, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def copy_moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state as plain tensors, by parameter."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value.detach().cpu().clone() for index, own in state.items() for name, value in own.items()
    }


def restore_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, torch.Tensor]) -> None:
    """Put back what `copy_moments` took."""
    whole = copy.deepcopy(optimizer.state_dict())
    for key, value in moments.items():
        index, _, name = key.partition(".")
        whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, share: float, *, step: int | None = None) -> None:
    """Keep this share of the averaged weights, and take the rest from the latest. step: the first steps keep less."""
    if step is not None:
        share = min(share, (2 + step) / (11 + step))
    for kept, latest in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(latest, 1 - share)


def blend_states(
    state: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Weights between two states of one network; share: of the other."""
    return {name: tensor.lerp(other[name], share) for name, tensor in state.items()}

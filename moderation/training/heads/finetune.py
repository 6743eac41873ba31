"""Trains the last layers of a backbone with a head, from features of the layers below, which stay frozen.

In two stages: the head starts as the linear probe; then head and layers are trained together, the layers at a smaller
rate. The loss is the one that the probe minimises, with its penalty, so the first step does not jump. An average of the
latest weights is kept. Each epoch sees one view of each picture, drawn by seed and epoch alone, so that a killed run
continues as if it had not been killed.

Shape suffixes: N pictures, V views, B of a batch, C channels, A classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn

from moderation.detectors.nn.trunk import Averaged
from moderation.training.heads.probe import Probe, class_weights, head_loss
from moderation.training.heads.quality import calibrated_loss

_CLIPPED: Final = 1.0  # largest norm of a gradient
_MIXED: Final = 0.3  # parameter of the Beta distribution: mostly little of the other picture
_WARM_SHARE: Final = 0.1  # share of the steps in which rates rise


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """How to train. rate: of the head; layer_rate: of the layers. decay: of the layers' weights, per step at rate 1.

    average: share of the averaged weights that stays at each step.

    patience: epochs without a smaller loss on held-back pictures before training ends.
    """

    epochs: int = 15
    batch_size: int = 32
    rate: float = 3e-4
    layer_rate: float = 3e-5
    decay: float = 0.01
    average: float = 0.97
    patience: int = 5
    several: bool = False
    balance: bool = True
    seed: int = 0


class TunedNetwork(nn.Module):
    """Features [B,C,h,w] -> logits float32 [B,A]."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, tail: nn.Sequential, probe: Probe) -> None:
        super().__init__()
        self.tail = Averaged(tail)
        self.penalty = probe.penalty
        self.register_buffer("mean", probe.mean_D.clone())
        self.register_buffer("deviation", probe.deviation_D.clone())
        self.head = nn.Linear(probe.weight_AD.shape[1], len(probe.bias_A))
        with torch.no_grad():
            self.head.weight.copy_(probe.weight_AD * probe.deviation_D)
            self.head.bias.copy_(probe.bias_A + probe.weight_AD @ probe.mean_D)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # A clone, because layers may overwrite their input.
        embedding = self.tail(features.clone())
        with torch.autocast(embedding.device.type, enabled=False):
            logits: torch.Tensor = self.head((embedding.float() - self.mean) / self.deviation)
        return logits

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(weight [A,D], bias [A]) for embeddings that are not standardised."""
        weight = self.head.weight.detach() / self.deviation
        return weight, self.head.bias.detach() - weight @ self.mean


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """Where training stands after some whole epochs: enough to go on from.

    losses: on held-back pictures, each at its own temperature: before the first epoch, and after each epoch. Empty
    where none are held back.
    best: the averaged state with the least loss (without held-back pictures: the latest); best_epoch: its epoch.
    """

    epoch: int
    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    losses: tuple[float, ...]
    best: dict[str, torch.Tensor]
    best_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Training pictures: features [N,V,C,h,w], targets float32 [N,A]; and held-back pictures, view 0 of each."""

    features: torch.Tensor
    targets: torch.Tensor
    held_features: torch.Tensor | None = None
    held_targets: torch.Tensor | None = None


def finetune(
    network: TunedNetwork,
    examples: Examples,
    settings: FinetuneSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    planned_epochs: int | None = None,
    resume: LayerProgress | None = None,
    save: Callable[[LayerProgress], None] = lambda _progress: None,
) -> LayerProgress:
    """Train, and stop early where held-back pictures say so; `network` ends in the best state.

    planned_epochs: epochs after which rates reach 0 (default: all); training ends at `settings.epochs`. save: called
    after each epoch.
    """
    network.to(device)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = _make_optimizer(network, settings)
    progress = resume or _begin(network, examples, settings, device, dtype)
    if resume is not None:
        _restore(network, optimizer, average, resume)
    steps = math.ceil(len(examples.targets) / settings.batch_size)
    total = steps * (planned_epochs or settings.epochs)
    weights = class_weights(examples.targets, balance=settings.balance)
    for epoch in range(progress.epoch, settings.epochs):
        if progress.losses and epoch - progress.best_epoch >= settings.patience:
            break
        for step, (rows, views) in enumerate(_draw(examples, settings, epoch)):
            _set_rates(optimizer, (epoch * steps + step) / total)
            batch, targets = _mix(examples, rows, views, settings, epoch * steps + step, device)
            with _half(device, dtype):
                logits = network(batch)
            loss = head_loss(logits, targets, weights.to(device), several=settings.several)
            loss = loss + network.penalty / 2 * network.head.weight.square().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
            nn.utils.clip_grad_norm_(network.parameters(), _CLIPPED)
            optimizer.step()
            _average(average, network, settings.average)
        progress = _advance(progress, network, average, optimizer, examples, settings, device, dtype)
        save(progress)
    network.load_state_dict(progress.best)
    return progress


def predict(
    network: TunedNetwork, features: torch.Tensor, *, device: torch.device, dtype: torch.dtype, batch_size: int = 64
) -> torch.Tensor:
    """Logits float32 [N,A] of features [N,C,h,w], on the CPU."""
    parts = []
    with torch.no_grad(), _half(device, dtype):
        for start in range(0, len(features), batch_size):
            parts.append(network(features[start : start + batch_size].to(device).float()).cpu())
    return torch.cat(parts)


def _begin(
    network: TunedNetwork, examples: Examples, settings: FinetuneSettings, device: torch.device, dtype: torch.dtype
) -> LayerProgress:
    state = _copy(network)
    losses = _held_loss(network, examples, settings, device, dtype)
    return LayerProgress(epoch=0, network=state, average=state, optimizer={}, losses=losses, best=state, best_epoch=0)


def _advance(
    before: LayerProgress,
    network: TunedNetwork,
    average: TunedNetwork,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    settings: FinetuneSettings,
    device: torch.device,
    dtype: torch.dtype,
) -> LayerProgress:
    losses = (*before.losses, *_held_loss(average, examples, settings, device, dtype))
    state = _copy(average)
    better = not losses or losses[-1] < min(before.losses)
    return LayerProgress(
        epoch=before.epoch + 1,
        network=_copy(network),
        average=state,
        optimizer=_moments(optimizer),
        losses=losses,
        best=state if better else before.best,
        best_epoch=before.epoch + 1 if better else before.best_epoch,
    )


def _held_loss(
    network: TunedNetwork, examples: Examples, settings: FinetuneSettings, device: torch.device, dtype: torch.dtype
) -> tuple[float, ...]:
    if examples.held_features is None or examples.held_targets is None:
        return ()
    logits = predict(network, examples.held_features, device=device, dtype=dtype)
    return (calibrated_loss(logits, examples.held_targets, several=settings.several),)


def _draw(examples: Examples, settings: FinetuneSettings, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of an epoch: (rows, views)."""
    count, views = examples.features.shape[:2]
    rng = np.random.default_rng([settings.seed, epoch])
    order = torch.from_numpy(rng.permutation(count))
    chosen = torch.from_numpy(rng.integers(0, views, count))
    starts = range(0, count, settings.batch_size)
    return [(order[s : s + settings.batch_size], chosen[s : s + settings.batch_size]) for s in starts]


def _mix(
    examples: Examples,
    rows: torch.Tensor,
    views: torch.Tensor,
    settings: FinetuneSettings,
    step: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch in which each picture has a share of another, features and classes (https://arxiv.org/abs/1806.05236)."""
    rng = np.random.default_rng([settings.seed, step, 5])
    share = torch.from_numpy(rng.beta(_MIXED, _MIXED, len(rows)).astype(np.float32))
    share = torch.maximum(share, 1 - share).to(device)
    other = torch.from_numpy(rng.permutation(len(rows)))
    batch, targets = examples.features[rows, views].to(device).float(), examples.targets[rows].to(device)
    other = other.to(device)
    wide = share[:, None, None, None]
    return batch * wide + batch[other] * (1 - wide), targets * share[:, None] + targets[other] * (1 - share[:, None])


def _make_optimizer(network: TunedNetwork, settings: FinetuneSettings) -> torch.optim.AdamW:
    groups = [
        {
            "params": list(network.head.parameters()),
            "lr": settings.rate,
            "initial_lr": settings.rate,
            "weight_decay": 0.0,  # its penalty is in the loss
        },
        {"params": list(network.tail.parameters()), "lr": settings.layer_rate, "initial_lr": settings.layer_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=settings.decay)


def _set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set rates, which rise, then fall as a cosine. share: steps done, of all."""
    for group in optimizer.param_groups:
        rising = min(1.0, share / _WARM_SHARE + 0.05)
        group["lr"] = group["initial_lr"] * rising * (0.5 + 0.5 * math.cos(math.pi * min(1.0, share)))


def _half(device: torch.device, dtype: torch.dtype) -> torch.autocast | nullcontext[None]:
    return torch.autocast(device.type, torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()


def _copy(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state as plain tensors, by parameter."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value.detach().cpu().clone() for index, own in state.items() for name, value in own.items()
    }


@torch.no_grad()
def _average(average: TunedNetwork, network: TunedNetwork, share: float) -> None:
    for kept, latest in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(latest, 1 - share)


def _restore(
    network: TunedNetwork, optimizer: torch.optim.Optimizer, average: TunedNetwork, progress: LayerProgress
) -> None:
    network.load_state_dict(progress.network)
    average.load_state_dict(progress.average)
    whole = copy.deepcopy(optimizer.state_dict())
    for key, value in progress.optimizer.items():
        index, _, name = key.partition(".")
        whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)

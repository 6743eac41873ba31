"""Trains the last layers of a backbone with a head, from features of the layers below, which stay frozen.

In two stages: the head starts as the linear probe; then head and layers are trained together, the lower a layer the
smaller its rate. The loss is the probe's, with its penalty, on mixed pictures with targets that are less sure. The
result lies between the weights at the start and the average of the latest ones. Each epoch sees one view of each
picture, drawn by seed and epoch alone, so that a killed run continues as if it had not been killed.

Shape suffixes: N pictures, V views, B of a batch, C channels, A classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

import torch
from torch import nn

from moderation.detectors.nn.trunk import Averaged
from moderation.training.heads.batches import (
    Examples,
    FinetuneSettings,
    MixedBatch,
    TrainingTeam,
    draw_batches,
    mix_batch,
)
from moderation.training.heads.probe import Probe, class_weights, head_loss
from moderation.training.heads.progress import (
    LayerProgress,
    blend_states,
    copy_moments,
    copy_state,
    move_average,
    restore_moments,
    set_rates,
)
from moderation.training.heads.quality import calibrated_loss

_CLIPPED: Final = 1.0  # largest norm of a gradient


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
    team: TrainingTeam | None = None,
) -> LayerProgress:
    """Train, and stop early where held-back pictures say so; `network` ends in the best state.

    planned_epochs: epochs after which rates reach 0 (default: all); training ends at `settings.epochs`. save: called
    after each epoch. team: the processes that train together; all of them take the same steps, as one alone would but
    for rounding.
    """
    team = team or TrainingTeam()
    network.to(device)
    start = copy_state(network)
    average, result = (copy.deepcopy(network).requires_grad_(False) for _ in range(2))
    optimizer = _make_optimizer(network, settings)
    progress = resume or _begin(network, examples, settings, device, dtype)
    if resume is not None:
        network.load_state_dict(resume.network)
        average.load_state_dict(resume.average)
        restore_moments(optimizer, resume.optimizer)
    steps = math.ceil(len(examples.targets) / settings.batch_size)
    total = steps * (planned_epochs or settings.epochs)
    weights = class_weights(examples.targets, balance=settings.balance)
    for epoch in range(progress.epoch, settings.epochs):
        if progress.losses and epoch - progress.best_epoch >= settings.patience:
            break
        for step, drawn in enumerate(draw_batches(examples, settings, epoch)):
            set_rates(optimizer, (epoch * steps + step) / total)
            batch = mix_batch(examples, drawn, settings, epoch * steps + step, device, team)
            optimizer.zero_grad(set_to_none=True)
            _take_gradients(network, batch, weights.to(device), settings, dtype, team)
            nn.utils.clip_grad_norm_(network.parameters(), _CLIPPED)
            optimizer.step()
            move_average(average, network, settings.average, step=epoch * steps + step)
        result.load_state_dict(blend_states(copy_state(average), start, settings.kept))
        losses = _held_loss(result, examples, settings, device, dtype)
        progress = _advance(progress, network, average, optimizer, copy_state(result), losses)
        save(progress)
    network.load_state_dict(progress.best)
    return progress


def _take_gradients(
    network: TunedNetwork,
    batch: MixedBatch,
    weights: torch.Tensor,
    settings: FinetuneSettings,
    dtype: torch.dtype,
    team: TrainingTeam,
) -> None:
    """Gradients of the loss over the whole batch: each process adds those of its pictures."""
    if len(batch.targets):
        with _half(batch.features.device, dtype):
            logits = network(batch.features)
        loss = head_loss(logits, batch.targets, weights, several=settings.several)
        share = _amount(batch.targets, weights, settings) / _amount(batch.whole, weights, settings)
        loss = loss * share + network.penalty / 2 / team.size * network.head.weight.square().sum()
    else:  # a last batch of fewer pictures than processes
        loss = network.penalty / 2 / team.size * network.head.weight.square().sum()
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
    if team.size == 1:
        return
    for parameter in network.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        team.add(parameter.grad)


def _amount(targets: torch.Tensor, weights: torch.Tensor, settings: FinetuneSettings) -> torch.Tensor:
    """What the mean of `head_loss` is divided by."""
    return torch.tensor(float(len(targets))) if settings.several else (targets * weights).sum()


def predict(
    network: TunedNetwork, features: torch.Tensor, *, device: torch.device, dtype: torch.dtype, batch_size: int = 64
) -> torch.Tensor:
    """Logits float32 [N,A] of features [N,C,h,w], on the CPU."""
    return _in_batches(network, features, device, dtype, batch_size)


def embed_views(
    network: TunedNetwork, features: torch.Tensor, *, device: torch.device, dtype: torch.dtype, batch_size: int = 64
) -> torch.Tensor:
    """Embeddings float32 [N,V,D] that the head reads, of features [N,V,C,h,w] of the layers below; on the CPU."""
    network.to(device)
    flat = _in_batches(network.tail, features.flatten(0, 1), device, dtype, batch_size)
    return flat.reshape(*features.shape[:2], -1)


def _in_batches(
    network: nn.Module, features: torch.Tensor, device: torch.device, dtype: torch.dtype, batch_size: int
) -> torch.Tensor:
    starts = range(0, len(features), batch_size)
    with torch.no_grad(), _half(device, dtype):
        return torch.cat([network(features[s : s + batch_size].to(device).float()).float().cpu() for s in starts])


def _begin(
    network: TunedNetwork, examples: Examples, settings: FinetuneSettings, device: torch.device, dtype: torch.dtype
) -> LayerProgress:
    state = copy_state(network)
    losses = _held_loss(network, examples, settings, device, dtype)
    return LayerProgress(epoch=0, network=state, average=state, optimizer={}, losses=losses, best=state, best_epoch=0)


def _advance(
    before: LayerProgress,
    network: TunedNetwork,
    average: TunedNetwork,
    optimizer: torch.optim.Optimizer,
    result: dict[str, torch.Tensor],
    held_loss: tuple[float, ...],
) -> LayerProgress:
    losses = (*before.losses, *held_loss)
    better = not losses or losses[-1] < min(before.losses)
    return LayerProgress(
        epoch=before.epoch + 1,
        network=copy_state(network),
        average=copy_state(average),
        optimizer=copy_moments(optimizer),
        losses=losses,
        best=result if better else before.best,
        best_epoch=before.epoch + 1 if better else before.best_epoch,
    )


def _held_loss(
    network: TunedNetwork, examples: Examples, settings: FinetuneSettings, device: torch.device, dtype: torch.dtype
) -> tuple[float, ...]:
    if examples.held_features is None or examples.held_targets is None:
        return ()
    logits = predict(network, examples.held_features, device=device, dtype=dtype)
    return (calibrated_loss(logits, examples.held_targets, several=settings.several),)


def _make_optimizer(network: TunedNetwork, settings: FinetuneSettings) -> torch.optim.AdamW:
    groups = [
        {
            "params": list(network.head.parameters()),
            "lr": settings.rate,
            "initial_lr": settings.rate,
            "weight_decay": 0.0,  # its penalty is in the loss
        },
    ]
    rate = settings.layer_rate
    for layer in reversed(network.tail.layers):
        groups.append({"params": list(layer.parameters()), "lr": rate, "initial_lr": rate})
        rate *= settings.layer_share
    return torch.optim.AdamW(groups, weight_decay=settings.decay)


def _half(device: torch.device, dtype: torch.dtype) -> torch.autocast | nullcontext[None]:
    return torch.autocast(device.type, torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()

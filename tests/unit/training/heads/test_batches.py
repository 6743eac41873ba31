"""Batches shared out among processes: together they are the batch of one process, and so are their gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from moderation.detectors.nn.conv import Conv
from moderation.detectors.nn.prepare import one_thread
from moderation.training.heads.batches import Examples, FinetuneSettings, TrainingTeam, draw_batches, mix_batch
from moderation.training.heads.finetune import TunedNetwork, _take_gradients
from moderation.training.heads.probe import Probe, class_weights

CPU, FP32 = torch.device("cpu"), torch.float32


def examples(count: int) -> Examples:
    rng = torch.Generator().manual_seed(1)
    targets = nn.functional.one_hot(torch.arange(count) % 3, 3).float()
    return Examples(features=torch.randn((count, 2, 4, 3, 3), generator=rng).half(), targets=targets)


def network() -> TunedNetwork:
    torch.manual_seed(0)
    tail = nn.Sequential(Conv(4, 8, 3, activation="relu"))
    probe = Probe(
        weight_AD=torch.randn(3, 8),
        bias_A=torch.randn(3),
        mean_D=torch.zeros(8),
        deviation_D=torch.ones(()),
        penalty=0.1,
    )
    return TunedNetwork(tail, probe)


def gradients(data: Examples, settings: FinetuneSettings, size: int) -> list[torch.Tensor]:
    """The sum of what all processes of a team take."""
    weights = class_weights(data.targets, balance=True)
    drawn = draw_batches(data, settings, 0)[0]
    total: list[torch.Tensor] = []
    for rank in range(size):
        team = TrainingTeam(rank=rank, size=size)
        own = network()
        with one_thread():
            _take_gradients(own, mix_batch(data, drawn, settings, 3, CPU, team), weights, settings, FP32, team)
        taken = [p.grad for p in own.parameters() if p.grad is not None]
        total = [a + b for a, b in zip(total, taken, strict=True)] if total else taken
    return total


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("count", [1, 5, 8])
def test_gradients_of_a_team_are_those_of_one_process(count: int, several: bool) -> None:
    data, settings = examples(count), FinetuneSettings(batch_size=8, several=several)
    alone = gradients(data, settings, 1)
    for size in (2, 3):
        for one, all_of_them in zip(alone, gradients(data, settings, size), strict=True):
            torch.testing.assert_close(all_of_them, one, atol=1e-5, rtol=1e-4)


def test_every_picture_of_a_batch_is_with_one_process() -> None:
    data, settings = examples(7), FinetuneSettings(batch_size=7)
    drawn = draw_batches(data, settings, 0)[0]
    whole = mix_batch(data, drawn, settings, 0, CPU, TrainingTeam())
    parts = [mix_batch(data, drawn, settings, 0, CPU, TrainingTeam(rank=rank, size=2)) for rank in range(2)]
    assert sum(len(part.targets) for part in parts) == 7
    assert torch.equal(whole.features[1::2], parts[1].features)
    assert torch.equal(whole.targets[0::2], parts[0].targets)


@pytest.mark.parametrize("several", [False, True])
def test_targets_are_less_sure(several: bool) -> None:
    data = examples(6)
    settings = FinetuneSettings(batch_size=6, several=several, smoothing=0.3)
    batch = mix_batch(data, draw_batches(data, settings, 0)[0], settings, 0, CPU, TrainingTeam())
    least = 0.15 if several else 0.1
    assert batch.whole.min() >= least - 1e-6
    assert batch.whole.max() <= 0.7 + least + 1e-6
    if not several:
        torch.testing.assert_close(batch.whole.sum(dim=1), torch.ones(6))


def test_step_and_seed_alone_decide_the_mixture() -> None:
    data, settings = examples(6), FinetuneSettings(batch_size=6)
    drawn = draw_batches(data, settings, 0)[0]
    again = [mix_batch(data, drawn, settings, step, CPU, TrainingTeam()).features for step in (4, 4, 5)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])
    other = mix_batch(data, drawn, replace(settings, seed=1), 4, CPU, TrainingTeam()).features
    assert not torch.equal(again[0], other)

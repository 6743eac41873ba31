"""Pictures of one step of training: drawn by seed and epoch, mixed with each other, and shared out among processes.

Shape suffixes: N pictures, V views, B of a batch, C channels, A classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

_MIXED: Final = 0.3  # parameter of the Beta distribution: mostly little of the other picture


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """How to train. Figures behind the defaults are in docs/heads.md, section Measured.

    rate: of the head; layer_rate: of the last layer, and of each layer below `layer_share` of that of the one above.
    decay: of the layers' weights, per step at rate 1. average: share of the averaged weights that stays at each step.
    smoothing: share of a picture's target that is spread over all classes.
    kept: share of the weights at the start in the result (https://arxiv.org/abs/2109.01903); the average has the rest.
    patience: epochs without a smaller loss on held-back pictures before training ends. The loss may rise in the first
    third of the epochs, and fall below the one at the start only as rates get small.
    """

    epochs: int = 30
    batch_size: int = 32
    rate: float = 3e-4
    layer_rate: float = 2e-3
    layer_share: float = 0.8
    decay: float = 0.01
    average: float = 0.99
    smoothing: float = 0.1
    kept: float = 0.5
    patience: int = 20
    several: bool = False
    balance: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Training pictures: features [N,V,C,h,w], targets float32 [N,A]; and held-back pictures, view 0 of each."""

    features: torch.Tensor
    targets: torch.Tensor
    held_features: torch.Tensor | None = None
    held_targets: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTeam:
    """Processes that train one network together: each has its share of every batch. add: sums a tensor over all."""

    rank: int = 0
    size: int = 1
    add: Callable[[torch.Tensor], None] = lambda _tensor: None


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedBatch:
    """The pictures of a batch that this process learns from: features float32 [B,C,h,w], targets float32 [B,A].

    whole: targets of the batch of all processes.
    """

    features: torch.Tensor
    targets: torch.Tensor
    whole: torch.Tensor


def draw_batches(examples: Examples, settings: FinetuneSettings, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of an epoch: (rows, views)."""
    count, views = examples.features.shape[:2]
    rng = np.random.default_rng([settings.seed, epoch])
    order = torch.from_numpy(rng.permutation(count))
    chosen = torch.from_numpy(rng.integers(0, views, count))
    starts = range(0, count, settings.batch_size)
    return [(order[s : s + settings.batch_size], chosen[s : s + settings.batch_size]) for s in starts]


def mix_batch(
    examples: Examples,
    drawn: tuple[torch.Tensor, torch.Tensor],
    settings: FinetuneSettings,
    step: int,
    device: torch.device,
    team: TrainingTeam,
) -> MixedBatch:
    """A batch in which each picture has a share of another, features and classes (https://arxiv.org/abs/1806.05236).

    drawn: rows and views of the batch of all processes; each mixes its own pictures only.
    """
    rows, views = drawn
    rng = np.random.default_rng([settings.seed, step, 5])
    share = torch.from_numpy(rng.beta(_MIXED, _MIXED, len(rows)).astype(np.float32))
    share = torch.maximum(share, 1 - share)
    other = torch.from_numpy(rng.permutation(len(rows)))
    targets = _smooth(examples.targets[rows], settings)
    whole = targets * share[:, None] + targets[other] * (1 - share[:, None])
    own = torch.arange(len(rows))[team.rank :: team.size]
    first, second = (examples.features[rows[i], views[i]].to(device).float() for i in (own, other[own]))
    wide = share[own].to(device)[:, None, None, None]
    return MixedBatch(
        features=first * wide + second * (1 - wide), targets=whole[own].to(device), whole=whole.to(device)
    )


def _smooth(targets: torch.Tensor, settings: FinetuneSettings) -> torch.Tensor:
    """Targets [B,A] that are less sure (https://arxiv.org/abs/1512.00567)."""
    middle = 0.5 if settings.several else 1 / targets.shape[1]
    return targets * (1 - settings.smoothing) + middle * settings.smoothing

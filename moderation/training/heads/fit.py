"""Chooses a head by groups that it has not seen: the probe, or the probe with the last layers trained.

The layers are kept only where their loss on held-back groups is smaller than the probe's, each at its own temperature:
so on these groups the result is not worse than the probe. Then the layers learn from all pictures, for the best number
of epochs. Shape suffixes: N pictures, A classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from moderation.training.heads.backbone import LoadedBackbone, tail_layers
from moderation.training.heads.batches import Examples, FinetuneSettings
from moderation.training.heads.features import Features
from moderation.training.heads.finetune import TunedNetwork, finetune, predict
from moderation.training.heads.probe import Probe, choose_probes, fit_probe
from moderation.training.heads.progress import LayerProgress
from moderation.training.heads.quality import calibrated_loss, fit_temperature

# stage -> its checkpoint, and how to save one; the stage "held" is trained without the held-back groups.
Resume = Callable[[str], LayerProgress | None]
Save = Callable[[str, LayerProgress], None]


class Tune(Protocol):
    """As `finetune`, which trains in this process; `runtime.train` has one that trains in several."""

    def __call__(
        self,
        network: TunedNetwork,
        examples: Examples,
        settings: FinetuneSettings,
        *,
        device: torch.device,
        dtype: torch.dtype,
        planned_epochs: int | None = None,
        resume: LayerProgress | None = None,
        save: Callable[[LayerProgress], None] = ...,
    ) -> LayerProgress:
        """Train in place; returns where it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTrial:
    """Layers trained without the held-back groups, beside the better probe, which has not seen them either.

    losses: on these groups, before the first epoch and after each. probe_loss, tuned_loss: at their own temperatures.
    logits: of the held-back pictures, by the layers at their best epoch.
    """

    losses: tuple[float, ...]
    best_epoch: int
    probe_loss: float
    tuned_loss: float
    logits: torch.Tensor

    @property
    def better(self) -> bool:
        """Whether the layers are worth keeping."""
        return self.best_epoch > 0 and self.tuned_loss < self.probe_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedHead:
    """A head with its answers to pictures that it has not learned from.

    tuned: None where the probe was kept, or only a probe was requested. outside: logits float32 [M,A] of the pictures
    `outside_rows`, by a head that has not seen their groups. temperature: fitted on those. trial: None where no layers
    were trained.
    """

    probe: Probe
    tuned: TunedNetwork | None
    temperature: float
    outside: torch.Tensor
    outside_rows: npt.NDArray[np.int64]
    trial: LayerTrial | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadData:
    """What a head is fitted on. targets float32 [N,A]; fold_of int64 [N]: fold 0 is held back from layers."""

    features: Features
    targets: torch.Tensor
    fold_of: npt.NDArray[np.int64]

    @property
    def held(self) -> torch.Tensor:
        """bool [N]: pictures that layers do not learn from in their trial."""
        return torch.from_numpy(self.fold_of == 0)


def fit_head(
    data: HeadData,
    backbone: LoadedBackbone,
    settings: FinetuneSettings,
    *,
    resume: Resume = lambda _stage: None,
    save: Save = lambda _stage, _progress: None,
    tune: Tune = finetune,
) -> FittedHead:
    """Fit the probe, and the layers above `backbone.depth` where it has one; keep the better."""
    several, targets = settings.several, data.targets
    embeddings = data.features.embeddings
    probe, fit_plain, outside = choose_probes(
        embeddings, targets, data.fold_of, several=several, balance=settings.balance, classifier=backbone.classifier
    )
    alone = FittedHead(
        probe=probe,
        tuned=None,
        temperature=fit_temperature(outside, targets, several=several),
        outside=outside,
        outside_rows=np.arange(len(targets)),
    )
    if data.features.features is None:
        return alone
    # Layers change what an embedding means, so that its place among the backbone's classes would mean nothing.
    plain = fit_plain()
    trial = _try_layers(data, (probe, plain), backbone, settings, resume, save, tune)
    if not trial.better:
        return replace(alone, trial=trial)
    tuned = TunedNetwork(tail_layers(backbone), plain)
    tune(
        tuned,
        Examples(features=data.features.features, targets=targets),
        replace(settings, epochs=trial.best_epoch),
        device=backbone.device,
        dtype=backbone.dtype,
        planned_epochs=settings.epochs,
        resume=resume("whole"),
        save=lambda progress: save("whole", progress),
    )
    return FittedHead(
        probe=probe,
        tuned=tuned,
        temperature=fit_temperature(trial.logits, targets[data.held], several=several),
        outside=trial.logits,
        outside_rows=np.flatnonzero(data.held.numpy()),
        trial=trial,
    )


def _try_layers(
    data: HeadData,
    probes: tuple[Probe, Probe],
    backbone: LoadedBackbone,
    settings: FinetuneSettings,
    resume: Resume,
    save: Save,
    tune: Tune,
) -> LayerTrial:
    features, held, targets = data.features, data.held, data.targets
    assert features.features is not None  # the caller has checked
    best, start = (_refit(probe, data, settings) for probe in probes)
    network = TunedNetwork(tail_layers(backbone), start)
    examples = Examples(
        features=features.features[~held],
        targets=targets[~held],
        held_features=features.features[held, 0],
        held_targets=targets[held],
    )
    progress = tune(
        network,
        examples,
        settings,
        device=backbone.device,
        dtype=backbone.dtype,
        resume=resume("held"),
        save=lambda progress: save("held", progress),
    )
    logits = predict(network, features.features[held, 0], device=backbone.device, dtype=backbone.dtype)
    before = best.logits(features.embeddings[held, 0])
    return LayerTrial(
        losses=progress.losses,
        best_epoch=progress.best_epoch,
        probe_loss=calibrated_loss(before, targets[held], several=settings.several),
        tuned_loss=calibrated_loss(logits, targets[held], several=settings.several),
        logits=logits,
    )


def _refit(probe: Probe, data: HeadData, settings: FinetuneSettings) -> Probe:
    """The same kind of probe, without the held-back groups."""
    return fit_probe(
        data.features.embeddings[~data.held],
        data.targets[~data.held],
        probe.penalty,
        several=settings.several,
        balance=settings.balance,
        classifier=probe.classifier,
    )


def answer(head: FittedHead, features: Features, backbone: LoadedBackbone) -> torch.Tensor:
    """Logits float32 [N,A] of view 0 of pictures, before the temperature."""
    if head.tuned is None:
        return head.probe.logits(features.embeddings[:, 0])
    assert features.features is not None  # computed with the same backbone
    return predict(head.tuned, features.features[:, 0], device=backbone.device, dtype=backbone.dtype)


def count_folds(share: float) -> int:
    """The number of folds such that one is about this share; at least two."""
    return max(2, math.floor(1 / share + 0.5))

"""Learns vectors that replace the words of a check: gradient descent on class embeddings, networks frozen. Pure.

After Schramowski, Tauchmann, Kersting 2022, "Can machines help us answering question 16 in datasheets"
(arXiv:2202.06675), who tune one embedding per class on CLIP. Here every text of an answer keeps its own vector, so that
zero steps change nothing; and the loss includes the distance from the words, so that one picture per class does not
undo them.

Shape suffixes: F folds (trained side by side), N pictures, T texts, A answers, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from moderation.training.prompts.descent import descend
from moderation.training.prompts.spaces import Settings, Space

_MAX_LOGITS = 20_000_000  # logits of a step (folds x pictures x texts): 80 MB, and several times that with gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """texts_TD: per variant its tuned texts, float32 [T,D], normalised. parameters: learned. epochs: number taken."""

    texts_TD: tuple[torch.Tensor, ...]  # noqa: N815 - shape suffix
    parameters: tuple[torch.Tensor, ...]
    epochs: int


def learn(
    spaces: Sequence[Space],
    targets: npt.NDArray[np.int64],
    trains: Sequence[npt.NDArray[np.int64]],
    settings: Settings,
) -> list[Learned]:
    """Learn a replacement for the words, for each of `trains`; validation inside it chooses when to stop.

    targets: class of each picture [N]; trains: indices. All of them and their validation folds descend side by side:
    small matrix products cost mostly the call. With one picture per class there is nothing to validate on; then it
    takes a tenth of the epochs.
    """
    learned: list[Learned] = []
    texts = sum(end for space in spaces for _, end in space.spans[-1:])
    group = max(1, _MAX_LOGITS // max(1, settings.stop_folds * len(targets) * texts))
    for first in range(0, len(trains), group):
        some = trains[first : first + group]
        stops = _find_stops(spaces, targets, some, settings)
        masks = np.zeros((len(some), len(targets)), dtype=np.bool_)
        for row, train in enumerate(some):
            masks[row, train] = True
        parameters, _ = descend(spaces, targets, masks, stops, settings)
        for row, stop in enumerate(stops):
            own = tuple(p[row] for p in parameters)
            with torch.no_grad():
                made = tuple(space.texts(p[None])[0] for space, p in zip(spaces, own, strict=True))
            learned.append(Learned(texts_TD=made, parameters=own, epochs=stop))
    return learned


def _find_stops(
    spaces: Sequence[Space],
    targets: npt.NDArray[np.int64],
    trains: Sequence[npt.NDArray[np.int64]],
    settings: Settings,
) -> list[int]:
    """Epochs for each of `trains`: those with the lowest mean loss over its own validation folds."""
    stops = [settings.epochs // 10] * len(trains)
    inside: list[npt.NDArray[np.bool_]] = []
    held: list[npt.NDArray[np.bool_]] = []
    owner: list[int] = []
    for index, train in enumerate(trains):
        few = int(min(np.bincount(targets[train])))
        if few < 2:
            continue
        for fold in stratified_folds(targets[train], min(settings.stop_folds, few), settings.seed):
            out = np.zeros(len(targets), dtype=np.bool_)
            out[train[fold]] = True
            rest = np.zeros(len(targets), dtype=np.bool_)
            rest[train] = True
            held.append(out)
            inside.append(rest & ~out)
            owner.append(index)
    if not owner or not settings.epochs:
        return stops
    _, losses = descend(
        spaces, targets, np.stack(inside), [settings.epochs] * len(owner), settings, watch=np.stack(held)
    )
    for index in set(owner):
        own = [row for row, whose in enumerate(owner) if whose == index]
        stops[index] = int(losses[:, own].mean(axis=1).argmin())
    return stops


def stratified_folds(targets: npt.NDArray[np.int64], folds: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Indices of each fold, every class spread evenly, at random."""
    rng = np.random.default_rng([seed, 1])
    fold_members: list[list[int]] = [[] for _ in range(folds)]
    turn = 0
    for target in np.unique(targets):
        for index in rng.permutation(np.flatnonzero(targets == target)):
            fold_members[turn % folds].append(int(index))
            turn += 1
    return [np.array(sorted(members), dtype=np.int64) for members in fold_members]


def draw_shots(
    targets: npt.NDArray[np.int64], train: npt.NDArray[np.int64], shots: int | float, seed: int
) -> npt.NDArray[np.int64]:
    """Draw from `train`: an int is pictures per class, a float a share of each class (at least one picture)."""
    rng = np.random.default_rng([seed, 2])
    chosen: list[int] = []
    for target in np.unique(targets[train]):
        own = rng.permutation(train[targets[train] == target])
        count = shots if isinstance(shots, int) else max(1, round(shots * len(own)))
        chosen += own[:count].tolist()
    return np.array(sorted(chosen), dtype=np.int64)

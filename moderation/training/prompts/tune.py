"""Learning what stands for the words of a check: gradient descent on class embeddings, the networks frozen. Pure.

After Schramowski, Tauchmann, Kersting 2022, "Can machines help us answering question 16 in datasheets"
(arXiv:2202.06675), who tune one embedding a class on CLIP. Here every text of an answer keeps its vector, so that no
step is no change, and staying near the words is part of the loss, so that one picture a class does not undo them.

Shape suffixes: F folds (trained side by side), N pictures, T texts, A answers, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

_Mask = npt.NDArray[np.bool_]

_MAX_LOGITS = 20_000_000  # logits of a step (folds x pictures x texts): 80 MB, and some times that with gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to learn. epochs: whole passes, at most.

    rate: how many logits an epoch may move a picture's score at most (of Adam, over scale and root of the width). Five
    times as much overshot the words before validation could stop it. stay: weight of the squared distance from the
    start, in logits.

    folds: of the cross-validation that says how well it went. stop_folds: of the one inside it that says when to stop.
    """

    epochs: int = 120
    rate: float = 0.2
    stay: float = 1e-4
    folds: int = 5
    stop_folds: int = 3
    seed: int = 0
    together: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """One variant's view: its pictures, its classes, and what is learned.

    images_ND: float32, normalised. spans: for each answer, (first, end) of its texts. scale: the checkpoint's.
    start: what is learned, as the words have it. texts: parameters [F, *start.shape] -> normalised texts [F,T,D].
    stay, rate: factors on those of Settings, from logits to what is learned.
    """

    images_ND: torch.Tensor  # noqa: N815 - shape suffix
    spans: tuple[tuple[int, int], ...]
    scale: float
    start: torch.Tensor
    texts: Callable[[torch.Tensor], torch.Tensor]
    stay: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """texts_TD: a variant, its tuned texts, float32 [T,D], normalised. parameters: what was learned. epochs: taken."""

    texts_TD: tuple[torch.Tensor, ...]  # noqa: N815 - shape suffix
    parameters: tuple[torch.Tensor, ...]
    epochs: int


def word_space(images: npt.NDArray[np.float32], answers: Sequence[torch.Tensor], scale: float) -> Space:
    """Class embeddings are learned, from those of the words. answers: float32 [n,D] each."""
    return Space(
        images_ND=torch.from_numpy(images),
        spans=spans_of([len(a) for a in answers]),
        scale=scale,
        start=torch.nn.functional.normalize(torch.cat([a.float() for a in answers]), dim=1),
        texts=lambda found: torch.nn.functional.normalize(found, dim=-1),
        stay=scale**2,
        rate=1 / scale,
    )


def spans_of(counts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(first, end) of each answer's rows, from how many it has."""
    ends = np.cumsum(counts).tolist()
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def class_logits(
    images_ND: torch.Tensor,  # noqa: N803 - shape suffix
    texts_FTD: torch.Tensor,  # noqa: N803 - shape suffix
    spans: Sequence[tuple[int, int]],
    scale: float,
) -> torch.Tensor:
    """float32 [F,N,A], normalised over the answers: as `score_embeddings`, in logarithms and differentiable."""
    folds, texts = texts_FTD.shape[:2]
    # One product of two matrices: a batched one would copy the pictures for every fold.
    cosines = (images_ND @ texts_FTD.flatten(0, 1).T * scale).view(len(images_ND), folds, texts).transpose(0, 1)
    answers = [cosines[..., a:b].logsumexp(dim=-1) - float(np.log(b - a)) for a, b in spans]
    return torch.stack(answers, dim=-1).log_softmax(dim=-1)


def fuse_logits(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of the variants' log probabilities, normalised; of two answers this is the policy's `mean_logit`."""
    return torch.stack(list(parts)).mean(dim=0).log_softmax(dim=-1)


def learn(
    spaces: Sequence[Space],
    targets: npt.NDArray[np.int64],
    trains: Sequence[npt.NDArray[np.int64]],
    settings: Settings,
) -> list[Learned]:
    """What to use instead of the words, for each of `trains`: validation inside it says when to stop.

    targets: class of each picture [N]; trains: indices. All of them, and their validation, descend side by side: small
    products cost what calling them costs. With one picture a class there is nothing to validate on: a tenth of the
    epochs.
    """
    found: list[Learned] = []
    texts = sum(end for space in spaces for _, end in space.spans[-1:])
    group = max(1, _MAX_LOGITS // max(1, settings.stop_folds * len(targets) * texts))
    for first in range(0, len(trains), group):
        some = trains[first : first + group]
        stops = _find_stops(spaces, targets, some, settings)
        masks = np.zeros((len(some), len(targets)), dtype=np.bool_)
        for row, train in enumerate(some):
            masks[row, train] = True
        parameters, _ = _descend(spaces, targets, masks, stops, settings)
        for row, stop in enumerate(stops):
            own = tuple(p[row] for p in parameters)
            with torch.no_grad():
                made = tuple(space.texts(p[None])[0] for space, p in zip(spaces, own, strict=True))
            found.append(Learned(texts_TD=made, parameters=own, epochs=stop))
    return found


def _find_stops(
    spaces: Sequence[Space],
    targets: npt.NDArray[np.int64],
    trains: Sequence[npt.NDArray[np.int64]],
    settings: Settings,
) -> list[int]:
    """Epochs for each of `trains`: the least mean loss over its own validation folds."""
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
    _, losses = _descend(
        spaces, targets, np.stack(inside), [settings.epochs] * len(owner), settings, watch=np.stack(held)
    )
    for index in set(owner):
        own = [row for row, whose in enumerate(owner) if whose == index]
        stops[index] = int(losses[:, own].mean(axis=1).argmin())
    return stops


def predict(space: Space, texts_TD: torch.Tensor, which: npt.NDArray[np.int64]) -> torch.Tensor:  # noqa: N803
    """Log probabilities [n,A] of some pictures."""
    with torch.no_grad():
        return class_logits(space.images_ND[torch.from_numpy(which)], texts_TD[None], space.spans, space.scale)[0]


def zero_shot(space: Space) -> torch.Tensor:
    """The texts that learning starts from, [T,D]: for `word_space` exactly the words."""
    with torch.no_grad():
        return space.texts(space.start[None])[0]


def stratified_folds(targets: npt.NDArray[np.int64], folds: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Indices of each fold, every class spread evenly, by chance."""
    rng = np.random.default_rng([seed, 1])
    parts: list[list[int]] = [[] for _ in range(folds)]
    turn = 0
    for target in np.unique(targets):
        for index in rng.permutation(np.flatnonzero(targets == target)):
            parts[turn % folds].append(int(index))
            turn += 1
    return [np.array(sorted(part), dtype=np.int64) for part in parts]


def draw_shots(
    targets: npt.NDArray[np.int64], train: npt.NDArray[np.int64], shots: int | float, seed: int
) -> npt.NDArray[np.int64]:
    """Some of `train`: an int is pictures a class, a float a share of each class (at least one)."""
    rng = np.random.default_rng([seed, 2])
    chosen: list[int] = []
    for target in np.unique(targets[train]):
        own = rng.permutation(train[targets[train] == target])
        count = shots if isinstance(shots, int) else max(1, round(shots * len(own)))
        chosen += own[:count].tolist()
    return np.array(sorted(chosen), dtype=np.int64)


def _descend(
    spaces: Sequence[Space],
    targets: npt.NDArray[np.int64],
    masks: _Mask,
    stops: Sequence[int],
    settings: Settings,
    watch: _Mask | None = None,
) -> tuple[list[torch.Tensor], npt.NDArray[np.float64]]:
    """Parameters [F,...], each fold's after its own number of epochs; and losses on `watch` before each, [epochs+1,F].

    masks, watch: bool [F,N], the pictures each fold learns from and is watched on. Whole batches: a step is one matrix
    product, and the result does not depend on an order of pictures.
    """
    used = np.flatnonzero(masks.any(axis=0) | (False if watch is None else watch.any(axis=0)))
    goal = torch.from_numpy(targets[used]).expand(len(masks), -1)
    learned_from = _weights(masks[:, used])
    watched = None if watch is None else _weights(watch[:, used])
    images = [space.images_ND[torch.from_numpy(used)] for space in spaces]
    starts = [space.start.detach().repeat(len(masks), *(1 for _ in space.start.shape)) for space in spaces]
    parameters = [start.clone().requires_grad_() for start in starts]
    kept = [start.clone() for start in starts]
    rates = [settings.rate * space.rate / space.start.shape[-1] ** 0.5 for space in spaces]
    groups = [{"params": [found], "lr": rate} for found, rate in zip(parameters, rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    losses: list[npt.NDArray[np.float64]] = []
    for epoch in range(max(stops) + 1):
        for fold, stop in enumerate(stops):
            if stop == epoch:
                for keep, found in zip(kept, parameters, strict=True):
                    keep[fold] = found.detach()[fold]
        last = epoch == max(stops)
        if last and watched is None:
            break
        with torch.set_grad_enabled(not last):
            parts = [
                class_logits(image, space.texts(found), space.spans, space.scale)
                for image, space, found in zip(images, spaces, parameters, strict=True)
            ]
            each = -fuse_logits(parts).gather(2, goal[..., None])[..., 0]
            if watched is not None:
                losses.append((each.detach() * watched).sum(dim=1).double().numpy())
            if last:
                break
            # Folds do not share parameters, so the sum of their losses has each fold's own gradient.
            loss = (each * learned_from).sum()
            for space, found, start in zip(spaces, parameters, starts, strict=True):
                loss = loss + settings.stay * space.stay * (found - start).square().sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
        optimizer.step()
    return kept, np.array(losses)


def _weights(mask: _Mask) -> torch.Tensor:
    """float32 [F,N]: a mean over each fold's pictures."""
    found = torch.from_numpy(mask.astype(np.float32))
    return found / found.sum(dim=1, keepdim=True).clamp_min(1)

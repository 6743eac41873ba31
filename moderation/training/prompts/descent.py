"""Gradient descent with frozen networks, all folds side by side. Pure.

Shape suffixes: F folds (trained side by side), N pictures, U pictures that a fold uses, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from moderation.training.prompts.spaces import Settings, Space, class_logits, fuse_logits

Mask = npt.NDArray[np.bool_]


def descend(
    spaces: Sequence[Space],
    targets: npt.NDArray[np.int64],
    masks: Mask,
    stops: Sequence[int],
    settings: Settings,
    watch: Mask | None = None,
) -> tuple[list[torch.Tensor], npt.NDArray[np.float64]]:
    """Parameters [F,...], each fold's after its own number of epochs; losses on `watch` before each, [epochs+1,F].

    masks, watch: bool [F,N], the pictures that each fold learns from and those whose loss is recorded. Full batches: a
    step is one matrix product, and the order of pictures does not matter.
    """
    descent = _start_descent(spaces, targets, masks, watch, settings)
    optimizer = descent.make_optimizer()
    kept = [start.clone() for start in descent.starts]
    losses: list[npt.NDArray[np.float64]] = []
    for epoch in range(max(stops) + 1):
        descent.keep(kept, [fold for fold, stop in enumerate(stops) if stop == epoch])
        last = epoch == max(stops)
        if last and descent.watched is None:
            break
        with torch.set_grad_enabled(not last):
            picture_losses = descent.picture_losses()
            if descent.watched is not None:
                losses.append((picture_losses.detach() * descent.watched).sum(dim=1).double().numpy())
            if last:
                break
            loss = descent.loss(picture_losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
        optimizer.step()
    return kept, np.array(losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Descent:
    """The state of a descent of all folds; it holds only the pictures that a fold uses, U of N.

    images: of each space, [U,D]. goal_FU: classes. learned_from, watched: float32 [F,U], the weight of each picture in
    a fold's mean. starts, parameters: of each space, [F,...].
    """

    spaces: Sequence[Space]
    settings: Settings
    images: list[torch.Tensor]
    goal_FU: torch.Tensor  # noqa: N815 - shape suffix
    learned_from: torch.Tensor
    watched: torch.Tensor | None
    starts: list[torch.Tensor]
    parameters: list[torch.Tensor]

    def make_optimizer(self) -> torch.optim.Adam:
        rates = [self.settings.rate * space.rate / space.start.shape[-1] ** 0.5 for space in self.spaces]
        return torch.optim.Adam(
            [{"params": [learned], "lr": rate} for learned, rate in zip(self.parameters, rates, strict=True)]
        )

    def keep(self, kept: Sequence[torch.Tensor], folds: Sequence[int]) -> None:
        """Copy the current parameters of these folds into `kept`."""
        for copy, learned in zip(kept, self.parameters, strict=True):
            for fold in folds:
                copy[fold] = learned.detach()[fold]

    def picture_losses(self) -> torch.Tensor:
        """float32 [F,U]: the loss of each picture, by the fused answer of all spaces."""
        logits = [
            class_logits(images, space.texts(learned), space.spans, space.scale)
            for images, space, learned in zip(self.images, self.spaces, self.parameters, strict=True)
        ]
        return -fuse_logits(logits).gather(2, self.goal_FU[..., None])[..., 0]

    def loss(self, picture_losses: torch.Tensor) -> torch.Tensor:
        # Folds do not share parameters, so the sum of their losses has each fold's own gradient.
        loss = (picture_losses * self.learned_from).sum()
        for space, learned, start in zip(self.spaces, self.parameters, self.starts, strict=True):
            loss = loss + self.settings.stay * space.stay * (learned - start).square().sum()
        return loss


def _start_descent(
    spaces: Sequence[Space], targets: npt.NDArray[np.int64], masks: Mask, watch: Mask | None, settings: Settings
) -> _Descent:
    used = np.flatnonzero(masks.any(axis=0) | (False if watch is None else watch.any(axis=0)))
    starts = [space.start.detach().repeat(len(masks), *(1 for _ in space.start.shape)) for space in spaces]
    return _Descent(
        spaces=spaces,
        settings=settings,
        images=[space.images_ND[torch.from_numpy(used)] for space in spaces],
        goal_FU=torch.from_numpy(targets[used]).expand(len(masks), -1),
        learned_from=_weights(masks[:, used]),
        watched=None if watch is None else _weights(watch[:, used]),
        starts=starts,
        parameters=[start.clone().requires_grad_() for start in starts],
    )


def _weights(mask: Mask) -> torch.Tensor:
    """float32 [F,N]: weights that give the mean over each fold's pictures."""
    chosen = torch.from_numpy(mask.astype(np.float32))
    return chosen / chosen.sum(dim=1, keepdim=True).clamp_min(1)

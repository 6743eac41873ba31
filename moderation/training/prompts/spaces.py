"""What is learned, per variant: its pictures and classes; parameters -> texts -> answers. Pure.

Shape suffixes: F folds (trained side by side), N pictures, T texts, A answers, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to learn. epochs: the maximum.

    rate: by how many logits one epoch may change a picture's score at most (Adam's rate is this over scale and root of
    the width). Five times as much overshot before validation could stop it. stay: weight of the squared distance from
    the start, in logits.

    folds: of the cross-validation that measures quality. stop_folds: of the inner one that chooses when to stop.
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

    images_ND: float32, normalised. spans: (first, end) of the texts of each answer. scale: the checkpoint's.
    start: the parameters that learning starts from. texts: parameters [F, *start.shape] -> normalised texts [F,T,D].
    stay, rate: factors on those of Settings, from logits to the unit of the parameters.
    """

    images_ND: torch.Tensor  # noqa: N815 - shape suffix
    spans: tuple[tuple[int, int], ...]
    scale: float
    start: torch.Tensor
    texts: Callable[[torch.Tensor], torch.Tensor]
    stay: float
    rate: float


def word_space(images: npt.NDArray[np.float32], answers: Sequence[torch.Tensor], scale: float) -> Space:
    """A space that learns class embeddings, from those of the words. answers: float32 [n,D] each."""
    return Space(
        images_ND=torch.from_numpy(images),
        spans=spans_of([len(a) for a in answers]),
        scale=scale,
        start=torch.nn.functional.normalize(torch.cat([a.float() for a in answers]), dim=1),
        texts=lambda learned: torch.nn.functional.normalize(learned, dim=-1),
        stay=scale**2,
        rate=1 / scale,
    )


def spans_of(counts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(first, end) of each answer's rows, from the answers' numbers of texts."""
    ends = np.cumsum(counts).tolist()
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def class_logits(
    images_ND: torch.Tensor,  # noqa: N803 - shape suffix
    texts_FTD: torch.Tensor,  # noqa: N803 - shape suffix
    spans: Sequence[tuple[int, int]],
    scale: float,
) -> torch.Tensor:
    """float32 [F,N,A], normalised over the answers: `score_embeddings` as log probabilities, differentiable."""
    folds, texts = texts_FTD.shape[:2]
    # One product of two matrices: a batched product would copy the pictures for every fold.
    cosines = (images_ND @ texts_FTD.flatten(0, 1).T * scale).view(len(images_ND), folds, texts).transpose(0, 1)
    answers = [cosines[..., a:b].logsumexp(dim=-1) - float(np.log(b - a)) for a, b in spans]
    return torch.stack(answers, dim=-1).log_softmax(dim=-1)


def fuse_logits(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of the variants' log probabilities, normalised; for two answers this is the policy's `mean_logit`."""
    return torch.stack(list(parts)).mean(dim=0).log_softmax(dim=-1)


def predict(space: Space, texts_TD: torch.Tensor, which: npt.NDArray[np.int64]) -> torch.Tensor:  # noqa: N803
    """Log probabilities [n,A] of the pictures `which`."""
    with torch.no_grad():
        return class_logits(space.images_ND[torch.from_numpy(which)], texts_TD[None], space.spans, space.scale)[0]


def zero_shot(space: Space) -> torch.Tensor:
    """The texts that learning starts from, [T,D]; for `word_space` these are the words."""
    with torch.no_grad():
        return space.texts(space.start[None])[0]

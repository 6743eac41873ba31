"""How good answers are: accuracy, area under the curve, precision and recall by class; and a linear probe. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

_F = npt.NDArray[np.float64]
_I = npt.NDArray[np.int64]

# CLIP's own linear probes: C = 0.316 on embeddings whose length is about 10 (Radford et al. 2021, A.3, for ViT-B).
_PROBE_C = 0.316
_PROBE_LENGTH = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerQuality:
    """accuracy, auc: 0..1 (auc of several classes: mean of one against the rest; None where a class is missing).

    precision, recall: by class; None where no picture was predicted as it, or none belongs to it. spread: standard
    deviation of the accuracy over folds.
    """

    accuracy: float
    auc: float | None
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    spread: float | None = None


def measure(probabilities: _F, targets: _I, folds: Sequence[_I] = ()) -> AnswerQuality:
    """Measure answers float64 [N,A] to pictures of classes int64 [N]. folds: indices, for the spread."""
    called = probabilities.argmax(axis=1)
    right = called == targets
    classes = range(probabilities.shape[1])
    areas = [area_under_curve(probabilities[:, c], targets == c) for c in classes]
    return AnswerQuality(
        accuracy=float(right.mean()),
        auc=_mean_area(areas),
        precision=tuple(_share(right, called == c) for c in classes),
        recall=tuple(_share(right, targets == c) for c in classes),
        spread=float(np.std([right[fold].mean() for fold in folds])) if len(folds) > 1 else None,
    )


def _mean_area(areas: Sequence[float | None]) -> float | None:
    """The mean over the classes; the areas of two classes are equal."""
    defined = [area for area in areas if area is not None]
    if len(defined) < len(areas):
        return None
    return defined[0] if len(defined) == 2 else float(np.mean(defined))


def area_under_curve(scores: _F, positive: npt.NDArray[np.bool_]) -> float | None:
    """The probability that a positive scores above a negative, ties count half; None where one kind is missing."""
    yes, no = int(positive.sum()), int((~positive).sum())
    if not yes or not no:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def fit_probe(images: npt.NDArray[np.float32], targets: _I, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit logistic regression on embeddings, weights [A,D] and bias [A]: what labels alone give, without words."""
    x = torch.from_numpy(images) * _PROBE_LENGTH
    y = torch.from_numpy(targets)
    weight = torch.zeros((classes, x.shape[1]), requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        wrong = torch.nn.functional.cross_entropy(x @ weight.T + bias, y, reduction="sum") * _PROBE_C
        total: torch.Tensor = wrong + 0.5 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call] # torch leaves it so
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call] # torch leaves it so
    return weight.detach(), bias.detach()


def apply_probe(probe: tuple[torch.Tensor, torch.Tensor], images: npt.NDArray[np.float32]) -> torch.Tensor:
    """Log probabilities [N,A]."""
    weight, bias = probe
    return (torch.from_numpy(images) * _PROBE_LENGTH @ weight.T + bias).log_softmax(dim=1)


def _share(right: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float | None:
    return float(right[among].mean()) if among.any() else None

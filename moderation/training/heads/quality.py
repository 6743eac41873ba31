"""Quality and confidence of a head's answers: temperature, confusion, calibration. Pure.

Shape suffixes: N pictures, A classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from moderation.detectors.nn.prepare import one_thread
from moderation.training.heads.probe import head_loss
from moderation.training.prompts.measure import area_under_curve

_F = npt.NDArray[np.float64]
_BINS: Final = 15
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0


def fit_temperature(logits: torch.Tensor, targets: torch.Tensor, *, several: bool) -> float:
    """The divisor of logits [N,A] with the least loss on these pictures, which must not have been learned from.

    After Guo et al. 2017, https://arxiv.org/abs/1706.04599. Keeps the order of classes and of pictures.
    """
    low, high = np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE)
    ones = torch.ones(targets.shape[1])

    def loss(log_temperature: float) -> float:
        return float(head_loss(logits.double() / np.exp(log_temperature), targets.double(), ones, several=several))

    # The loss has one minimum in the inverse temperature: golden section finds it.
    ratio = (5**0.5 - 1) / 2
    with one_thread():
        for _ in range(40):
            left, right = high - ratio * (high - low), low + ratio * (high - low)
            if loss(left) <= loss(right):
                high = right
            else:
                low = left
    return float(np.exp((low + high) / 2))


def fit_line(logits: torch.Tensor, yes: torch.Tensor) -> tuple[float, float]:
    """(slope, shift) such that slope * logit + shift is the log odds of `yes` float32 [N] (Platt 1999)."""
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    x, y = logits.double(), yes.double()
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.nn.functional.binary_cross_entropy_with_logits(x * line[0] + line[1], y)
        total.backward()  # type: ignore[no-untyped-call] # torch leaves it so
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call] # torch leaves it so
    slope, shift = line.detach().tolist()
    return slope, shift


def calibrated_loss(logits: torch.Tensor, targets: torch.Tensor, *, several: bool) -> float:
    """The loss at the best temperature for these pictures: measures answers, not confidence."""
    temperature = fit_temperature(logits, targets, several=several)
    return float(head_loss(logits / temperature, targets, torch.ones(targets.shape[1]), several=several))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadQuality:
    """Figures over pictures that were not learned from.

    accuracy: share whose likeliest class is right; with several classes per picture, share of right yes-or-no answers.
    precision, recall, auc, roc, pictures: by class; None where no picture is called so, or none is so.
    calibration_error: expected, 15 bins. confusion: pictures by [class, answer]; empty with several classes a picture.
    """

    pictures: int
    accuracy: float
    mean_recall: float
    loss: float
    calibration_error: float
    classes: tuple[dict[str, Any], ...]
    confusion: tuple[tuple[int, ...], ...]


def measure_head(
    logits: torch.Tensor, targets: torch.Tensor, names: Sequence[str], *, temperature: float, several: bool
) -> HeadQuality:
    """The quality of answers: logits [N,A] before their temperature, targets float32 [N,A]."""
    scaled = logits.double() / temperature
    probabilities = (scaled.sigmoid() if several else scaled.softmax(dim=1)).numpy()
    truth = targets.numpy() > 0.5
    called = probabilities >= 0.5 if several else np.eye(len(names), dtype=np.bool_)[probabilities.argmax(axis=1)]
    rows: list[dict[str, Any]] = []
    for column, name in enumerate(names):
        own, said = truth[:, column], called[:, column]
        rows.append(
            {
                "name": name,
                "pictures": int(own.sum()),
                "precision": _share(own, said),
                "recall": _share(said, own),
                "auc": area_under_curve(probabilities[:, column], own),
                "roc": roc_points(probabilities[:, column], own),
            }
        )
    right = called == truth if several else (called & truth).any(axis=1)
    recalls = [row["recall"] for row in rows if row["recall"] is not None]
    if several:
        sure, hit = np.maximum(probabilities, 1 - probabilities).ravel(), right.ravel()
    else:
        sure, hit = probabilities.max(axis=1), right
    ones = torch.ones(len(names), dtype=torch.float64)
    return HeadQuality(
        pictures=len(truth),
        accuracy=float(right.mean()),
        mean_recall=float(np.mean(recalls)) if recalls else 0.0,
        loss=float(head_loss(scaled, targets.double(), ones, several=several)),
        calibration_error=calibration_error(sure, hit),
        classes=tuple(rows),
        confusion=() if several else tuple(map(tuple, (truth.T.astype(int) @ called.astype(int)).tolist())),
    )


def calibration_error(sure: _F, right: npt.NDArray[np.bool_]) -> float:
    """Mean distance between confidence and share of right answers, over 15 equal bins, weighted by pictures."""
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def roc_points(scores: _F, yes: npt.NDArray[np.bool_], most: int = 40) -> list[tuple[float, float]] | None:
    """(share of other pictures at or over a threshold, share of the class's), from the strictest threshold on.

    At most `most` + 2 points, from (0, 0) to (1, 1); None where one of the two kinds is missing.
    """
    if yes.all() or not yes.any():
        return None
    order = np.argsort(-scores, kind="stable")
    hits, alarms = np.cumsum(yes[order]), np.cumsum(~yes[order])
    # Equal scores pass a threshold together.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    chosen = last[np.unique(np.linspace(0, len(last) - 1, min(most, len(last))).round().astype(int))]
    points = np.stack([alarms[chosen] / alarms[-1], hits[chosen] / hits[-1]], axis=1).round(4)
    return [(0.0, 0.0), *((float(x), float(y)) for x, y in points)]


def _share(right: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float | None:
    return float(right[among].mean()) if among.any() else None

"""Training of the watermark network's head on cells drawn from kept features.

Each composite gives cells of its marks and cells without a mark: random ones in round 1, and in round 2 also those that
the head gets most wrong (hard negatives, as in SSD). Shape suffixes: N composites, S cells drawn, G cells per side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F

from moderation.detectors.general.watermark_network import (
    GRID,
    MarkHead,
    decode_sides,
    gather_cells,
    picture_logits,
)
from moderation.training.heads.quality import fit_line
from moderation.training.watermark.dataset import MarkFeatures
from moderation.training.watermark.targets import box_overlap

_WARM_SHARE: Final = 0.05
_POSITIVES, _RANDOM, _HARD = 20, 14, 26  # most cells of each sort from one composite
_CHUNK: Final = 64  # composites at once
_PRECISION: Final = 0.95  # at the threshold that the card names


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkSettings:
    """How to train the head. epochs: per round, over its cells. held_share: share of composites held back."""

    epochs: int = 8
    batch_size: int = 1024
    rate: float = 2e-3
    decay: float = 1e-3
    held_share: float = 0.08
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRound:
    """After a round: the mean loss of its last epoch, and figures on the held-back composites.

    held_right: share of them that a threshold of 0.5 gets right. threshold, recall: from `pick_threshold` on them.
    """

    number: int
    cells: int
    loss: float
    held_right: float
    threshold: float | None
    recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """S cells. x float16 [S,400]; kinds float32 [S], 1 where a mark is; owners float32 [S,4]: its box.

    places: int64 [S,2], y and x.
    """

    x: torch.Tensor
    kinds: torch.Tensor
    owners: torch.Tensor
    places: torch.Tensor


def train_marks(
    head: MarkHead, features: MarkFeatures, settings: MarkSettings, device: torch.device
) -> Iterator[MarkRound]:
    """Train in place, in two rounds; after each, scores are calibrated so that 0.5 is an even chance for a picture."""
    count = len(features.marked)
    held = max(1, round(count * settings.held_share))
    learned = torch.arange(count - held)
    head.to(device)
    rng = np.random.default_rng([settings.seed, 11])
    for number in (1, 2):
        cells = _draw(features, learned, rng, head if number > 1 else None, device)
        if number == 1:
            _standardise(head, cells)
        loss = _descend(head, cells, settings, number, device)
        # The drawn cells do not have the true share of marks, so the even chance for a picture is fitted afterwards.
        even_scores(head, _answer(head, features, learned, device), features.marked[: len(learned)])
        logits = _answer(head, features, torch.arange(count - held, count), device)
        right = ((logits > 0) == (features.marked[-held:] > 0)).float().mean().item()
        threshold, recall = pick_threshold(logits.sigmoid(), features.marked[-held:])
        yield MarkRound(
            number=number,
            cells=len(cells.kinds),
            loss=loss,
            held_right=right,
            threshold=threshold,
            recall=recall,
        )


def pick_threshold(
    scores: torch.Tensor, marked: torch.Tensor, precision: float = _PRECISION
) -> tuple[float | None, float]:
    """(least threshold with at least this precision, its recall); scores, marked: float32 [N].

    (None, 0.0) where no threshold is precise enough.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked, yes = scores[order], marked[order] > 0
    hits = yes.cumsum(dim=0)
    called = torch.arange(1, len(ranked) + 1)
    # Equal scores pass a threshold together, so only the last of them can be a threshold.
    last = torch.cat([ranked[1:] < ranked[:-1], torch.ones(1, dtype=torch.bool)])
    good = (last & (hits / called >= precision)).nonzero()
    if not len(good):
        return None, 0.0
    place = int(good[-1])
    return float(ranked[place]), float(hits[place] / hits[-1])


def _draw(
    features: MarkFeatures, rows: torch.Tensor, rng: np.random.Generator, head: MarkHead | None, device: torch.device
) -> _Cells:
    parts: list[_Cells] = []
    for start in range(0, len(rows), _CHUNK):
        chosen = rows[start : start + _CHUNK]
        with torch.no_grad():
            grid = gather_cells(features.fine[chosen].float(), features.coarse[chosen].float())
            wrong = None if head is None else head.judge(grid.to(device))[:, 0].flatten(1).cpu().numpy()
        flat = grid.flatten(2).transpose(1, 2).half()
        kinds = features.kinds[chosen].flatten(1).numpy()
        owners = features.owners[chosen].flatten(2).transpose(1, 2).float()
        for row in range(len(chosen)):
            picked = torch.from_numpy(_pick(kinds[row], None if wrong is None else wrong[row], rng))
            parts.append(
                _Cells(
                    x=flat[row, picked],
                    kinds=torch.from_numpy(kinds[row]).float()[picked],
                    owners=owners[row, picked],
                    places=torch.stack([picked // GRID, picked % GRID], dim=1),
                )
            )
    return _Cells(
        x=torch.cat([part.x for part in parts]),
        kinds=torch.cat([part.kinds for part in parts]),
        owners=torch.cat([part.owners for part in parts]),
        places=torch.cat([part.places for part in parts]),
    )


def _pick(
    kinds: np.ndarray[tuple[int, ...], np.dtype[np.int8]],
    sure: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None,
    rng: np.random.Generator,
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of the drawn cells of one composite. sure: the head's score of each cell."""
    yes, no = np.flatnonzero(kinds == 1), np.flatnonzero(kinds == 0)
    drawn = [rng.permutation(yes)[:_POSITIVES], rng.permutation(no)[:_RANDOM]]
    if sure is not None:
        drawn.append(no[np.argsort(-sure[no], kind="stable")][:_HARD])
    return np.unique(np.concatenate(drawn)).astype(np.int64)


@torch.no_grad()
def _standardise(head: MarkHead, cells: _Cells) -> None:
    """Change the first layer as if features had mean 0 and deviation 1."""
    mean, deviation = cells.x.float().mean(dim=0), cells.x.float().std(dim=0).clamp_min(1e-3)
    first = head.first
    first.weight.div_(deviation.view(1, -1, 1, 1))
    assert first.bias is not None  # built with one
    first.bias.sub_(first.weight.flatten(1) @ mean)


def _descend(head: MarkHead, cells: _Cells, settings: MarkSettings, number: int, device: torch.device) -> float:
    deviation = cells.x.float().std(dim=0).clamp_min(1e-3).to(device)
    first = head.first
    assert first.bias is not None  # built with one
    # Trains the first layer in terms of features of deviation 1, so that steps have the same size in all features.
    scaled = torch.nn.Parameter(first.weight.detach().flatten(1) * deviation)
    others = [first.bias, *head.middle.parameters(), *head.last.parameters()]
    optimizer = torch.optim.AdamW([scaled, *others], lr=settings.rate, weight_decay=settings.decay)
    steps = math.ceil(len(cells.kinds) / settings.batch_size)
    total = steps * settings.epochs
    losses: list[float] = []
    for epoch in range(settings.epochs):
        order = torch.from_numpy(np.random.default_rng([settings.seed, number, epoch]).permutation(len(cells.kinds)))
        losses = []
        for step in range(steps):
            share = (epoch * steps + step) / total
            for group in optimizer.param_groups:
                group["lr"] = (
                    settings.rate * min(1, share / _WARM_SHARE + 0.05) * (0.5 + 0.5 * math.cos(math.pi * share))
                )
            rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            x = F.linear(cells.x[rows].to(device).float(), scaled / deviation, first.bias).relu()
            for layer in (head.middle, head.last):
                x = F.linear(x, layer.weight.flatten(1), layer.bias)
                x = x.relu() if layer is head.middle else x
            loss = _cell_loss(
                x, cells.kinds[rows].to(device), cells.owners[rows].to(device), cells.places[rows].to(device)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
            optimizer.step()
            losses.append(loss.item())
    with torch.no_grad():
        first.weight.copy_((scaled / deviation).view_as(first.weight))
    return float(np.mean(losses))


def _cell_loss(answer: torch.Tensor, kinds: torch.Tensor, owners: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    said = F.binary_cross_entropy_with_logits(answer[:, 0], kinds)
    inside = kinds > 0
    if not inside.any():
        return said
    middles = places[inside].flip(1).T + 0.5
    boxes = decode_sides(answer[inside, 1:].T, middles).T
    return said + 0.3 * (1 - box_overlap(boxes, owners[inside])).mean()


@torch.no_grad()
def _answer(head: MarkHead, features: MarkFeatures, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Picture logits [n], on the CPU."""
    parts = []
    for start in range(0, len(rows), _CHUNK):
        chosen = rows[start : start + _CHUNK]
        logits, _ = head(features.fine[chosen].to(device).float(), features.coarse[chosen].to(device).float())
        parts.append(picture_logits(logits).cpu())
    return torch.cat(parts)


@torch.no_grad()
def even_scores(head: MarkHead, logits: torch.Tensor, marked: torch.Tensor) -> tuple[float, float]:
    """Scale and shift the head's logits of cells, so that a picture's score is its chance to be marked among these.

    Returns scale and shift, which hold for picture logits, too.
    """
    slope, shift = fit_line(logits, marked)
    last = head.last
    assert last.bias is not None  # built with one
    last.weight[0].mul_(slope)
    last.bias[0].mul_(slope).add_(shift)
    return slope, shift

"""Zero-shot, tuned and a linear probe by number of labelled pictures, each on pictures it has not seen. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from moderation.errors import UsageError
from moderation.training.prompts.measure import AnswerQuality, apply_probe, fit_probe, measure
from moderation.training.prompts.tune import (
    Learned,
    Settings,
    Space,
    draw_shots,
    fuse_logits,
    learn,
    predict,
    stratified_folds,
    zero_shot,
)

FUSED = "fused"
ZERO_SHOT, TUNED, PROBE = "zero-shot", "tuned", "probe"
_I = npt.NDArray[np.int64]
Shots = int | float  # pictures a class, or a share of the labelled pictures of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One figure of the report: a method, by a variant or by all of them fused, from so many labelled pictures.

    shots: "10" pictures a class, "40%" of them; "" for zero-shot. pictures: learned from, mean over folds. epochs: of
    each fold.
    """

    method: str
    variant: str
    shots: str
    pictures: float
    quality: AnswerQuality
    epochs: tuple[int, ...] = ()


def parse_shots(text: str) -> tuple[Shots, ...]:
    """`1,4,10,20,40,100%`: an int is pictures a class, a percentage a share. Raises UsageError."""
    found: list[Shots] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        try:
            value: Shots = float(part[:-1]) / 100 if part.endswith("%") else int(part)
        except ValueError:
            value = -1
        if not (0 < value <= 1 if isinstance(value, float) else value >= 1):
            raise UsageError(f"--curve {part!r}: expected pictures a class (10) or a share of them (40%)")
        found.append(value)
    return tuple(found)


def shots_name(shots: Shots) -> str:
    """`10` or `40%`."""
    return str(shots) if isinstance(shots, int) else f"{shots * 100:g}%"


def learning_curve(
    spaces: Mapping[str, Space],
    targets: _I,
    shots: Sequence[Shots],
    settings: Settings,
    *,
    probe: bool = True,
    words: Mapping[str, Space] | None = None,
) -> Iterator[Point]:
    """Quality by method and number of shots, cross-validated: what judges a picture has not learned from it.

    Zero-shot first, then for each of `shots` the tuned prompts and the probe. Numbers of shots that no fold has are
    left out. Fewer shots are drawn from each fold's training pictures by the seed. words: what zero-shot is, where
    learning starts from something else.
    """
    folds = fold_indices(targets, settings)
    whole = np.arange(len(targets))
    yield from _points(ZERO_SHOT, "", 0.0, _zero_shot(words or spaces, whole), targets, folds)
    trains = [np.setdiff1d(whole, fold) for fold in folds]
    fewest = min(int(np.bincount(targets[train]).min()) for train in trains)
    for wanted in shots:
        if isinstance(wanted, int) and wanted > fewest:
            continue
        drawn = [draw_shots(targets, train, wanted, settings.seed + i) for i, train in enumerate(trains)]
        mean = float(np.mean([len(d) for d in drawn]))
        tuned = tune(spaces, targets, drawn, settings)
        parts = [tuned_logits(spaces, found, fold) for found, fold in zip(tuned, folds, strict=True)]
        epochs = tuple(max(part.epochs for part in found.values()) for found in tuned)
        yield from _points(TUNED, shots_name(wanted), mean, _gather(parts, folds, len(targets)), targets, folds, epochs)
        if probe:
            parts = [_probe(spaces, targets, train, fold) for train, fold in zip(drawn, folds, strict=True)]
            found = _gather(parts, folds, len(targets))
            yield from _points(PROBE, shots_name(wanted), mean, found, targets, folds)


def fold_indices(targets: _I, settings: Settings) -> list[_I]:
    """The folds of the cross-validation: as many as set, or as the rarest class has pictures."""
    return stratified_folds(targets, max(2, min(settings.folds, int(np.bincount(targets).min()))), settings.seed)


def tune(
    spaces: Mapping[str, Space], targets: _I, trains: Sequence[_I], settings: Settings
) -> list[dict[str, Learned]]:
    """For each of `trains` every variant's tuned texts: learned on the fused answer (together), or each on its own."""
    if not settings.together:
        apart = {name: learn([space], targets, trains, settings) for name, space in spaces.items()}
        return [{name: found[row] for name, found in apart.items()} for row in range(len(trains))]
    return [
        {
            name: Learned(texts_TD=(texts,), parameters=(found,), epochs=both.epochs)
            for name, texts, found in zip(spaces, both.texts_TD, both.parameters, strict=True)
        }
        for both in learn(list(spaces.values()), targets, trains, settings)
    ]


def tuned_logits(spaces: Mapping[str, Space], tuned: Mapping[str, Learned], which: _I) -> dict[str, torch.Tensor]:
    """Log probabilities [n,A] of some pictures by every variant, and fused."""
    found = {name: predict(space, tuned[name].texts_TD[0], which) for name, space in spaces.items()}
    return {**found, FUSED: fuse_logits(list(found.values()))}


def _zero_shot(spaces: Mapping[str, Space], which: _I) -> dict[str, torch.Tensor]:
    found = {name: predict(space, zero_shot(space), which) for name, space in spaces.items()}
    return {**found, FUSED: fuse_logits(list(found.values()))}


def _probe(spaces: Mapping[str, Space], targets: _I, train: _I, test: _I) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, space in spaces.items():
        images = space.images_ND.numpy()
        classes = len(space.spans)
        found[name] = apply_probe(fit_probe(images[train], targets[train], classes), images[test])
    return {**found, FUSED: fuse_logits(list(found.values()))}


def _gather(parts: Sequence[Mapping[str, torch.Tensor]], folds: Sequence[_I], count: int) -> dict[str, torch.Tensor]:
    """What each fold's learner says of its own pictures, as one table."""
    whole: dict[str, torch.Tensor] = {}
    for name, first in parts[0].items():
        table = torch.empty((count, first.shape[1]))
        for part, fold in zip(parts, folds, strict=True):
            table[torch.from_numpy(fold)] = part[name]
        whole[name] = table
    return whole


def _points(
    method: str,
    shots: str,
    pictures: float,
    logits: Mapping[str, torch.Tensor],
    targets: _I,
    folds: Sequence[_I],
    epochs: tuple[int, ...] = (),
) -> Iterator[Point]:
    single = len(logits) == 2  # one variant: fused is the same
    for variant, found in logits.items():
        if single and variant == FUSED:
            continue
        quality = measure(found.double().exp().numpy(), targets, folds)
        yield Point(method=method, variant=variant, shots=shots, pictures=pictures, quality=quality, epochs=epochs)

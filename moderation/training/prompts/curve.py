"""Quality of zero-shot, tuned prompts and a linear probe by number of labelled pictures, on unseen pictures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from moderation.errors import UsageError
from moderation.training.prompts.measure import AnswerQuality, apply_probe, fit_probe, measure
from moderation.training.prompts.spaces import Settings, Space, fuse_logits, predict, zero_shot
from moderation.training.prompts.tune import Learned, draw_shots, learn, stratified_folds

FUSED = "fused"
ZERO_SHOT, TUNED, PROBE = "zero-shot", "tuned", "probe"
_I = npt.NDArray[np.int64]
Shots = int | float  # pictures per class, or a share of the labelled pictures of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One figure of the report: a method, by one variant or all variants fused, from a number of labelled pictures.

    shots: "10" pictures per class, "40%" of them; "" for zero-shot. pictures: learned from, mean over folds. epochs:
    per fold.
    """

    method: str
    variant: str
    shots: str
    pictures: float
    quality: AnswerQuality
    epochs: tuple[int, ...] = ()


def parse_shots(text: str) -> tuple[Shots, ...]:
    """Parse `1,4,10,20,40,100%`: an int is pictures per class, a percentage a share. Raises UsageError."""
    return tuple(_parse_one(word) for word in (w.strip() for w in text.split(",")) if word)


def _parse_one(word: str) -> Shots:
    try:
        value: Shots = float(word[:-1]) / 100 if word.endswith("%") else int(word)
    except ValueError:
        value = -1
    if not (0 < value <= 1 if isinstance(value, float) else value >= 1):
        raise UsageError(f"--curve {word!r}: expected pictures per class (10) or a share of them (40%)")
    return value


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
    """Quality by method and number of shots, cross-validated: a picture is never judged by what learned from it.

    Zero-shot comes first, then for each of `shots` the tuned prompts and the probe. Shots that no fold has are left
    out. Fewer shots are drawn from each fold's training pictures by the seed. words: the zero-shot spaces, where
    learning starts from other ones.
    """
    folds = fold_indices(targets, settings)
    whole = np.arange(len(targets))
    yield from _points(ZERO_SHOT, _Drawn(), _zero_shot(words or spaces, whole), targets, folds)
    trains = [np.setdiff1d(whole, fold) for fold in folds]
    for wanted in _select_possible(shots, targets, trains):
        subsets = [draw_shots(targets, train, wanted, settings.seed + i) for i, train in enumerate(trains)]
        drawn = _Drawn(shots=shots_name(wanted), pictures=float(np.mean([len(subset) for subset in subsets])))
        yield from _tuned_points(spaces, targets, subsets, folds, drawn, settings)
        if probe:
            logits = [_probe(spaces, targets, train, fold) for train, fold in zip(subsets, folds, strict=True)]
            yield from _points(PROBE, drawn, _gather(logits, folds, len(targets)), targets, folds)


def _select_possible(shots: Sequence[Shots], targets: _I, trains: Sequence[_I]) -> Iterator[Shots]:
    """The numbers of shots for which every fold has enough pictures of every class."""
    fewest = min(int(np.bincount(targets[train]).min()) for train in trains)
    for wanted in shots:
        if not isinstance(wanted, int) or wanted <= fewest:
            yield wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """What a method has learned from, as in `Point`; empty for zero-shot."""

    shots: str = ""
    pictures: float = 0.0
    epochs: tuple[int, ...] = ()


def _tuned_points(
    spaces: Mapping[str, Space],
    targets: _I,
    subsets: Sequence[_I],
    folds: Sequence[_I],
    drawn: _Drawn,
    settings: Settings,
) -> Iterator[Point]:
    tuned = tune(spaces, targets, subsets, settings)
    logits = [tuned_logits(spaces, learned, fold) for learned, fold in zip(tuned, folds, strict=True)]
    drawn = replace(drawn, epochs=tuple(max(texts.epochs for texts in learned.values()) for learned in tuned))
    yield from _points(TUNED, drawn, _gather(logits, folds, len(targets)), targets, folds)


def fold_indices(targets: _I, settings: Settings) -> list[_I]:
    """The folds of the cross-validation: as many as set, at most as many as the rarest class has pictures."""
    return stratified_folds(targets, max(2, min(settings.folds, int(np.bincount(targets).min()))), settings.seed)


def tune(
    spaces: Mapping[str, Space], targets: _I, trains: Sequence[_I], settings: Settings
) -> list[dict[str, Learned]]:
    """Tuned texts of every variant for each of `trains`: learned on the fused answer (together), or separately."""
    if not settings.together:
        apart = {name: learn([space], targets, trains, settings) for name, space in spaces.items()}
        return [{name: learned[row] for name, learned in apart.items()} for row in range(len(trains))]
    return [
        {
            name: Learned(texts_TD=(texts,), parameters=(parameters,), epochs=both.epochs)
            for name, texts, parameters in zip(spaces, both.texts_TD, both.parameters, strict=True)
        }
        for both in learn(list(spaces.values()), targets, trains, settings)
    ]


def tuned_logits(spaces: Mapping[str, Space], tuned: Mapping[str, Learned], which: _I) -> dict[str, torch.Tensor]:
    """Log probabilities [n,A] of the pictures `which`, by every variant and fused."""
    return _with_fused({name: predict(space, tuned[name].texts_TD[0], which) for name, space in spaces.items()})


def _zero_shot(spaces: Mapping[str, Space], which: _I) -> dict[str, torch.Tensor]:
    return _with_fused({name: predict(space, zero_shot(space), which) for name, space in spaces.items()})


def _probe(spaces: Mapping[str, Space], targets: _I, train: _I, test: _I) -> dict[str, torch.Tensor]:
    logits: dict[str, torch.Tensor] = {}
    for name, space in spaces.items():
        images = space.images_ND.numpy()
        classes = len(space.spans)
        logits[name] = apply_probe(fit_probe(images[train], targets[train], classes), images[test])
    return _with_fused(logits)


def _with_fused(logits: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**logits, FUSED: fuse_logits(list(logits.values()))}


def _gather(logits: Sequence[Mapping[str, torch.Tensor]], folds: Sequence[_I], count: int) -> dict[str, torch.Tensor]:
    """Each fold's predictions of its own pictures, as one table."""
    whole: dict[str, torch.Tensor] = {}
    for name, first in logits[0].items():
        table = torch.empty((count, first.shape[1]))
        for fold_logits, fold in zip(logits, folds, strict=True):
            table[torch.from_numpy(fold)] = fold_logits[name]
        whole[name] = table
    return whole


def _points(
    method: str, drawn: _Drawn, logits: Mapping[str, torch.Tensor], targets: _I, folds: Sequence[_I]
) -> Iterator[Point]:
    single = len(logits) == 2  # one variant: fused is the same
    for variant, variant_logits in logits.items():
        if single and variant == FUSED:
            continue
        quality = measure(variant_logits.double().exp().numpy(), targets, folds)
        yield Point(
            method=method,
            variant=variant,
            shots=drawn.shots,
            pictures=drawn.pictures,
            quality=quality,
            epochs=drawn.epochs,
        )

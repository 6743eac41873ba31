"""What a head has gained and forgotten against the head that it continues, class by class. Pure.

Both heads are held against answers to pictures that they have not learned from, so that the older one, which has
learned from the older pictures, has no advantage on them. Shape suffixes: N pictures, A classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

_B = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """Pictures of one class that one head gets right.

    before, after: of `pictures`, right by the older and by the newer head. gained: only by the newer; lost: only by the
    older. before is None for a class that the older head does not have.
    """

    name: str
    pictures: int
    before: int | None
    after: int
    gained: int
    lost: int

    @property
    def forgotten(self) -> float:
        """Share of the pictures that the newer head lost, less what it gained; 0 where it gained more."""
        return max(0, self.lost - self.gained) / self.pictures if self.pictures else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadChange:
    """The two heads on the older pictures, on the added ones and on test pictures, by class.

    refused: why the newer one is; empty where it is not.
    """

    old: tuple[ClassChange, ...]
    added: tuple[ClassChange, ...]
    test: tuple[ClassChange, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPair:
    """Answers of both heads to the same pictures.

    before: float32 [N,old classes], after: float32 [N,A]: logits; the older head has the first classes of the newer.
    Rows with NaN are left out. targets: float32 [N,A]. kinds: `old`, `added` or `test`, of each picture.
    """

    before: torch.Tensor
    after: torch.Tensor
    targets: torch.Tensor
    kinds: Sequence[str]


def compare_heads(pair: HeadPair, classes: Sequence[str], *, several: bool, max_forgotten: float) -> HeadChange:
    """Compare both heads.

    max_forgotten: largest share of a class's older, or test pictures that may be lost. One picture always may, because
    it is less than chance.
    """
    known = ~(torch.isnan(pair.before).any(dim=1) | torch.isnan(pair.after).any(dim=1)).numpy()
    truth = pair.targets.numpy() > 0.5
    right = [_right(logits.numpy(), truth, several=several) for logits in (pair.before, pair.after)]
    kinds = np.array(pair.kinds, dtype=np.str_)
    old_classes = pair.before.shape[1]

    def changes(kind: str) -> tuple[ClassChange, ...]:
        rows = known & (kinds == kind)
        return tuple(
            _change(name, truth[:, place], right, rows, place, old_classes, several=several)
            for place, name in enumerate(classes)
        )

    old, added, test = changes("old"), changes("added"), changes("test")
    refused = [*_refusals(old, "older", max_forgotten), *_refusals(test, "test", max_forgotten)]
    return HeadChange(old=old, added=added, test=test, refused=tuple(refused))


def _right(logits: npt.NDArray[np.float32], truth: _B, *, several: bool) -> _B:
    """bool [N,A]: whether the answer to each class is right; of exclusive classes, whether the picture's is."""
    count = logits.shape[1]
    if several:
        right = np.zeros_like(truth)
        right[:, :count] = (np.nan_to_num(logits) >= 0) == truth[:, :count]
        return right
    likeliest = np.nan_to_num(logits, nan=-np.inf).argmax(axis=1)
    return np.repeat(truth[np.arange(len(truth)), likeliest][:, None], truth.shape[1], axis=1)


def _change(
    name: str, own: _B, right: Sequence[_B], rows: _B, place: int, old_classes: int, *, several: bool
) -> ClassChange:
    # With several classes a picture that is wrongly called so counts, too.
    chosen = rows if several else rows & own
    before, after = (side[chosen, place] for side in right)
    return ClassChange(
        name=name,
        pictures=int(chosen.sum()),
        before=int(before.sum()) if place < old_classes else None,
        after=int(after.sum()),
        gained=int((after & ~before).sum()),
        lost=int((before & ~after).sum()),
    )


def _refusals(changes: Sequence[ClassChange], kind: str, max_forgotten: float) -> list[str]:
    refused = []
    for change in changes:
        net = change.lost - change.gained
        if change.before is not None and net > max(1, max_forgotten * change.pictures):
            refused.append(
                f"{change.name}: of {change.pictures:,} {kind} pictures {change.before:,} were right, now"
                f" {change.after:,}: {change.forgotten:.1%} forgotten, at most {max_forgotten:.1%} may be"
            )
    return refused

"""Remembered and added pictures as one set to learn from, with the older head's answers to them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from moderation.training.heads.additions import Additions
from moderation.training.heads.base import HeadBase
from moderation.training.heads.features import Features
from moderation.training.heads.replay import ReplayMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Remembered pictures, then added ones. before: the older head's logits [N,old classes]. corrected: remembered
    pictures that got another label."""

    memory: ReplayMemory
    before: torch.Tensor
    is_added: np.ndarray[tuple[int], np.dtype[np.bool_]]
    corrected: int

    @property
    def groups(self) -> list[str]:
        """A picture without a group is a group by itself."""
        named = zip(self.memory.groups, self.memory.names, strict=True)
        return [f"group {group}" if group else name for group, name in named]


def mix_pictures(base: HeadBase, additions: Additions, features: Features, embeddings: torch.Tensor) -> Mixture:
    """Added pictures replace remembered ones of the same content."""
    added = torch.from_numpy(additions.targets[features.kept].copy())
    fresh = set(features.names)
    remembered = {name: row for row, name in enumerate(base.memory.names)}
    old = base.memory.select([row for row, name in enumerate(base.memory.names) if name not in fresh])
    known = len(base.record.classes)
    corrected = sum(
        not torch.equal(added[place, :known], base.memory.targets[remembered[name]])
        for place, name in enumerate(features.names)
        if name in remembered
    )
    rows = features.kept.tolist()
    wider = len(additions.classes) - known
    memory = ReplayMemory(
        names=(*old.names, *features.names),
        uris=(*old.uris, *(additions.items[row].uri for row in rows)),
        groups=(*old.groups, *(additions.groups[row] for row in rows)),
        classes=additions.classes,
        embeddings=torch.cat([old.embeddings, embeddings]),
        targets=torch.cat([torch.nn.functional.pad(old.targets, (0, wider)), added]),
        outside=torch.full((len(old.names) + len(rows), len(additions.classes)), float("nan")),
    )
    # The older head has not learned from added pictures, unless they are corrections: of those it knows its old answer.
    own = base.logits(embeddings[:, 0])
    for place, name in enumerate(features.names):
        if name in remembered:
            own[place] = base.memory.outside[remembered[name]]
    is_added = np.arange(len(memory.names)) >= len(old.names)
    # Layers that have learned from the older pictures answer for both heads, so both are asked on them alike.
    before = old.outside if base.record.depth is None else base.logits(old.embeddings[:, 0])
    return Mixture(memory=memory, before=torch.cat([before, own]), is_added=is_added, corrected=int(corrected))


def unseen_rows(base: HeadBase, mixture: Mixture) -> npt.NDArray[np.int64]:
    """Rows by which the newer head is measured: all, or, where layers have learned from the older ones, the added."""
    every = np.arange(len(mixture.memory.names))
    if base.record.depth is None:
        return every
    learned = set(base.memory.names)
    fresh = np.array([name not in learned for name in mixture.memory.names])
    return every[fresh] if fresh.any() else every

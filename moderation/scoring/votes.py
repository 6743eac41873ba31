"""The votes on a batch of frames: collected detector by detector, sliced and joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from moderation.detectors.base import Scored
from moderation.types import F32, Region


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchVotes:
    """The votes of the stack on a batch.

    scores: float32 [B,L], NaN = not asked. regions, blobs and embeddings: one value per frame.
    ran: number of frames that each detector scored; empty for a slice of a batch.
    """

    scores: F32
    regions: tuple[tuple[Region, ...], ...]
    blobs: Mapping[str, tuple[bytes | None, ...]]
    embeddings: Mapping[str, npt.NDArray[np.float16]]
    ran: Mapping[str, int]


class VoteCollector:
    """The votes of one batch while its detectors run.

    Scores stay on the device until they are needed: each copy to the host waits for the device, which could otherwise
    start the next detector.
    """

    def __init__(
        self, frames: int, labels: int, blob_sizes: Mapping[str, int], embedding_dims: Mapping[str, int]
    ) -> None:
        self._scores = np.full((frames, labels), np.nan, dtype=np.float32)
        self._regions: list[list[Region]] = [[] for _ in range(frames)]
        self._blobs: dict[str, list[bytes | None]] = {name: [None] * frames for name in blob_sizes}
        self._embeddings = {
            name: np.full((frames, dim), np.nan, dtype=np.float16) for name, dim in embedding_dims.items()
        }
        self._ran: dict[str, int] = {}
        self._on_device: list[tuple[npt.NDArray[np.intp], slice, torch.Tensor]] = []

    def add(self, name: str, columns: slice, asked: npt.NDArray[np.intp], scored: Scored | None) -> None:
        """Add the results of detector `name` for the frames `asked`, [n] rows of the batch; None: no results."""
        self._ran[name] = len(asked)
        if scored is None:
            return
        self._on_device.append((asked, columns, scored.scores.detach().float()))
        for place, row in enumerate(asked):
            if scored.regions is not None:
                self._regions[row].extend(scored.regions[place])
            for blob, values in scored.blobs.items():
                self._blobs[f"{name}.{blob}"][row] = values[place]
        if name in self._embeddings and scored.embedding is not None:
            unit = torch.nn.functional.normalize(scored.embedding.float(), dim=1)
            self._embeddings[name][asked] = unit.half().cpu().numpy()

    def scores(self) -> F32:
        """float32 [B,L] of the detectors added so far; waits for the device."""
        for asked, columns, values in self._on_device:
            values_BL = values.cpu().numpy()  # noqa: N806 - shape suffix
            # An infinite score counts as not asked, also for conditions on it.
            self._scores[asked, columns] = np.where(np.isfinite(values_BL), values_BL, np.nan)
        self._on_device.clear()
        return self._scores

    def votes(self) -> BatchVotes:
        """All votes; waits for the device."""
        return BatchVotes(
            scores=self.scores(),
            regions=tuple(tuple(regions) for regions in self._regions),
            blobs={name: tuple(values) for name, values in self._blobs.items()},
            embeddings=self._embeddings,
            ran=self._ran,
        )


def slice_votes(votes: BatchVotes, start: int, stop: int) -> BatchVotes:
    """The votes of frames start to stop of a batch."""
    return BatchVotes(
        scores=votes.scores[start:stop],
        regions=votes.regions[start:stop],
        blobs={name: values[start:stop] for name, values in votes.blobs.items()},
        embeddings={name: values[start:stop] for name, values in votes.embeddings.items()},
        ran={},
    )


def take_votes(votes: BatchVotes, rows: Sequence[int]) -> BatchVotes:
    """The votes on these frames of a batch, in this order."""
    return BatchVotes(
        scores=votes.scores[list(rows)],
        regions=tuple(votes.regions[row] for row in rows),
        blobs={name: tuple(values[row] for row in rows) for name, values in votes.blobs.items()},
        embeddings={name: values[list(rows)] for name, values in votes.embeddings.items()},
        ran={},
    )


def join_votes(slices: Sequence[BatchVotes]) -> BatchVotes:
    """Join votes on consecutive frames. Raises IndexError where there are none."""
    first = slices[0]
    if len(slices) == 1:
        return first
    return BatchVotes(
        scores=np.concatenate([votes.scores for votes in slices]),
        regions=tuple(regions for votes in slices for regions in votes.regions),
        blobs={name: tuple(blob for votes in slices for blob in votes.blobs[name]) for name in first.blobs},
        embeddings={name: np.concatenate([votes.embeddings[name] for votes in slices]) for name in first.embeddings},
        ran={name: sum(votes.ran[name] for votes in slices) for name in first.ran},
    )

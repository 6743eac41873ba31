"""Results of a detector, handed on to later detectors that read them; and the check of their shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moderation.detectors.base import Detector, Scored
from moderation.types import Region


class HandedOn:
    """Results of one batch so far, for the detectors that read them. frames: number in the batch."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._whole: dict[str, Scored] = {}  # of detectors that ran on every frame
        self._gated: dict[str, Scored] = {}  # of detectors with a `when:`, spread over the batch

    def add(self, detector: Detector, scored: Scored, asked: list[int], *, gated: bool) -> None:
        """Keep a detector's results for the rows `asked`."""
        if gated:
            self._gated[detector.name] = _spread_out(scored, asked, self._frames, detector.labels)
        if len(asked) == self._frames:
            # Results for some frames only are not offered: their rows would not line up.
            self._whole[detector.name] = replace(scored, labels=tuple(detector.labels))

    def to(self, detector: Detector, rows: list[int] | None) -> dict[str, Scored]:
        """The results that `detector` reads. rows: the frames that it runs on; None: all."""
        needed = {name: self._whole[name] for name in detector.requires if name in self._whole}
        for name in detector.optional:
            # Results behind a condition are offered spread out even if the whole batch met it: a frame's score must not
            # depend on its neighbours.
            offered = self._gated.get(name) or self._whole.get(name)
            if offered is not None:
                needed[name] = offered
        if rows is None:
            return needed
        return {name: _select(scored, rows) for name, scored in needed.items()}


def _select(scored: Scored, rows: list[int]) -> Scored:
    """A detector's results for some of its frames, for a detector that runs on these only."""
    return Scored(
        scores=scored.scores[rows],
        embedding=None if scored.embedding is None else scored.embedding[rows],
        regions=None if scored.regions is None else [scored.regions[i] for i in rows],
        blobs={name: [values[i] for i in rows] for name, values in scored.blobs.items()},
        labels=scored.labels,
        points=None if scored.points is None else [scored.points[i] for i in rows],
        features={depth: features[rows] for depth, features in scored.features.items()},
        class_mean=None if scored.class_mean is None else scored.class_mean[rows],
    )


def _spread_out(scored: Scored, rows: list[int], count: int, labels: Sequence[str]) -> Scored:
    """A detector's results for some frames, at their places in the batch; elsewhere NaN and no regions."""
    scores = scored.scores.new_full((count, scored.scores.shape[1]), float("nan"))
    scores[rows] = scored.scores
    regions: list[Sequence[Region]] | None = None
    if scored.regions is not None:
        regions = [() for _ in range(count)]
        for place, row in enumerate(rows):
            regions[row] = scored.regions[place]
    return Scored(scores=scores, regions=regions, labels=tuple(labels))


def check_scored(detector: Detector, scored: Scored, rows: int) -> None:
    """Check rows in = rows out; numpy would broadcast one row. Raises ValueError that names the mismatch."""
    if tuple(scored.scores.shape) != (rows, len(detector.labels)):
        raise ValueError(
            f"{detector.name}: scores {list(scored.scores.shape)} for {rows} frames and {len(detector.labels)} labels"
        )
    if scored.embedding is not None and tuple(scored.embedding.shape) != (rows, detector.embedding_dim):
        raise ValueError(f"{detector.name}: an embedding of {list(scored.embedding.shape)} for {rows} frames")
    if scored.regions is not None and len(scored.regions) != rows:
        raise ValueError(f"{detector.name}: regions of {len(scored.regions)} frames for {rows}")
    for name, values in scored.blobs.items():
        _check_blob(detector, name, values, rows)


def _check_blob(detector: Detector, name: str, values: Sequence[bytes | None], rows: int) -> None:
    size = detector.blob_sizes.get(name)
    if len(values) != rows or any(value is not None and len(value) != size for value in values):
        raise ValueError(f"{detector.name}: {name!r} is not {rows} values of {size} bytes")

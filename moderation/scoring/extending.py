"""Some detectors of a stack over frames of which a run has votes already: conditions read those votes.

A detector is scored where the run lacks its votes, or has them of another version. One that such a detector reads runs
again for its results, and its votes are not kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.scoring.slots import Slot, needs_of
from moderation.scoring.stack import Stack
from moderation.scoring.votes import BatchVotes, VoteCollector
from moderation.types import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFrame(Frame):
    """A frame with votes that a run has of it, by label; a label that is missing is null."""

    known: Mapping[str, float] = field(default_factory=dict)


def with_known(frame: Frame, known: Mapping[str, float]) -> KnownFrame:
    """A frame with votes that a run has of it."""
    return KnownFrame(**{f.name: getattr(frame, f.name) for f in fields(Frame)}, known=known)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorChanges:
    """How a stack's detectors differ from those of a run.

    added: the run lacks their votes. again: its votes are of another version, other weights, options or inputs, with
    the version before and now. kept: the run's votes are right. helpers: of these, what others read: they run again,
    and their votes are not kept. All in the order of the stack.
    """

    added: tuple[str, ...]
    again: Mapping[str, tuple[str, str]]
    kept: tuple[str, ...]
    helpers: tuple[str, ...]
    scored: tuple[str, ...]

    @property
    def running(self) -> tuple[str, ...]:
        """The detectors that run."""
        return (*self.helpers, *self.scored)


def compare_detectors(
    stack: Stack, before: Mapping[str, Any], now: Mapping[str, Any], *, where: str = "the run"
) -> DetectorChanges:
    """What a run lacks of a stack. before, now: of `slots.describe_detectors`.

    Raises UsageError where other frames would be decoded now than for the run.
    """
    if before.get("decoding") != now["decoding"]:
        raise UsageError(
            f"{where}: was decoded by version {before.get('decoding')}, this one is {now['decoding']}: its frames may"
            " be others, so votes cannot be added to them; use a new OUT"
        )
    stored, wanted = before["detectors"], now["detectors"]
    added = tuple(name for name in wanted if name not in stored)
    again = {
        name: (str(stored[name].get("version")), str(wanted[name]["version"]))
        for name in wanted
        if name in stored and not _same(stored[name], wanted[name])
    }
    return changes_of(stack, added=added, again=again)


def changes_of(stack: Stack, *, added: Sequence[str], again: Mapping[str, tuple[str, str]]) -> DetectorChanges:
    """The changes that score these detectors of a stack."""
    names = [slot.detector.name for slot in stack.slots]
    scored = {*added, *again}
    running = _with_helpers(stack.slots, scored)

    def ordered(chosen: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in chosen)

    return DetectorChanges(
        added=ordered(added),
        again=again,
        kept=ordered(set(names) - scored),
        helpers=ordered(running - scored),
        scored=ordered(scored),
    )


def _same(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return stored["hash"] == wanted["hash"] and (bool(stored.get("embedding")) or not wanted["embedding"])


def _with_helpers(slots: Sequence[Slot], scored: Collection[str]) -> set[str]:
    """Detectors, and all that they read, and what these read."""
    running = set(scored)
    # Backwards: a detector reads earlier ones only.
    for slot in reversed(slots):
        if slot.detector.name in running:
            running.update(needs_of(slot, slots))
    return running


class ExtendingStack(Stack):
    """Some detectors of a stack. Votes that conditions read and that no running detector casts come with the frames.

    labels, blob_sizes, embedding_dims: of the running detectors; `kept_votes` leaves out helpers.
    known_labels: the votes that frames must bring along.
    """

    def __init__(self, whole: Stack, changes: DetectorChanges, config: Config) -> None:
        super().__init__(_renumber([s for s in whole.slots if s.detector.name in changes.running]), config)
        self._helpers = frozenset(changes.helpers)
        self._frames: Sequence[Frame] = ()
        votes = [slot.condition.vote for slot in self.slots if slot.condition is not None]
        self.known_labels = tuple(dict.fromkeys(vote for vote in votes if vote not in self.labels))
        self.kept_labels = tuple(label for label in self.labels if self._is_kept(label))

    def _is_kept(self, column: str) -> bool:
        return column.partition(".")[0] not in self._helpers

    def kept_blob_sizes(self) -> dict[str, int]:
        """Bytes per frame of each value that is kept and is no score."""
        return {name: size for name, size in self.blob_sizes.items() if self._is_kept(name)}

    def kept_embedding_dims(self) -> dict[str, int]:
        """Dimensions of the embeddings that are kept."""
        return {name: dim for name, dim in self.embedding_dims.items() if self._is_kept(name)}

    def kept_votes(self, votes: BatchVotes) -> BatchVotes:
        """The votes without those of helpers. scores: float32 [B,L] for `kept_labels`."""
        columns = [index for index, label in enumerate(self.labels) if self._is_kept(label)]
        return replace(
            votes,
            scores=votes.scores[:, columns],
            regions=tuple(
                tuple(region for region in regions if region.detector not in self._helpers) for regions in votes.regions
            ),
            blobs={name: values for name, values in votes.blobs.items() if self._is_kept(name)},
            embeddings={name: values for name, values in votes.embeddings.items() if self._is_kept(name)},
        )

    def _score_chunk(self, frames: Sequence[Frame]) -> BatchVotes:
        self._frames = frames
        return super()._score_chunk(frames)

    def _asked(self, slot: Slot, collected: VoteCollector, frames: int) -> npt.NDArray[np.intp]:
        condition = slot.condition
        if condition is None or condition.vote in self.labels:
            return super()._asked(slot, collected, frames)
        known = [f.known.get(condition.vote, np.nan) if isinstance(f, KnownFrame) else np.nan for f in self._frames]
        return np.flatnonzero(condition.met(np.array(known, np.float32)))


def _renumber(slots: Sequence[Slot]) -> list[Slot]:
    """The slots with columns of their own, one after the other."""
    numbered: list[Slot] = []
    start = 0
    for slot in slots:
        stop = start + len(slot.labels)
        numbered.append(replace(slot, columns=slice(start, stop)))
        start = stop
    return numbered

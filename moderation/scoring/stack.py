"""The stack: configured, ordered detectors over a batch of frames; one upload, shared views, conditions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from moderation.config.model import Config
from moderation.detectors.base import FrameBatch, Scored
from moderation.detectors.nn.compile import compile_networks
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.scoring.declared import DeclaredStack
from moderation.scoring.devices import pick_device, pick_dtype
from moderation.scoring.handover import HandedOn, check_scored
from moderation.scoring.slots import Slot
from moderation.scoring.votes import BatchVotes, VoteCollector, join_votes
from moderation.types import Frame


class SelectableFrames(FrameBatch, Protocol):
    """Frames of which some can be taken, for detectors that run on these only."""

    def select(self, indices: Sequence[int]) -> FrameBatch:
        """The frames at these indices, in this order."""


class Stack(DeclaredStack):
    """Detectors with their weights on a device. `load()` once, then `score()` batches; not thread-safe."""

    def __init__(self, slots: Sequence[Slot], config: Config, disabled: Sequence[str] = ()) -> None:
        super().__init__(slots, config, disabled)
        self._config = config.stack
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        # Frames that go through the networks at once; halved when the device runs out of memory.
        self.batch_size = config.stack.frames_per_batch(on_gpu=False)
        self.seconds: dict[str, float] = {slot.detector.name: 0.0 for slot in slots}

    def load(self) -> None:
        """Verify and read all weights and move them to the device. Raises UsageError, FatalError."""
        self.device = pick_device(self._config.device)
        self.dtype = pick_dtype(self._config.dtype, self.device)
        self.batch_size = self._config.frames_per_batch(on_gpu=self.device.type == "cuda")
        for slot in self.slots:
            paths = [str(resolve(weights)) for weights in slot.weights]
            slot.detector.load(self.device, self.dtype, paths)
            if self._config.compile:
                compile_networks(slot.detector.networks, self.device)

    @property
    def illegal(self) -> tuple[str, ...]:
        """Detectors whose list is of an illegal bank: what matches it is escalated. Known once they are loaded."""
        return tuple(slot.detector.name for slot in self.slots if getattr(slot.detector, "is_illegal", False))

    def score(self, frames: Sequence[Frame]) -> BatchVotes:
        """Votes of every detector on every frame, in order; a batch that does not fit is cut."""
        parts: list[BatchVotes] = []
        start = 0
        while start < len(frames):
            chunk = frames[start : start + self.batch_size]
            try:
                parts.append(self._score_chunk(chunk))
            except torch.cuda.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size = max(1, self.batch_size // 2)
                torch.cuda.empty_cache()
                continue
            start += len(chunk)
        return join_votes(parts) if parts else self._score_chunk([])

    def _score_chunk(self, frames: Sequence[Frame]) -> BatchVotes:
        sizes, readings = [(f.width, f.height) for f in frames], [f.readings for f in frames]
        return self.score_batch(TensorFrames([f.pixels for f in frames], sizes, self.device, readings))

    def score_batch(self, batch: SelectableFrames) -> BatchVotes:
        """Votes on frames that are on the device already, in order, all at once: the caller bounds their number."""
        collected = VoteCollector(len(batch), len(self.labels), self.blob_sizes, self.embedding_dims)
        handed_on = HandedOn(len(batch))
        for slot in self.slots:
            name = slot.detector.name
            asked = self._asked(slot, collected, len(batch))
            scored = None
            if len(asked):
                began = time.perf_counter()
                scored = self._run(slot, batch, asked, handed_on)
                self.seconds[name] += time.perf_counter() - began
            collected.add(name, slot.columns, asked, scored)
        return collected.votes()

    def _asked(self, slot: Slot, collected: VoteCollector, frames: int) -> npt.NDArray[np.intp]:
        """Rows of the batch that a detector runs on."""
        if slot.condition is None:
            return np.arange(frames, dtype=np.intp)
        column = self.labels.index(slot.condition.vote)
        return np.flatnonzero(slot.condition.met(collected.scores()[:, column]))

    def _run(self, slot: Slot, batch: SelectableFrames, asked: npt.NDArray[np.intp], handed_on: HandedOn) -> Scored:
        whole = len(asked) == len(batch)
        frames: FrameBatch = batch if whole else batch.select(asked.tolist())
        with torch.inference_mode(), self._autocast():
            needed = handed_on.to(slot.detector, None if whole else asked.tolist())
            scored = slot.detector.score(frames, needed)
        check_scored(slot.detector, scored, len(asked))
        handed_on.add(slot.detector, scored, asked.tolist(), gated=slot.condition is not None)
        return scored

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.bfloat16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

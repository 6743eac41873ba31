"""The stack: the configured, ordered detectors over a batch of frames; one upload, shared views, gating."""

from __future__ import annotations

import difflib
import hashlib
import operator
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.detectors.base import Detector, FrameBatch, Scored, Weights
from moderation.detectors.nn.prepare import compile_networks
from moderation.detectors.registry import build, weights_of
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError
from moderation.media import DECODE_VERSION
from moderation.types import F32, Frame, Region

_COMPARE: Mapping[str, Callable[[F32, float], npt.NDArray[np.bool_]]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
_CONDITION = re.compile(
    r"^\s*(?P<vote>[\w.\-]+)\s*(?P<compare>>=|<=|>|<)\s*(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`when: open_nsfw.nsfw >= 0.1`: a detector runs on the frames that meet it; null never meets it."""

    vote: str
    compare: str
    number: float

    def met(self, scores: F32) -> npt.NDArray[np.bool_]:
        """bool [B] from the votes' scores, float32 [B]; NaN compares false."""
        return _COMPARE[self.compare](scores, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchVotes:
    """What the stack says of a batch.

    scores: float32 [B,L], NaN = not asked; regions, blobs and embeddings a value a frame.
    ran: frames that each detector scored.
    """

    scores: F32
    regions: tuple[tuple[Region, ...], ...]
    blobs: Mapping[str, tuple[bytes | None, ...]]
    embeddings: Mapping[str, npt.NDArray[np.float16]]
    ran: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One detector in its place: its condition and the columns that it fills."""

    detector: Detector
    condition: Condition | None
    columns: slice
    weights: tuple[Weights, ...]


class Stack:
    """Detectors with their weights on a device. `load()` once, then `score()` batches; not thread-safe."""

    def __init__(self, slots: Sequence[Slot], config: Config, disabled: Sequence[str] = ()) -> None:
        self.slots = tuple(slots)
        self.disabled = tuple(disabled)  # labels of detectors that stack.only leaves out
        self.labels = tuple(f"{s.detector.name}.{label}" for s in slots for label in s.detector.labels)
        self.gated = tuple(
            f"{s.detector.name}.{label}" for s in slots if s.condition is not None for label in s.detector.labels
        )
        self.blob_sizes = {
            f"{s.detector.name}.{name}": size for s in slots for name, size in s.detector.blob_sizes.items()
        }
        keep = config.stack.keep_embeddings
        self.embedding_dims = {
            s.detector.name: s.detector.embedding_dim for s in slots if keep and s.detector.embedding_dim
        }
        self.fingerprint = fingerprint(slots, config)
        self._config = config.stack
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        # Frames that may go through the networks at once; halved when the device runs out of memory.
        self.batch_size = config.stack.batch_size
        self.seconds: dict[str, float] = {s.detector.name: 0.0 for s in slots}

    def load(self) -> None:
        """Check and read all weights and move them to the device. Raises UsageError, FatalError."""
        self.device = pick_device(self._config.device)
        self.dtype = pick_dtype(self._config.dtype, self.device)
        for slot in self.slots:
            paths = [str(resolve(weights)) for weights in slot.weights]
            slot.detector.load(self.device, self.dtype, paths)
            if self._config.compile:
                compile_networks(slot.detector, self.device)

    def score(self, frames: Sequence[Frame]) -> BatchVotes:
        """Votes of every detector on every frame, in order; larger batches than fit are cut."""
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
        return parts[0] if len(parts) == 1 else self._merge(parts)

    def _score_chunk(self, frames: Sequence[Frame]) -> BatchVotes:
        batch = TensorFrames([f.pixels for f in frames], [(f.width, f.height) for f in frames], self.device)
        scores = np.full((len(frames), len(self.labels)), np.nan, dtype=np.float32)
        regions: list[list[Region]] = [[] for _ in frames]
        blobs: dict[str, list[bytes | None]] = {name: [None] * len(frames) for name in self.blob_sizes}
        embeddings = {
            name: np.full((len(frames), dim), np.nan, dtype=np.float16) for name, dim in self.embedding_dims.items()
        }
        earlier: dict[str, Scored] = {}
        some: dict[str, Scored] = {}  # of detectors behind a `when:`, for those who can do with a part
        ran: dict[str, int] = {}
        for slot in self.slots:
            asked = self._asked(slot, scores)
            name = slot.detector.name
            ran[name] = len(asked)
            if not len(asked):
                continue
            began = time.perf_counter()
            found = self._run(slot.detector, batch, asked, earlier, some)
            if slot.condition is not None:
                some[name] = _spread_out(found, asked.tolist(), len(frames), slot.detector.labels)
            values_BL = found.scores.detach().float().cpu().numpy()  # noqa: N806 - shape suffix
            # A detector that answers infinity has not answered, to a condition on its vote neither.
            scores[asked, slot.columns] = np.where(np.isfinite(values_BL), values_BL, np.nan)
            for place, index in enumerate(asked):
                if found.regions is not None:
                    regions[index].extend(found.regions[place])
                for blob, values in found.blobs.items():
                    blobs[f"{name}.{blob}"][index] = values[place]
            if name in embeddings and found.embedding is not None:
                unit = torch.nn.functional.normalize(found.embedding.float(), dim=1)
                embeddings[name][asked] = unit.half().cpu().numpy()
            self.seconds[name] += time.perf_counter() - began
        return BatchVotes(
            scores=scores,
            regions=tuple(tuple(r) for r in regions),
            blobs={name: tuple(values) for name, values in blobs.items()},
            embeddings=embeddings,
            ran=ran,
        )

    def _asked(self, slot: Slot, scores: F32) -> npt.NDArray[np.intp]:
        if slot.condition is None:
            return np.arange(len(scores), dtype=np.intp)
        column = self.labels.index(slot.condition.vote)
        return np.flatnonzero(slot.condition.met(scores[:, column]))

    def _run(
        self,
        detector: Detector,
        batch: TensorFrames,
        asked: npt.NDArray[np.intp],
        earlier: dict[str, Scored],
        some: Mapping[str, Scored],
    ) -> Scored:
        whole = len(asked) == len(batch)
        frames: FrameBatch = batch if whole else batch.select(asked.tolist())
        needed = {name: earlier[name] for name in detector.requires if name in earlier}
        for name in getattr(detector, "optional", ()):
            # What is behind a condition is offered as a part even if this batch was asked as a whole: what a frame
            # scores must not depend on its neighbours.
            if name in some or name in earlier:
                needed[name] = some.get(name) or earlier[name]
        with torch.inference_mode(), self._autocast():
            if not whole:
                needed = {name: _select(scored, asked.tolist()) for name, scored in needed.items()}
            found = detector.score(frames, needed)
        _check(detector, found, len(asked))
        if whole:
            # What only some frames were asked is not offered to others: its rows would not line up.
            earlier[detector.name] = replace(found, labels=tuple(detector.labels))
        return found

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.bfloat16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _merge(self, parts: Sequence[BatchVotes]) -> BatchVotes:
        if not parts:
            return self._score_chunk([])
        return BatchVotes(
            scores=np.concatenate([p.scores for p in parts]),
            regions=tuple(r for p in parts for r in p.regions),
            blobs={name: tuple(b for p in parts for b in p.blobs[name]) for name in self.blob_sizes},
            embeddings={n: np.concatenate([p.embeddings[n] for p in parts]) for n in self.embedding_dims},
            ran={name: sum(p.ran[name] for p in parts) for name in parts[0].ran},
        )


def _select(scored: Scored, rows: list[int]) -> Scored:
    """What a detector said of some of its frames, for one that is asked of these only."""
    return Scored(
        scores=scored.scores[rows],
        embedding=None if scored.embedding is None else scored.embedding[rows],
        regions=None if scored.regions is None else [scored.regions[i] for i in rows],
        blobs={name: [values[i] for i in rows] for name, values in scored.blobs.items()},
        labels=scored.labels,
        points=None if scored.points is None else [scored.points[i] for i in rows],
    )


def _spread_out(scored: Scored, rows: list[int], count: int, labels: Sequence[str]) -> Scored:
    """What a detector said of some frames of a batch, at their places in the whole: NaN and no regions elsewhere."""
    scores = scored.scores.new_full((count, scored.scores.shape[1]), float("nan"))
    scores[rows] = scored.scores
    regions: list[Sequence[Region]] | None = None
    if scored.regions is not None:
        regions = [() for _ in range(count)]
        for place, row in enumerate(rows):
            regions[row] = scored.regions[place]
    return Scored(scores=scores, regions=regions, labels=tuple(labels))


def _check(detector: Detector, found: Scored, rows: int) -> None:
    """Rows in = rows out: numpy would spread one row over a batch. Raises ValueError naming what does not fit."""
    if tuple(found.scores.shape) != (rows, len(detector.labels)):
        raise ValueError(
            f"{detector.name}: scores {list(found.scores.shape)} for {rows} frames and {len(detector.labels)} labels"
        )
    if found.embedding is not None and tuple(found.embedding.shape) != (rows, detector.embedding_dim):
        raise ValueError(f"{detector.name}: an embedding of {list(found.embedding.shape)} for {rows} frames")
    if found.regions is not None and len(found.regions) != rows:
        raise ValueError(f"{detector.name}: regions of {len(found.regions)} frames for {rows}")
    for name, values in found.blobs.items():
        size = detector.blob_sizes.get(name)
        if len(values) != rows or any(v is not None and len(v) != size for v in values):
            raise ValueError(f"{detector.name}: {name!r} is not {rows} values of {size} bytes")


def build_stack(config: Config) -> Stack:
    """The stack of a configuration, not yet loaded.

    Raises UsageError naming the wrong detector, option or condition.
    """
    entries = config.stack.detectors
    if not entries:
        raise UsageError("stack.detectors is empty: name at least one detector")
    names = [d.title for d in entries]
    for name in config.stack.only:
        if name not in names:
            raise UsageError(f"stack.only: {name!r} is not in stack.detectors{_nearest(name, names)}")
    slots: list[Slot] = []
    labels: list[str] = []
    disabled: list[str] = []
    for entry in entries:
        detector = build(entry)
        if names.count(entry.title) > 1:
            raise UsageError(f"stack.detectors: {entry.title!r} stands twice; give one an `alias:`")
        own = [f"{detector.name}.{label}" for label in detector.labels]
        if config.stack.only and entry.title not in config.stack.only:
            disabled.extend(own)
            continue
        for name in detector.requires:
            if name not in {s.detector.name for s in slots if s.condition is None}:
                raise UsageError(f"stack.detectors: {detector.name!r} needs {name!r} before it, without `when:`")
        condition = parse_condition(entry.when, labels) if entry.when else None
        columns = slice(len(labels), len(labels) + len(own))
        labels.extend(own)
        weights = weights_of(detector, entry)
        slots.append(Slot(detector=detector, condition=condition, columns=columns, weights=weights))
    return Stack(slots, config, disabled)


def parse_condition(text: str, labels: Sequence[str]) -> Condition:
    """`open_nsfw.nsfw >= 0.1`. Raises UsageError unless the vote is one of the earlier `labels`."""
    match = _CONDITION.match(text)
    if match is None:
        raise UsageError(f"when: {text!r}: expected `detector.label >= number` (or >, <=, <)")
    if match["vote"] not in labels:
        raise UsageError(f"when: {text!r}: no earlier vote {match['vote']!r}{_nearest(match['vote'], labels)}")
    return Condition(vote=match["vote"], compare=match["compare"], number=float(match["number"]))


def fingerprint(slots: Sequence[Slot], config: Config) -> str:
    """Hash of all that can move a vote: detectors, versions, options, weights, conditions, dtype, decoding."""
    facts = {
        "detectors": [
            {
                "name": s.detector.name,
                "version": s.detector.version,
                "labels": list(s.detector.labels),
                "weights": [w.sha256 or w.locator for w in s.weights],
                "when": None if s.condition is None else [s.condition.vote, s.condition.compare, s.condition.number],
                "options": next((dict(d.options) for d in config.stack.detectors if d.title == s.detector.name), {}),
            }
            for s in slots
        ],
        "dtype": config.stack.dtype,
        "media": config.media.model_dump(exclude={"decode_timeout_s", "max_bytes"}),
        "decoding": DECODE_VERSION,
        # Not a vote, but columns: parts of one table have one schema.
        "keep_embeddings": config.stack.keep_embeddings,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32]


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU that this process may see, else the CPU. Raises UsageError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"stack.device: {name!r} is no device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("stack.device: cuda is not available here; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"stack.device: no {name!r} here; there are {torch.cuda.device_count()} GPUs")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """bf16 only where it is native: emulated on a CPU without AVX512-BF16 it runs at half the speed of fp32."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known) or 'none'}"

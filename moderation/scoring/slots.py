"""The slots of a stack: each a detector with its condition and columns; and the hash of all that can change a vote."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.detectors.base import Detector, Weights
from moderation.media import DECODE_VERSION
from moderation.scoring.conditions import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One detector in its slot, with its condition and the columns that it fills."""

    detector: Detector
    condition: Condition | None
    columns: slice
    weights: tuple[Weights, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its vote columns."""
        return tuple(f"{self.detector.name}.{label}" for label in self.detector.labels)

    @property
    def blob_sizes(self) -> dict[str, int]:
        """Bytes per frame of each value that is not a score, by column name."""
        return {f"{self.detector.name}.{name}": size for name, size in self.detector.blob_sizes.items()}


def fingerprint(slots: Sequence[Slot], config: Config) -> str:
    """Hash of all that can change a vote: detectors, versions, options, weights, conditions, dtype, decoding."""
    inputs = {
        "detectors": [_slot_inputs(slot, config) for slot in slots],
        "dtype": config.stack.dtype,
        "media": config.media.model_dump(exclude={"decode_timeout_s", "max_bytes", "credentials"}),
        "decoding": DECODE_VERSION,
        # It changes no vote but the columns: all parts of one table have one schema.
        "keep_embeddings": config.stack.keep_embeddings,
    }
    return _short_hash(inputs)


def _slot_inputs(slot: Slot, config: Config) -> dict[str, Any]:
    """All of one detector that can change its votes."""
    condition, detector = slot.condition, slot.detector
    return {
        "name": detector.name,
        "version": detector.version,
        "labels": list(detector.labels),
        "weights": [w.sha256 or w.locator for w in slot.weights],
        "when": None if condition is None else [condition.vote, condition.compare, condition.number],
        "options": next((dict(d.options) for d in config.stack.detectors if d.title == detector.name), {}),
    }


def needs_of(slot: Slot, slots: Sequence[Slot]) -> tuple[str, ...]:
    """The earlier detectors of a stack whose results a detector reads; not that of its `when:`."""
    earlier = [other.detector.name for other in slots[: list(slots).index(slot)]]
    return tuple(name for name in (*slot.detector.requires, *slot.detector.optional) if name in earlier)


def describe_detectors(slots: Sequence[Slot], config: Config) -> dict[str, Any]:
    """What each detector's votes are of, for the run record: so that a later run scores only what differs.

    `decoding`: the version of decoding. `detectors`: name -> its `version`, whether its `embedding` is kept, and a
    `hash` of all that can change its votes: itself, those that it reads, and the vote of its condition.
    """
    hashes: dict[str, str] = {}
    for slot in slots:
        gate = [] if slot.condition is None else [slot.condition.vote.partition(".")[0]]
        hashes[slot.detector.name] = _short_hash(
            {
                **_slot_inputs(slot, config),
                "dtype": config.stack.dtype,
                "reads": [hashes[name] for name in (*needs_of(slot, slots), *gate)],
            }
        )
    detectors = {
        slot.detector.name: {
            "version": slot.detector.version,
            "embedding": bool(config.stack.keep_embeddings and slot.detector.embedding_dim),
            "hash": hashes[slot.detector.name],
        }
        for slot in slots
    }
    return {"decoding": DECODE_VERSION, "detectors": detectors}


def _short_hash(inputs: object) -> str:
    return hashlib.sha256(canonical_json(inputs).encode()).hexdigest()[:32]

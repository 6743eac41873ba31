"""The slots of a stack: each a detector with its condition and columns; and the hash of all that can change a vote."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

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
        "media": config.media.model_dump(exclude={"decode_timeout_s", "max_bytes", "credentials"}),
        "decoding": DECODE_VERSION,
        # It changes no vote but the columns: all parts of one table have one schema.
        "keep_embeddings": config.stack.keep_embeddings,
    }
    return hashlib.sha256(canonical_json(inputs).encode()).hexdigest()[:32]

"""All weights of a configuration into a bucket or folder, for a cluster without internet."""

from __future__ import annotations

from pathlib import Path

from moderation.config.model import Config
from moderation.detectors.base import Weights
from moderation.detectors.registry import build
from moderation.detectors.weights.checksum import sha256_of
from moderation.detectors.weights.locator import resolve
from moderation.detectors.weights.mirror import Mirrored, fill_mirror


def weights_in(config: Config) -> tuple[Weights, ...]:
    """Every file that the detectors of a configuration load, each once. Raises UsageError."""
    unique: dict[tuple[str, str], Weights] = {}
    for entry in config.stack.detectors:
        for weights in build(entry).weights:
            unique.setdefault((weights.locator, weights.sha256), weights)
    return tuple(unique.values())


def pull_weights(config: Config, to: str) -> tuple[Mirrored, ...]:
    """Fetch the weights of a configuration, verify them, and copy them to a mirror with an index and checksums.

    A hub's file without a sha256 gets its measured one. Raises UsageError, FatalError.
    """
    files: list[tuple[Weights, Path, str]] = []
    for weights in weights_in(config):
        path = resolve(weights)
        files.append((weights, path, weights.sha256.lower() or sha256_of(path)))
    return fill_mirror(files, to)

"""The sha256 of weight files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from moderation.detectors.base import Weights
from moderation.errors import FatalError

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_file(path: Path, w: Weights) -> Path:
    """Return the path if the file has the sha256 of these weights. Raises FatalError otherwise."""
    check_sha256(sha256_of(path), w, where=f" ({path})")
    return path


def check_sha256(sha256: str, w: Weights, *, where: str = "") -> None:
    """Raises FatalError when this is not the sha256 of these weights. where: the end of the message."""
    if sha256 != w.sha256.lower():
        raise FatalError(f"weights {w.locator}: sha256 is {sha256}, expected {w.sha256.lower()}; not used{where}")

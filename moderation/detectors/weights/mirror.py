"""A mirror of weights for machines without a hub: a folder or bucket with the weights of a configuration.

    MIRROR/weights.json          the index: locator, sha256, size, licence, origin, file
    MIRROR/SHA256SUMS            the same for `sha256sum -c`
    MIRROR/<sha256, 16 digits>/<name of the file>

`MODERATION_WEIGHTS=MIRROR` makes every worker look there first, by checksum: no configuration has to change.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.detectors.base import Weights
from moderation.errors import FatalError, UsageError

VARIABLE = "MODERATION_WEIGHTS"
_INDEX = "weights.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """One file of a mirror."""

    locator: str  # where it came from
    sha256: str
    size_bytes: int
    licence: str
    origin: str
    file: str  # below the mirror


def mirror_uri() -> str | None:
    """The mirror named by this environment, if any."""
    return os.environ.get(VARIABLE) or None


def find_mirrored(w: Weights, mirror: str) -> Mirrored | None:
    """The file of a mirror with the sha256 of these weights, or (where they have none) with their locator.

    Raises FatalError when the mirror cannot be read.
    """
    for entry in read_index(mirror):
        if entry.sha256 == w.sha256.lower() or (not w.sha256 and entry.locator == w.locator):
            return entry
    return None


def read_index(mirror: str) -> tuple[Mirrored, ...]:
    """The entries of a mirror; none where it has no index. Raises FatalError when it is not readable."""
    uri = storage.join(mirror, _INDEX)
    try:
        data = storage.read_optional(uri)
        return () if data is None else tuple(Mirrored(**entry) for entry in parse_json(data)["files"])
    except (PermissionError, storage.StorageError, ValueError, KeyError, TypeError) as error:
        raise FatalError(f"{uri}: not readable as a mirror of weights: {error}") from error


def fill_mirror(files_of_weights: Sequence[tuple[Weights, Path, str]], mirror: str) -> tuple[Mirrored, ...]:
    """Copy weights (with their local file and its sha256) into a mirror, then its index; existing files are kept.

    Memory: the largest of the files. Returns the entries of these weights. Raises FatalError when it is not writable.
    """
    entries: dict[str, Mirrored] = {}
    index = {entry.sha256: entry for entry in read_index(mirror)}
    for w, path, sha256 in files_of_weights:
        name = w.locator.rsplit("/", 1)[-1]
        size = path.stat().st_size
        entry = Mirrored(
            locator=w.locator,
            sha256=sha256,
            size_bytes=size,
            licence=w.licence,
            origin=w.origin,
            file=f"{sha256[:16]}/{name}",
        )
        uri = storage.join(mirror, entry.file)
        try:
            if not _is_there(uri, size):
                storage.publish(uri, path.read_bytes())
        except (PermissionError, FileNotFoundError, storage.StorageError) as error:
            raise FatalError(f"{uri}: not written: {error}") from error
        entries[sha256] = entry
    files = sorted({**index, **entries}.values(), key=lambda e: e.file)
    text = json.dumps({"version": 1, "files": [asdict(f) for f in files]}, indent=1, sort_keys=True)
    sums = "".join(f"{f.sha256}  {f.file}\n" for f in files)
    try:
        storage.publish(storage.join(mirror, "SHA256SUMS"), sums.encode())
        # Written last: readers trust the index only.
        storage.publish(storage.join(mirror, _INDEX), text.encode())
    except (PermissionError, FileNotFoundError, storage.StorageError) as error:
        raise FatalError(f"{mirror}: not written: {error}") from error
    return tuple(entries.values())


def missing(w: Weights, why: str) -> UsageError:
    """The error for unavailable weights: which file, its size, and the three ways to supply it."""
    name = w.locator.rsplit("/", 1)[-1]
    size = f"{w.size_bytes / 1e6:,.0f} MB" if w.size_bytes else "size unknown"
    sha256 = f", sha256 {w.sha256}" if w.sha256 else ""
    return UsageError(
        f"weights {w.locator} ({size}{sha256}) cannot be had: {why}.\n"
        "Three ways to supply them:\n"
        f"  1. on a machine with internet: `moderation weights pull CONFIG --to s3://bucket/weights`; here: set"
        f" {VARIABLE}=s3://bucket/weights (or any folder)\n"
        f"  2. bring {name} yourself and name it in the configuration: `weights: file:///path/{name}` (or s3://...)"
        " and `sha256:`\n"
        "  3. copy the hub's cache: download where there is a hub, copy that folder, set HF_HOME to it"
    )


def _is_there(uri: str, size_bytes: int) -> bool:
    try:
        return storage.info(uri).size_bytes == size_bytes
    except FileNotFoundError:
        return False

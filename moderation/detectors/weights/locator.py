"""Weights by locator: a local file with the right checksum, wherever the weights lie.

Nothing is unpickled, and no code of a package that carries weights is run: `pkg://` finds the file without an import.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from moderation import storage
from moderation.detectors.base import Weights
from moderation.detectors.weights.checksum import check_file, check_sha256
from moderation.detectors.weights.mirror import find_mirrored, mirror_uri, missing
from moderation.errors import FatalError, UsageError

_PIECE_BYTES = 64 << 20  # of a download: each piece is one request with its own retries


def resolve(w: Weights, *, cache: Path | None = None) -> Path:
    """Resolve weights to a local file with a verified sha256.

    `pkg://package/path` and `file://` are read in place; `s3://` and every other fsspec scheme, and
    `hf://org/name[@revision]/file`, are downloaded once into `cache` (default: `default_cache()`) under their sha256.
    A mirror (`$MODERATION_WEIGHTS`, see `mirror`) comes first. Only hf:// may lack a sha256: the hub verifies its own,
    and a revision pins it.

    Raises UsageError when the locator has no file (with the command that installs a missing package, or the ways to
    supply the file), FatalError when the content does not have `w.sha256`, or storage fails.
    """
    scheme, separator, rest = w.locator.partition("://")
    if not separator:
        raise UsageError(f"weights {w.locator!r}: expected pkg://, file://, s3:// or hf://")
    if (w.sha256 or scheme != "hf") and not _is_sha256(w.sha256):
        raise UsageError(f"weights {w.locator}: sha256 must be 64 hexadecimal digits, got {w.sha256!r}")
    if scheme == "pkg":
        package, _, inside = rest.partition("/")
        return check_file(package_file(package, inside), w)
    if scheme == "file":
        path = Path(rest)
        if not path.is_file():
            raise UsageError(f"weights {w.locator}: no such file")
        return check_file(path, w)
    return _fetch(w, cache or default_cache())


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and not set(text.lower()) - set("0123456789abcdef")


def _fetch(w: Weights, folder: Path) -> Path:
    """The file of a remote locator: from the folder, the mirror, the hub or storage, in this order."""
    scheme, _, rest = w.locator.partition("://")
    mirror = mirror_uri()
    mirrored = find_mirrored(w, mirror) if mirror else None
    if mirror and mirrored:
        w = replace(w, locator=storage.join(mirror, mirrored.file), sha256=mirrored.sha256)
    target = folder / f"{w.sha256.lower()}{Path(rest).suffix}"
    if w.sha256 and target.is_file():
        return check_file(target, w)
    if scheme == "hf" and not mirrored:
        path = _from_hub(w, rest)
        return check_file(path, w) if w.sha256 else path
    return _download(w, target)


def default_cache() -> Path:
    """The folder of downloads: $MODERATION_CACHE, else in the user's cache folder."""
    named = os.environ.get("MODERATION_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moderation" / "weights"


def package_file(package: str, inside: str) -> Path:
    """A file of an installed package, found without importing it.

    Raises UsageError, with the command that installs it, when the package or the file is missing.
    """
    # Python package names have _, distributions -; pip takes either, people search for the second.
    install = f"pip install {package.replace('_', '-')}"
    if not package.isidentifier():
        raise UsageError(f"pkg://{package}/{inside}: {package!r} is not the name of a package")
    spec = find_spec(package)
    if spec is None:
        raise UsageError(f"pkg://{package}/{inside}: the package is not installed; {install}")
    for folder in spec.submodule_search_locations or ():
        root = Path(folder).resolve()
        path = (root / inside).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    raise UsageError(f"pkg://{package}/{inside}: this version of the package has no such file; {install}")


def _download(w: Weights, target: Path) -> Path:
    """Download an object under its final name, all or nothing (several workers may do so at once), piece by piece."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as file:
        try:
            size = storage.info(w.locator).size_bytes
            for start in range(0, size, _PIECE_BYTES):
                data = storage.read_bytes(w.locator, offset=start, length=min(_PIECE_BYTES, size - start))
                digest.update(data)
                file.write(data)
            file.flush()
            check_sha256(digest.hexdigest(), w)
            Path(file.name).replace(target)
        except FileNotFoundError as error:
            raise missing(w, "there is no such object") from error
        except PermissionError as error:
            raise missing(w, "access denied") from error
        except storage.StorageError as error:
            raise FatalError(f"weights {w.locator}: {error}") from error
        finally:
            Path(file.name).unlink(missing_ok=True)
    return target


def _from_hub(w: Weights, rest: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ImportError as error:
        raise UsageError(f"weights {w.locator}: pip install huggingface-hub") from error
    steps = rest.split("/", 2)
    if len(steps) != 3 or not all(steps):
        raise UsageError(f"weights {w.locator}: expected hf://org/name[@revision]/file")
    name, _, revision = steps[1].partition("@")
    try:
        return Path(hf_hub_download(f"{steps[0]}/{name}", steps[2], revision=revision or None))
    except LocalEntryNotFoundError as error:
        # The library also raises this when it cannot reach the hub, or was told not to try.
        raise missing(w, "the hub is out of reach and its cache has no copy") from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise missing(w, "the hub has no such repository or file, or it is private") from error
    except (HfHubHTTPError, OSError) as error:
        raise FatalError(f"weights {w.locator}: {error}") from error

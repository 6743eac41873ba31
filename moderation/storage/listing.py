"""Listings that stream, in a stable order: the first object comes before the listing has ended."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fsspec.utils import glob_translate

from moderation.errors import UsageError
from moderation.storage import s3
from moderation.storage.access import (
    ObjectInfo,
    canonical,
    filesystem,
    info,
    local_info,
    object_info,
    scheme_of,
    split_uri,
)
from moderation.storage.clients import is_s3
from moderation.storage.retry import DeniedError, retrying

_GLOB = frozenset("*?[")


def is_glob(uri: str) -> bool:
    """Whether a URI is a pattern. A local file or folder of just this name is none: `photos [2024]`."""
    if not _GLOB & set(uri):
        return False
    scheme, path = split_uri(canonical(uri))
    return not (scheme == "file" and os.path.lexists(path))


def list_objects(uri: str) -> Iterator[ObjectInfo]:
    """Every object below a prefix, or that a glob matches, recursively, in a stable order, as the store pages.

    The first object comes before the listing has ended. A glob is fsspec's: `*` and `?` stay in a folder, `**` spans
    several. Raises FileNotFoundError when nothing is there at all.
    """
    uri = canonical(uri)
    yield from _list_glob(uri) if is_glob(uri) else _list_prefix(uri)


def _list_prefix(uri: str, *, depth: int | None = None) -> Iterator[ObjectInfo]:
    """depth: levels of local folders that are looked into; None: all."""
    scheme, path = split_uri(uri)
    if scheme == "file":
        yield from _list_local(path, depth)
    elif is_s3(scheme):
        yield from _list_s3(uri)
    else:
        yield from _list_fsspec(uri)


def _list_local(root: str, depth: int | None) -> Iterator[ObjectInfo]:
    path = Path(root)
    if path.is_file():
        yield local_info(root)
        return
    if not path.is_dir():
        raise FileNotFoundError(root)
    yield from _walk_local(root, depth)


def _walk_local(folder: str, depth: int | None) -> Iterator[ObjectInfo]:
    # Sorted a folder at a time: a stable order, and the first object comes at once. Links to folders are not
    # followed (they may loop); links to files are read like files.
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda e: e.name)
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            if depth is None or depth > 1:
                yield from _walk_local(entry.path, None if depth is None else depth - 1)
            continue
        try:
            if entry.is_file():
                yield local_info(entry.path)
            elif entry.is_symlink() and not entry.is_dir():
                # A dangling link is a name without content: a row, not silence.
                yield ObjectInfo(uri=entry.path, size_bytes=0, etag=None)
        except FileNotFoundError:
            yield ObjectInfo(uri=entry.path, size_bytes=0, etag=None)


def _list_s3(uri: str) -> Iterator[ObjectInfo]:
    scheme, path = split_uri(uri)
    bucket, prefix = s3.split_key(path)
    denied: DeniedError | None = None
    if prefix and not prefix.endswith("/"):
        # `s3://b/photos` means the object of that name, or what is below `photos/`, never `photos-old/`.
        try:
            yield info(uri)
            return
        except FileNotFoundError:
            pass
        except DeniedError as error:
            # The answer to a HEAD has no body that would say why; that to a listing has.
            denied = error
        prefix += "/"
    empty = True
    for entry in _s3_entries(uri, bucket, prefix):
        empty = False
        yield ObjectInfo(
            uri=f"{scheme}://{bucket}/{entry['Key']}",
            size_bytes=int(entry["Size"]),
            etag=str(entry.get("ETag", "")).strip('"') or None,
        )
    if empty:
        raise denied or FileNotFoundError(uri)


def _s3_entries(uri: str, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Entries of all pages but folders' own."""
    token: str | None = None
    while True:
        page = retrying(partial(s3.list_page, bucket, prefix, token), what=uri)
        yield from (entry for entry in page.get("Contents", []) if not entry["Key"].endswith("/"))
        token = page.get("NextContinuationToken")
        if not page.get("IsTruncated") or token is None:
            return


def _list_fsspec(uri: str) -> Iterator[ObjectInfo]:
    fs = filesystem(uri)
    scheme, path = split_uri(uri)
    details = retrying(lambda: fs.find(path, detail=True), what=uri)
    if not details:
        raise FileNotFoundError(uri)
    for name in sorted(details):
        yield object_info(f"{scheme}://{name.lstrip('/') if scheme == 'memory' else name}", details[name])


def _list_glob(uri: str) -> Iterator[ObjectInfo]:
    # The listing below the last folder without a wildcard, filtered as it comes in.
    top = uri[: uri.index("://") + 3] if "://" in uri else "/"
    root = max(uri[: min(uri.index(c) for c in _GLOB if c in uri)].rpartition("/")[0], top, key=len)
    if root == top and is_s3(scheme_of(uri)):
        raise UsageError(f"{uri}: a wildcard in the name of a bucket")
    matches = re.compile(glob_translate(uri)).match
    below = uri[len(root.rstrip("/")) + 1 :]
    empty = True
    for listed in _list_prefix(root, depth=None if "**" in below else below.count("/") + 1):
        if matches(listed.uri):
            empty = False
            yield listed
    if empty:
        raise FileNotFoundError(uri)

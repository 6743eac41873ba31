"""Listings that stream, in a stable order: the first object comes before the listing has ended."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from fsspec.utils import glob_translate

from moderation.errors import UsageError
from moderation.storage import s3, web
from moderation.storage.access import ObjectInfo, filesystem, info, object_info
from moderation.storage.clients import is_s3
from moderation.storage.local_listing import list_local
from moderation.storage.retry import DeniedError, retrying
from moderation.storage.uris import canonical, scheme_of, split_uri

_GLOB = frozenset("*?[")


def is_glob(uri: str) -> bool:
    """Whether a URI is a pattern; not where a local file or folder has exactly this name: `photos [2024]`."""
    if not _GLOB & set(uri):
        return False
    scheme, path = split_uri(canonical(uri))
    if web.is_web(scheme):
        return False  # a `?` begins the query
    return not (scheme == "file" and os.path.lexists(path))


def list_objects(uri: str) -> Iterator[ObjectInfo]:
    """Every object below a prefix, or that a glob matches, recursively, in a stable order, page by page.

    What can't be listed or read (a folder without permission, a loop of links, a pipe) comes with its `error`.

    The first object comes before the listing has ended. A glob is fsspec's: `*` and `?` stay in a folder, `**` spans
    several. Raises FileNotFoundError when nothing is there at all.
    """
    uri = canonical(uri)
    yield from _list_glob(uri) if is_glob(uri) else _list_prefix(uri)


def _list_prefix(uri: str, *, depth: int | None = None) -> Iterator[ObjectInfo]:
    """depth: levels of local folders that are looked into; None: all."""
    scheme, path = split_uri(uri)
    if scheme == "file":
        yield from list_local(path, depth)
    elif is_s3(scheme):
        yield from _list_s3(uri)
    elif web.is_web(scheme):
        yield info(uri)  # a server lists nothing
    else:
        yield from _list_fsspec(uri)


def _list_s3(uri: str) -> Iterator[ObjectInfo]:
    """`s3://b/photos` means the object of that name and what is below `photos/`, never `photos-old/`."""
    scheme, path = split_uri(uri)
    bucket, prefix = s3.split_key(path)
    denied: DeniedError | None = None
    empty = True
    if prefix and not prefix.endswith("/"):
        try:
            own = info(uri)
        except FileNotFoundError:
            pass
        except DeniedError as error:
            # The answer to a HEAD has no body that says why; the answer to a listing has one.
            denied = error
        else:
            empty = False
            yield own
        prefix += "/"
    for entry in _s3_entries(uri, bucket, prefix, may_be_denied=not empty):
        empty = False
        yield ObjectInfo(
            uri=f"{scheme}://{bucket}/{entry['Key']}",
            size_bytes=int(entry["Size"]),
            etag=str(entry.get("ETag", "")).strip('"') or None,
        )
    if empty:
        raise denied or FileNotFoundError(uri)


def _s3_entries(uri: str, bucket: str, prefix: str, *, may_be_denied: bool) -> Iterator[dict[str, Any]]:
    """Entries of all pages, without folder markers: a key that ends in `/` is one if its object is empty.

    may_be_denied: a refused listing is no error, because the caller named one object and may read it.
    """
    token: str | None = None
    while True:
        try:
            page = retrying(partial(s3.list_page, bucket, prefix, token), what=uri)
        except DeniedError:
            if may_be_denied:
                return
            raise
        yield from (e for e in page.get("Contents", []) if not e["Key"].endswith("/") or int(e["Size"]))
        token = page.get("NextContinuationToken")
        if not page.get("IsTruncated") or token is None:
            return


def _list_fsspec(uri: str) -> Iterator[ObjectInfo]:
    fs = filesystem(uri)
    scheme, path = split_uri(uri)
    details = dict(retrying(lambda: fs.find(path, detail=True), what=uri))
    # `find` leaves out an object that has the folder's own name.
    if not path.endswith("/"):
        with contextlib.suppress(FileNotFoundError):
            own = retrying(lambda: fs.info(path), what=uri)
            if own["type"] == "file":
                details.setdefault(own["name"], own)
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

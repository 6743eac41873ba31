"""Addresses of objects that a page may link to: never one that a browser could run."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

# What a browser opens as a picture or a video. A page or an SVG of a stranger, opened from disk, could run scripts.
_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".avif", ".heic", ".tif", ".tiff", ".mp4", ".m4v", ".mov",
    ".webm", ".mkv", ".avi", ".mpg", ".mpeg",
)  # fmt: skip
_MAX_CHARS: Final = 2_000
_PACKED: Final = re.compile(r"\.(tar|parquet|arrow)#", re.IGNORECASE)


def object_link(uri: str, object_url: str | None = None) -> str | None:
    """The address of an object's file or page; None where there is none that is safe.

    Local files by their suffix; http(s) as it is; of a bucket by `object_url`, a template with {bucket} and {key}. A
    part of a tar or a table has none.
    """
    if len(uri) > _MAX_CHARS or not uri.isprintable() or _PACKED.search(uri):
        return None
    if "://" not in uri:
        return _local_link(uri)
    parts = urlsplit_or_none(uri)
    if parts is None:
        return None
    scheme, host, path = parts
    if scheme == "file":
        return _local_link(path)
    if not host:
        return None
    if scheme in ("http", "https"):
        return uri
    if object_url is None:
        return None
    return object_url.replace("{bucket}", quote(host, safe="")).replace("{key}", quote(path.lstrip("/"), safe="/"))


def _local_link(path: str) -> str | None:
    return f"file://{quote(path)}" if path.startswith("/") and path.lower().endswith(_SUFFIXES) else None


def urlsplit_or_none(uri: str) -> tuple[str, str, str] | None:
    """Scheme, host and path of a URI; None where it is none. An object's key may hold `?` and `#`."""
    try:
        scheme, _, rest = uri.partition("://")
        host, slash, path = rest.partition("/")
        if scheme.lower() in ("http", "https") and (urlsplit(uri).username or urlsplit(uri).password):
            return None  # a password is not to stand in a page
    except ValueError:
        return None
    return scheme.lower(), host, slash + path

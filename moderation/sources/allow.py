"""Which objects a manifest may name: its rows come from strangers, but the job reads with its own rights.

A URI is first made absolute and spelled one way, then compared with the allowed prefixes. Local paths are compared
after links are resolved. Redirects of a web server are not followed (storage/web.py). What a name resolves to is not
looked at: allow only servers that you trust.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from moderation import storage
from moderation.errors import ItemError
from moderation.types import ErrorCode

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# An http server decodes these before it looks for the file: `%2e%2e` would climb out of an allowed prefix.
_ENCODED = re.compile(r"%(2e|2f|5c|25)|\\", re.IGNORECASE)
_LOCAL = frozenset({"file", "local"})


def resolver(manifest: str, allow: Sequence[str]) -> Callable[[str], str]:
    """A function from a URI as written in `manifest` to the canonical URI that may be read.

    Relative URIs are relative to the manifest. Allowed are the prefixes of `allow`; if empty, the manifest's own
    bucket, or its own folder on a file system without buckets. The function raises ItemError(FORBIDDEN).
    """
    manifest = _spell(storage.canonical(manifest))
    base = manifest.rsplit("/", 1)[0]
    prefixes = tuple(_prefix(entry) for entry in allow) if allow else (_own_prefix(manifest, base),)
    prefixes_shown = ", ".join(prefixes)
    # A manifest names many files of few folders; links are looked up once per folder.
    real_folder = lru_cache(maxsize=4096)(os.path.realpath)

    def resolve(written: str) -> str:
        if _CONTROL.search(written):
            raise ItemError(ErrorCode.FORBIDDEN, "the URI holds a control character or is not valid UTF-8")
        uri = _absolute(written, base)
        checked = uri
        if uri.startswith("/"):
            if "/." in uri or "//" in uri:
                uri = os.path.abspath(uri)  # noqa: PTH100 - pure; Path.resolve() would follow links
            folder, _, name = uri.rpartition("/")
            checked = f"{real_folder(folder or '/').rstrip('/')}/{name}"
            if os.path.islink(checked):  # noqa: PTH114 - one Path per row costs more than all the rest
                checked = os.path.realpath(checked)
        if not checked.startswith(prefixes):
            raise ItemError(ErrorCode.FORBIDDEN, f"outside of what source.allow permits: {prefixes_shown}")
        return uri

    return resolve


def _absolute(written: str, base: str) -> str:
    """The URI with its scheme in one spelling. Raises ItemError for a URI that could be read in two ways."""
    uri = _spell(written) if "://" in written or written.startswith("/") else f"{base}/{written}"
    scheme = "file" if uri.startswith("/") else _scheme(uri)
    if scheme in _LOCAL:
        if not uri.startswith("/"):
            raise ItemError(ErrorCode.FORBIDDEN, "a file URI with a host or a relative path")
        return uri
    _refuse_ambiguous(uri, scheme)
    return uri


def _refuse_ambiguous(uri: str, scheme: str) -> None:
    """Raises ItemError for the URI of an object that could be read in two ways."""
    if storage.without_password(uri) != uri:
        raise ItemError(ErrorCode.FORBIDDEN, "a URI with credentials: the environment holds them, never a manifest")
    if {".", ".."} & set(uri.split("/")):
        raise ItemError(ErrorCode.FORBIDDEN, "`.` or `..` in the path of an object")
    if scheme.startswith("http") and (_ENCODED.search(uri) or "@" in uri.split("/")[2]):
        raise ItemError(ErrorCode.FORBIDDEN, "encoded dots or slashes, or a user name, in a web address")


def _spell(uri: str) -> str:
    """One spelling: local paths bare, schemes in lower case, s3a as s3, memory without extra slashes."""
    if "://" not in uri:
        return uri
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    if scheme in _LOCAL:
        return _decode(uri)
    if scheme == "memory":
        rest = rest.lstrip("/")
    return f"{'s3' if scheme == 's3a' else scheme}://{rest}"


def _decode(uri: str) -> str:
    """The path of a file URI, decoded before any comparison: whoever opens it takes `%2e%2e` as a step up."""
    try:
        path = storage.local_path(uri)
    except UnicodeDecodeError as error:
        raise ItemError(ErrorCode.NOT_FOUND, "a file URI whose name is not valid UTF-8") from error
    if "\0" in path:
        raise ItemError(ErrorCode.FORBIDDEN, "a file URI that holds a zero byte")
    return path


def _scheme(uri: str) -> str:
    return uri.partition("://")[0] if "://" in uri else "file"


def _prefix(entry: str) -> str:
    """An allowed prefix, ending in `/` so that `photos` does not allow `photos-private`."""
    spelled = _spell(storage.canonical(entry))
    if _scheme(spelled) in _LOCAL:
        return os.path.join(os.path.realpath(spelled), "")  # noqa: PTH118 - adds the slash, once also for "/"
    return spelled if spelled.endswith("/") else f"{spelled}/"


def _own_prefix(manifest: str, base: str) -> str:
    scheme = _scheme(manifest)
    if scheme in _LOCAL or scheme == "memory":
        return _prefix(base or "/")
    return "/".join(manifest.split("/")[:3]) + "/"

"""Spelling of URIs: one per object, without credentials; a local path has no scheme."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

import fsspec

from moderation.errors import UsageError

_NO_BUCKET = re.compile(r"(?:s3a?|gs|gcs|az|abfs):/*", re.IGNORECASE)
_ONE_SLASH = re.compile(r"(s3a?|gs|gcs|az|abfs|https?|memory):/(?!/)", re.IGNORECASE)
# `user:password@host`: an abfs container before an `@` has no colon.
_PASSWORD = re.compile(r"[^/@]*:[^/@]*@|s3a?://[^/]*@", re.IGNORECASE)


def canonical(uri: str) -> str:
    """One spelling per object: local files as absolute paths without `file://` and `..`; other schemes kept.

    `file://` is a URI: its percent signs are decoded, and its host may be `localhost`. A bare path is taken as it is.
    Raises UsageError for a URI that names nothing or holds a password, and for a scheme that fsspec does not know.
    """
    _refuse_nameless(uri)
    scheme, path = split_uri(uri)
    if scheme in ("file", "local"):
        try:
            return os.path.abspath(local_path(uri))  # noqa: PTH100 - Path.resolve() would follow links; abspath is pure
        except UnicodeDecodeError as error:
            raise UsageError(f"{uri}: a file URI whose name is not valid UTF-8") from error
    if _PASSWORD.match(path.partition("/")[0]) or _PASSWORD.match(uri):
        # Refused because URIs go into tables and logs; so the message does not repeat it.
        raise UsageError(f"a {scheme}:// URI with credentials: take them out, the environment holds them")
    if scheme not in fsspec.available_protocols():
        raise UsageError(f"{uri}: unknown scheme {scheme!r}; known: a local path, s3://, gs://, az://, memory://")
    if scheme == "memory":
        return "memory://" + path.lstrip("/")
    return uri


def _refuse_nameless(uri: str) -> None:
    """Raises UsageError for what names nothing, or would name something else than is meant."""
    if not uri.strip():
        # The path "" would be the current folder: often an unset variable of a shell.
        raise UsageError("an empty path or address; name a folder, a file, or s3://...")
    if "\0" in uri:
        raise UsageError("a path or address that holds a zero byte")
    one_slash = _ONE_SLASH.match(uri)
    if one_slash is not None:
        # As a path it would be a folder `s3:` right here.
        raise UsageError(f"{uri}: did you mean {one_slash[1]}://{uri[one_slash.end() :]}?")


def refuse_no_bucket(uri: str) -> None:
    """Raises UsageError for `s3://` alone, which only a prefix of addresses may be."""
    if _NO_BUCKET.fullmatch(uri):
        raise UsageError(f"{uri}: names no bucket")


def local_path(uri: str) -> str:
    """The path that a local URI names; of `file://`, decoded. Raises UnicodeDecodeError where that is not UTF-8."""
    scheme, separator, path = uri.partition("://")
    if not separator:
        return uri
    if scheme.lower() != "file":
        return path
    if path[:10].lower() == "localhost/":
        path = path[9:]
    return unquote(path, errors="strict")


def without_password(uri: str) -> str:
    """A URI fit for a table or a log: `s3://key:secret@bucket/x` becomes `s3://***@bucket/x`."""
    scheme, path = split_uri(uri)
    authority, slash, rest = path.partition("/")
    if "://" not in uri or not (_PASSWORD.match(authority) or _PASSWORD.match(uri)):
        return uri
    return f"{scheme}://***@{authority.rpartition('@')[2]}{slash}{rest}"


def scheme_of(uri: str) -> str:
    """`file`, `s3`, `memory`, ..."""
    return split_uri(uri)[0]


def join(base: str, *names: str) -> str:
    """A URI below another."""
    return "/".join([base.rstrip("/"), *names])


def split_uri(uri: str) -> tuple[str, str]:
    if "://" not in uri:
        return "file", uri
    scheme, _, rest = uri.partition("://")
    if scheme in ("file", "local"):
        return "file", rest
    return scheme.lower(), rest

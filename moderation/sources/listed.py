"""What a source lists: its entries, with links that lead out of it marked, and the container files among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.sources.items import error_item, make_id, one_sentence
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item

_WILDCARDS = "*?["


def list_entries(source: str, config: SourceConfig) -> Iterator[ObjectInfo]:
    """Every object of a prefix or a glob. A link to a file elsewhere is FORBIDDEN, unless `source.allow` permits it.

    Who may put a link into a folder need not be allowed to read all that the job may. Raises what
    `storage.list_objects` raises.
    """
    if storage.scheme_of(source) != "file":
        yield from storage.list_objects(source)
        return
    tops = (_top_of(storage.canonical(source)), *(_real_folder(entry) for entry in config.allow))
    for info in storage.list_objects(source):
        if info.is_link and info.error is None and not os.path.realpath(info.uri).startswith(tops):
            detail = "a link to a file outside of the source and of source.allow"
            info = replace(info, error=ErrorCode.FORBIDDEN, detail=detail)
        yield info


def _top_of(path: str) -> str:
    """The folder of a source: itself, or for a pattern the part before the first wildcard."""
    if storage.is_glob(path):
        path = path[: min(path.index(c) for c in _WILDCARDS if c in path)].rpartition("/")[0] or "/"
    return _real_folder(path)


def _real_folder(uri: str) -> str:
    # An entry of another scheme (s3://...) becomes a path that no link leads to.
    return os.path.join(os.path.realpath(storage.local_path(uri)), "")  # noqa: PTH118 - adds the slash, once also for "/"


def list_files(source: str, suffixes: tuple[str, ...], config: SourceConfig) -> Iterator[tuple[ObjectInfo, bool]]:
    """The container files (manifests, tars, tables) that a source names, each with whether it is the first.

    A file and a glob are taken as named; below a prefix only names that end in one of `suffixes` count, and entries
    that could not be listed. Entries with an `error` are never the first.
    """
    named = storage.is_glob(source)
    first = True
    for info in list_entries(source, config):
        is_source = first and _is_same_uri(info.uri, source)
        if named or is_source or _is_container(info, suffixes):
            yield info, first and info.error is None
            first = first and info.error is not None


def _is_container(info: ObjectInfo, suffixes: tuple[str, ...]) -> bool:
    name = info.uri.rpartition("/")[2].lower()
    if not name:
        return info.error is not None
    # `._x.tar` is macOS' data about x.tar.
    return name.endswith(suffixes) and not name.startswith("._")


def _is_same_uri(uri: str, source: str) -> bool:
    return uri.rstrip("/") == storage.canonical(source).rstrip("/")


def entry_error(info: ObjectInfo) -> Item:
    """The row of an entry that can't be read."""
    return error_item(make_id(info.uri), info.uri, info.error or ErrorCode.FETCH_FAILED, info.detail)


def gone_item(uri: str, error: Exception) -> Item:
    """The row of a container that was listed, and is no longer there, may not be read, or is another one now.

    Raises the error where it is about the run's credentials.
    """
    if isinstance(error, storage.CredentialsError):
        raise error
    code = ErrorCode.CHANGED if isinstance(error, storage.ChangedError) else ErrorCode.NOT_FOUND
    if isinstance(error, PermissionError):
        code = ErrorCode.FORBIDDEN
    return error_item(make_id(uri), uri, code, one_sentence(error))

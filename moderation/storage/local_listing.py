"""Local folders: regular files in a stable order; what can't be listed or read affects its own entry only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from moderation.errors import UsageError
from moderation.storage.access import ObjectInfo, described
from moderation.storage.local_files import what_it_is
from moderation.types import ErrorCode

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def list_local(root: str, depth: int | None) -> Iterator[ObjectInfo]:
    """The file of this name, or all files below the folder.

    depth: levels of folders that are looked into; None: all. Raises the system's error about the root itself:
    FileNotFoundError, PermissionError, OSError; UsageError where it is neither a file nor a folder.
    """
    try:
        mode = Path(root).stat().st_mode
    except NotADirectoryError as error:
        # A name below a file: nothing is there, as in a store.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), root) from error
    if stat.S_ISREG(mode):
        yield described(root, Path(root).stat())
    elif stat.S_ISDIR(mode):
        yield from _walk(root, depth)
    else:
        raise UsageError(f"{root}: {what_it_is(mode)}; only regular files and folders are read")


def _walk(root: str, depth: int | None) -> Iterator[ObjectInfo]:
    # Sorted a folder at a time: a stable order, and the first object comes at once. A stack instead of recursion:
    # folders may be nested deeper than Python's calls.
    top = os.path.join(os.path.realpath(root), "")  # noqa: PTH118 - adds the slash, once also for "/"
    open_folders = [_entries(root)]
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
        elif not _is_folder(entry):
            yield from _describe(entry, top)
        elif depth is None or len(open_folders) < depth:
            try:
                open_folders.append(_entries(entry.path))
            except OSError as error:
                yield _unusable(entry.path + "/", error)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return iter(sorted(entries, key=lambda e: e.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # a file system that lists names without types, and fails on `stat`
        return False


def _describe(entry: os.DirEntry[str], top: str) -> Iterator[ObjectInfo]:
    """One entry; links to files are read like files, links to folders are not followed (they may loop).

    A folder below `top` is listed under its own name; a link to one elsewhere is an entry with `error`.
    """
    try:
        status, is_link = entry.stat(), entry.is_symlink()
    except OSError as error:
        yield _unusable(entry.path, error)
        return
    if stat.S_ISREG(status.st_mode):
        yield described(entry.path, status, is_link=is_link)
    elif not stat.S_ISDIR(status.st_mode):
        detail = f"{what_it_is(status.st_mode)}; only regular files are read"
        yield _faulty(entry.path, ErrorCode.UNSUPPORTED_TYPE, detail, is_link=is_link)
    elif not os.path.join(os.path.realpath(entry.path), "").startswith(top):  # noqa: PTH118 - adds the slash
        yield _faulty(entry.path, ErrorCode.FORBIDDEN, "a link to a folder outside of the source", is_link=True)


def _unusable(path: str, error: OSError) -> ObjectInfo:
    """An entry that could not be opened: a link that dangles or loops, an unreadable folder, too long a path."""
    code = ErrorCode.FETCH_FAILED
    if error.errno in _GONE:
        code = ErrorCode.NOT_FOUND
    elif isinstance(error, PermissionError):
        code = ErrorCode.FORBIDDEN
    return _faulty(path, code, error.strerror or type(error).__name__, is_link=False)


def _faulty(path: str, code: ErrorCode, detail: str, *, is_link: bool) -> ObjectInfo:
    return ObjectInfo(uri=path, size_bytes=0, etag=None, is_link=is_link, error=code, detail=detail)

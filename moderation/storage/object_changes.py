"""Changes of single objects: tags, copies within a store, removal."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from moderation.errors import UsageError
from moderation.storage import clients, s3, web
from moderation.storage.access import filesystem, info
from moderation.storage.local_files import writing_local
from moderation.storage.retry import ChangedError, StorageError, retrying
from moderation.storage.uris import canonical, split_uri

# CopyObject of S3 refuses more: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
MAX_COPY_BYTES: Final = 5 << 30


def has_tags(uri: str) -> bool:
    """Whether the store of a URI knows tags of objects: S3 does."""
    return clients.is_s3(split_uri(uri)[0])


def read_tags(uri: str) -> dict[str, str]:
    """The tags of an object. Raises UsageError where the store has none, FileNotFoundError, PermissionError."""
    path = _tagged_path(uri)
    return retrying(lambda: s3.get_tags(path), what=uri)


def write_tags(uri: str, tags: Mapping[str, str]) -> None:
    """Replace all tags of an object. Raises as `read_tags`."""
    path = _tagged_path(uri)
    retrying(lambda: s3.put_tags(path, tags), what=uri)


def copy_object(uri: str, to: str, *, etag: str | None = None) -> str | None:
    """Copy an object to another place of the same store; readers see all of the copy or nothing. Returns its etag.

    etag: the version that is asked for. Raises ChangedError where the object is another one, UsageError where the two
    are in different stores, StorageError for more than 5 GiB in S3, FileNotFoundError, PermissionError.
    """
    uri, to = canonical(uri), canonical(to)
    scheme, path = split_uri(uri)
    other, to_path = split_uri(to)
    if scheme != other and not (clients.is_s3(scheme) and clients.is_s3(other)):
        raise UsageError(f"{to}: is in another store than the object; a copy stays in its store ({scheme}://)")
    _refuse_web(uri)
    _refuse_other_version(uri, etag)
    if scheme == "file":
        _copy_local(Path(path), Path(to_path))
        # A file that changed meanwhile was not the one that is meant.
        _refuse_other_version(uri, etag)
    elif clients.is_s3(scheme):
        retrying(lambda: s3.copy(path, to_path, etag), what=uri)
    else:
        retrying(lambda: filesystem(uri).cp_file(path, to_path), what=uri)
    return info(to).etag


def delete_object(uri: str) -> None:
    """Remove one object; nothing there is no error. Raises PermissionError, StorageError."""
    uri = canonical(uri)
    scheme, path = split_uri(uri)
    _refuse_web(uri)
    with contextlib.suppress(FileNotFoundError):
        if scheme == "file":
            Path(path).unlink()
        elif clients.is_s3(scheme):
            retrying(lambda: s3.delete(path), what=uri)
        else:
            retrying(lambda: filesystem(uri).rm_file(path), what=uri)


def _tagged_path(uri: str) -> str:
    if not has_tags(uri):
        raise UsageError(f"{uri}: only objects in S3 have tags")
    return split_uri(canonical(uri))[1]


def _refuse_web(uri: str) -> None:
    if web.is_web(split_uri(uri)[0]):
        raise UsageError(f"{uri}: a web address is only read; nothing there is copied or removed")


def _refuse_other_version(uri: str, etag: str | None) -> None:
    current = info(uri)
    if etag is not None and current.etag != etag:
        raise ChangedError(f"{uri}: judged as version {etag}, is {current.etag} now")
    if current.size_bytes > MAX_COPY_BYTES and clients.is_s3(split_uri(uri)[0]):
        raise StorageError(f"{uri}: {current.size_bytes:,} bytes; a copy in S3 has at most {MAX_COPY_BYTES:,}")


def _copy_local(path: Path, to: Path) -> None:
    with path.open("rb") as source, writing_local(to) as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    shutil.copystat(path, to)

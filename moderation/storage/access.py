"""Objects by URI through fsspec: open, read, publish, delete."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from moderation.errors import FatalError
from moderation.storage import clients, s3, web
from moderation.storage.local_files import local_etag, open_local, publish_local, read_local
from moderation.storage.remote_file import RemoteFile
from moderation.storage.remote_write import put_remote
from moderation.storage.retry import BucketError, is_out_of_range, retrying
from moderation.storage.uris import canonical, scheme_of, split_uri
from moderation.types import ErrorCode, TypedBytes

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object of a listing. etag: the store's own, or size and mtime of a local file; None where unknown.

    error: why there is nothing to read (a folder that may not be listed, a pipe); the listing continues.
    """

    uri: str
    size_bytes: int
    etag: str | None
    is_link: bool = False
    error: ErrorCode | None = None
    detail: str = ""


def filesystem(uri: str) -> Any:  # noqa: ANN401 - fsspec is untyped
    """The fsspec filesystem of a URI, shared by the threads of this process; see `clients`."""
    return clients.filesystem(scheme_of(uri))


def info(uri: str) -> ObjectInfo:
    """Size and version of one object.

    Raises FileNotFoundError (a folder counts as absent), PermissionError, StorageError.
    """
    uri = canonical(uri)
    scheme, path = split_uri(uri)
    if scheme == "file":
        if Path(path).is_file():
            return local_info(path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if clients.is_s3(scheme):
        return object_info(uri, retrying(lambda: s3.head(path), what=uri))
    if web.is_web(scheme):
        return object_info(uri, retrying(lambda: web.head(uri), what=uri))
    details = retrying(lambda: filesystem(uri).info(path), what=uri)
    if details["type"] != "file":
        raise FileNotFoundError(uri)
    return object_info(uri, details)


def is_folder(uri: str) -> bool:
    """Whether something lies below this URI (a directory, or a prefix with at least one object)."""
    uri = canonical(uri)
    if web.is_web(scheme_of(uri)):
        return False
    try:
        return bool(retrying(lambda: filesystem(uri).isdir(split_uri(uri)[1]), what=uri))
    except FileNotFoundError:
        return False


def read_bytes(uri: str, *, offset: int | None = None, length: int | None = None, etag: str | None = None) -> bytes:
    """An object, or `length` bytes of it from `offset`. etag: the expected version, as a listing has it.

    A body shorter than the object is an error and is read again.
    Raises FileNotFoundError, PermissionError, StorageError; ChangedError where the object is another version.
    """
    uri = canonical(uri)
    scheme, path = split_uri(uri)
    if length == 0:
        # As a Range header this would be malformed, and a server may answer with the whole object.
        return b""
    if scheme == "file":
        return retrying(lambda: read_local(path, offset or 0, length, etag), what=uri)
    start = offset or 0
    if web.is_web(scheme):
        return retrying(lambda: web.get(uri, start, length, etag), what=uri).data
    if clients.is_s3(scheme):
        get = partial(s3.get_range, path, start, length, etag)
    else:
        get = partial(_cat_range, uri, path, start, length, etag)
    return retrying(partial(_or_nothing, get, b"", uri, etag), what=uri)


def read_typed(uri: str, length: int, *, etag: str | None = None) -> bytes:
    """As `read_bytes` from the start; TypedBytes where the store says that they are a picture or a video."""
    uri = canonical(uri)
    scheme, path = split_uri(uri)
    if web.is_web(scheme) and length:
        answer = retrying(lambda: web.get(uri, 0, length, etag), what=uri)
        data, content_type = answer.data, answer.content_type
    elif clients.is_s3(scheme) and length:
        nothing: tuple[bytes, str | None] = (b"", None)
        get = partial(s3.get_typed, path, 0, length, etag)
        data, content_type = retrying(partial(_or_nothing, get, nothing, uri, etag), what=uri)
    else:
        return read_bytes(uri, offset=0, length=length, etag=etag)
    if content_type is None or not content_type.lower().startswith(("image/", "video/")):
        return data
    typed = TypedBytes(data)
    typed.content_type = content_type
    return typed


def _or_nothing(get: Callable[[], _T], nothing: _T, uri: str, etag: str | None) -> _T:
    """The result of a request, or `nothing` for an empty object, of which a store refuses every range."""
    try:
        return get()
    except Exception as error:
        # Botocore's errors have no narrower base.
        if is_out_of_range(error):
            s3.check_version(split_uri(uri)[1], etag, None if etag is None else info(uri).etag)
            return nothing
        raise


def _cat_range(uri: str, path: str, start: int, length: int | None, etag: str | None) -> bytes:
    fs = filesystem(uri)
    data = _cat(fs, path, start, length)
    if etag is not None:
        # Checked after reading, and not from a cache: a version that matches now matched while the bytes came.
        fs.invalidate_cache(path)
        s3.check_version(path, etag, object_info(uri, fs.info(path)).etag)
    return data


def _cat(
    fs: Any,  # noqa: ANN401 - fsspec is untyped
    path: str,
    start: int,
    length: int | None,
) -> bytes:
    if not start and length is None:
        return bytes(fs.cat_file(path))
    data = bytes(fs.cat_file(path, start=start, end=None if length is None else start + length))
    if length is not None and len(data) < length and start + len(data) < int(fs.info(path)["size"]):
        raise ConnectionResetError(f"{path}: body cut short")
    return data


def open_input(uri: str, *, etag: str | None = None) -> IO[bytes]:
    """A seekable binary file, for readers that jump (Parquet footers). The caller closes it.

    etag: the expected version; each read then checks it. Its reads are retried like any other.
    Raises, also while reading: FileNotFoundError, PermissionError, StorageError, ChangedError.
    """
    uri = canonical(uri)
    scheme, path = split_uri(uri)
    if scheme == "file" and etag is None:
        return retrying(lambda: open_local(path), what=uri)
    size = info(uri).size_bytes
    read_range = partial(_read_range, uri, etag)
    return cast(IO[bytes], RemoteFile(read_range, size))


def _read_range(uri: str, etag: str | None, start: int, length: int) -> bytes:
    return read_bytes(uri, offset=start, length=length, etag=etag)


def publish(uri: str, data: bytes) -> None:
    """Write an object whole: readers see all of it or nothing. An object store does that by itself; locally by rename.

    Raises FatalError where it cannot be written, StorageError where storage kept failing.
    """
    uri = canonical(uri)
    scheme, path = split_uri(uri)
    if web.is_web(scheme):
        raise FatalError(f"cannot write {uri}: a web address is only read; write to a path or to s3://")

    def write() -> None:
        if scheme == "file":
            publish_local(Path(path), data)
        else:
            put_remote(filesystem(uri), path, data)

    try:
        retrying(write, what=uri)
    except (OSError, BucketError) as error:
        # Not allowed, no such bucket, a file in the way, a full or read-only disk: every later shard would fail, too.
        raise FatalError(f"cannot write {uri}: {error}") from error


def read_optional(uri: str) -> bytes | None:
    """An object, or None where there is none."""
    try:
        return read_bytes(uri)
    except FileNotFoundError:
        return None


def delete_tree(uri: str) -> None:
    """Remove everything below a URI; nothing there is no error."""
    uri = canonical(uri)
    with contextlib.suppress(FileNotFoundError):
        retrying(lambda: filesystem(uri).rm(split_uri(uri)[1], recursive=True), what=uri)


def delete_empty_folder(uri: str) -> None:
    """Remove a local folder with nothing in it; anything else is left as it is. A store has no folders."""
    scheme, path = split_uri(canonical(uri))
    if scheme == "file":
        with contextlib.suppress(OSError):
            Path(path).rmdir()


def local_info(path: str) -> ObjectInfo:
    """A local file as a listing shows it. Raises FileNotFoundError."""
    return described(path, Path(path).stat())


def described(path: str, status: os.stat_result, *, is_link: bool = False) -> ObjectInfo:
    """A regular file from its `stat`."""
    return ObjectInfo(uri=path, size_bytes=status.st_size, etag=local_etag(status), is_link=is_link)


def object_info(uri: str, details: dict[str, Any]) -> ObjectInfo:
    size = int(details.get("size") or 0)
    etag = details.get("ETag") or details.get("etag") or details.get("md5")
    if etag is None:
        stamp = details.get("mtime") or details.get("LastModified") or details.get("created")
        if isinstance(stamp, datetime):
            stamp = stamp.timestamp()  # fsspec's memory store: a number in a listing, a datetime for one object
        etag = f"{size}-{stamp}" if stamp is not None else None
    return ObjectInfo(uri=uri, size_bytes=size, etag=str(etag).strip('"') if etag is not None else None)

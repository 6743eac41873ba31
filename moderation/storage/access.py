"""Objects by URI through fsspec: open, read, publish, delete."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import fsspec

from moderation.errors import FatalError, UsageError
from moderation.storage.retry import REQUEST_TIMEOUT_S, is_out_of_range, retrying


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object of a listing. etag: the store's own, or size and mtime of a local file; None where unknown."""

    uri: str
    size_bytes: int
    etag: str | None


def canonical(uri: str) -> str:
    """One spelling an object: local files as absolute paths without `file://` and `..`; other schemes kept.

    Raises UsageError for a scheme that fsspec does not know.
    """
    scheme, _ = split_uri(uri)
    if scheme in ("file", "local"):
        path = uri.split("://", 1)[1] if "://" in uri else uri
        return os.path.abspath(path)  # noqa: PTH100 - Path.resolve() would follow links; abspath is pure
    if scheme not in fsspec.available_protocols():
        raise UsageError(f"{uri}: unknown scheme {scheme!r}; known: a local path, s3://, gs://, az://, memory://")
    if scheme == "memory":
        return "memory://" + uri.split("://", 1)[1].lstrip("/")
    return uri


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


def filesystem(uri: str) -> Any:  # noqa: ANN401 - fsspec is untyped
    """The fsspec filesystem of a URI; fsspec keeps one a thread and process. Listings are never cached.

    (s3fs caches listings by default; a resume that trusts a stale one redoes or skips work.)
    """
    scheme, _ = split_uri(uri)
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        options = {
            "use_listings_cache": False,
            "default_fill_cache": False,
            # s3fs' own read-ahead would multiply our exact ranges.
            "default_cache_type": "none",
            "config_kwargs": {
                "connect_timeout": 10,
                "read_timeout": REQUEST_TIMEOUT_S,
                "max_pool_connections": 64,
                # Retries live here, in one place, with one budget.
                "retries": {"max_attempts": 1, "mode": "standard"},
            },
        }
    try:
        fs = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise UsageError(f"{uri}: {error}; install the package for {scheme}://") from error
    if hasattr(fs, "retries"):
        fs.retries = 1  # s3fs' loop: same reason
    return fs


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
    found = retrying(lambda: filesystem(uri).info(path), what=uri)
    if found["type"] != "file":
        raise FileNotFoundError(uri)
    return object_info(uri, found)


def is_folder(uri: str) -> bool:
    """Whether something lies below this URI (a directory, or a prefix with at least one object)."""
    uri = canonical(uri)
    try:
        return bool(retrying(lambda: filesystem(uri).isdir(split_uri(uri)[1]), what=uri))
    except FileNotFoundError:
        return False


def read_bytes(uri: str, *, offset: int | None = None, length: int | None = None) -> bytes:
    """An object, or `length` bytes of it from `offset`.

    A body shorter than the object is an error and is read again.
    Raises FileNotFoundError, PermissionError, StorageError.
    """
    uri = canonical(uri)
    scheme, path = split_uri(uri)
    if length == 0:
        # As a Range header this would be malformed, and a server may answer with the whole object.
        return b""
    if scheme == "file":
        return retrying(lambda: _read_local(Path(path), offset or 0, length), what=uri)
    start = offset or 0

    def read() -> bytes:
        fs = filesystem(uri)
        if offset is None and length is None:
            return bytes(fs.cat_file(path))
        try:
            data = bytes(fs.cat_file(path, start=start, end=None if length is None else start + length))
        except OSError as error:
            if is_out_of_range(error):
                return b""  # an empty object, of which not even the first byte can be asked for
            raise
        if length is not None and len(data) < length and start + len(data) < int(fs.info(path)["size"]):
            raise ConnectionResetError(f"{uri}: body cut short")
        return data

    return retrying(read, what=uri)


def open_input(uri: str) -> IO[bytes]:
    """A seekable binary file, for readers that jump (Parquet footers). The caller closes it."""
    uri = canonical(uri)
    file: IO[bytes] = retrying(lambda: filesystem(uri).open(split_uri(uri)[1], "rb"), what=uri)
    return file


def publish(uri: str, data: bytes) -> None:
    """Write an object whole: readers see all of it or nothing. An object store does that by itself; locally by rename.

    Raises FatalError where it cannot be written, StorageError where storage kept failing.
    """
    uri = canonical(uri)
    scheme, path = split_uri(uri)

    def write() -> None:
        if scheme == "file":
            _publish_local(Path(path), data)
        else:
            filesystem(uri).pipe_file(path, data)

    try:
        retrying(write, what=uri)
    except OSError as error:
        # Not allowed, no such bucket, a file in the way, a full or read-only disk: no next shard would fare better.
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


def local_info(path: str) -> ObjectInfo:
    """A local file as a listing shows it. Raises FileNotFoundError."""
    stat = Path(path).stat()
    return ObjectInfo(uri=path, size_bytes=stat.st_size, etag=f"{stat.st_size}-{stat.st_mtime_ns}")


def object_info(uri: str, found: dict[str, Any]) -> ObjectInfo:
    size = int(found.get("size") or 0)
    etag = found.get("ETag") or found.get("etag") or found.get("md5")
    if etag is None:
        stamp = found.get("mtime") or found.get("LastModified") or found.get("created")
        if isinstance(stamp, datetime):
            stamp = stamp.timestamp()  # fsspec's memory says it one way in a listing and the other when asked
        etag = f"{size}-{stamp}" if stamp is not None else None
    return ObjectInfo(uri=uri, size_bytes=size, etag=str(etag).strip('"') if etag is not None else None)


def _read_local(path: Path, offset: int, length: int | None) -> bytes:
    with path.open("rb") as file:
        if offset:
            file.seek(offset)
        return file.read() if length is None else file.read(length)


def _publish_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two workers that publish the same part apart; the bytes are the same.
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{random.getrandbits(32):08x}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()

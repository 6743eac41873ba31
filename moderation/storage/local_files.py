"""Local files: only regular ones are read, and readers see a write whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from moderation.storage.retry import NotRegularError
from moderation.storage.s3 import check_version


def what_it_is(mode: int) -> str:
    """The kind of a file that is not regular, in a word."""
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def open_local(path: str) -> IO[bytes]:
    """A regular file, open. Raises NotRegularError: a pipe would hang the reader, a device never ends."""
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise NotRegularError(f"{path}: {what_it_is(mode)}; only regular files are read")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def local_etag(status: os.stat_result) -> str:
    """The version of a local file: its size and the time of its last change."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def read_local(path: str, offset: int, length: int | None, etag: str | None) -> bytes:
    """Bytes of a regular file, as many as it has now. etag: the version that is wanted. Raises ChangedError."""
    with open_local(path) as file:
        # The size as of now: `read(n)` allocates n bytes before it reads, and a growing file has no end.
        left = max(0, os.fstat(file.fileno()).st_size - offset)
        file.seek(offset)
        data = file.read(left if length is None else min(length, left))
        # By the open file, after reading: the bytes are its own even if another file has taken its name.
        check_version(path, etag, local_etag(os.fstat(file.fileno())))
        return data


def _open_new(path: Path) -> IO[bytes]:
    for _ in range(10):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Somebody may remove the folder while it is empty.
        with contextlib.suppress(FileNotFoundError):
            return path.open("wb")
    return path.open("wb")


@contextlib.contextmanager
def writing_local(path: Path) -> Iterator[IO[bytes]]:
    """A file that is written under a scratch name, and renamed when the block ends without an error."""
    # The process id keeps two workers that publish the same part apart; the bytes are the same.
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{random.getrandbits(32):08x}")
    try:
        with _open_new(scratch) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def publish_local(path: Path, data: bytes) -> None:
    """Write a file whole: readers see all of it or nothing."""
    with writing_local(path) as file:
        file.write(data)

"""One write of an object, with a deadline: a client waits forever for a server that does not take the bytes."""

from __future__ import annotations

from typing import Any

from fsspec.asyn import AsyncFileSystem, sync

from moderation.storage.clients import request_timeout_s

# A write may take twice the request timeout, plus the time for its bytes at the rate of a bad home line.
ANSWERS = 2.0
MIN_BYTES_PER_S = 256 * 1024


def put_remote(
    fs: Any,  # noqa: ANN401 - fsspec is untyped
    path: str,
    data: bytes,
) -> None:
    """Write an object whole. A filesystem without an event loop has only the deadlines of its client.

    Raises fsspec's FSTimeoutError where it took too long (the client's own deadline covers only answers), and what the
    client raises.
    """
    if not isinstance(fs, AsyncFileSystem):
        fs.pipe_file(path, data)
        return
    deadline_s = ANSWERS * request_timeout_s() + len(data) / MIN_BYTES_PER_S
    sync(fs.loop, fs._pipe_file, path, data, timeout=deadline_s)

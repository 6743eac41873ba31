"""A write ends, whatever the server does with its bytes."""

from __future__ import annotations

import socket

import pytest
from fsspec.exceptions import FSTimeoutError

from moderation import storage
from moderation.storage import remote_write
from tests.s3_server import environment, s3_env


def test_a_server_that_takes_no_bytes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_write, "MIN_BYTES_PER_S", 1 << 30)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        # Connections are taken by the kernel, and nobody reads them: more than its buffers hold gets stuck.
        with (
            environment({**s3_env(endpoint), "MODERATION_REQUEST_TIMEOUT_S": "0.2"}),
            pytest.raises(FSTimeoutError),
        ):
            remote_write.put_remote(storage.filesystem("s3://bucket"), "bucket/a", bytes(32 << 20))


def test_memory_takes_what_is_written() -> None:
    remote_write.put_remote(storage.filesystem("memory://a"), "written/a", b"x")
    assert storage.read_bytes("memory://written/a") == b"x"

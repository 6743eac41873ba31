"""What an S3 server answers to a request for a part, and what is taken for it."""

from __future__ import annotations

import http.server
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from moderation import storage
from moderation.storage import retry
from tests.s3_server import environment

DATA = bytes(range(256)) * 40
WINDOWS = [(0, 20_000), (0, 100), (100, 200), (5000, None)]


class _OddAnswers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    said = "bytes {first}-{last}/{total}"  # Content-Range; empty: none
    status = 206
    length: int | None = None  # that the whole object claims to have
    sent = 0

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or len(DATA)), len(DATA) - 1)
        body = DATA[start : stop + 1] if self.status == 206 else DATA
        self.send_response(self.status)
        self.send_header("Content-Length", str(self.length or len(body)))
        if self.said:
            self.send_header("Content-Range", self.said.format(first=start, last=stop, total=len(DATA)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.length is not None
        try:
            while self.length is not None and _OddAnswers.sent < 50 << 20:
                _OddAnswers.sent += self.wfile.write(bytes(1 << 20))
        except OSError:
            return


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry, "MAX_WAIT_S", 0.001)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _OddAnswers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    with environment({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": address}):
        yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("said", ["bytes {first}-{last}/*", "bytes 0-{last}", ""])
def test_a_part_that_does_not_say_which_is_not_taken_for_the_whole(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """The 300th byte of an object was read as its first, and a member of a tar was another's bytes."""
    monkeypatch.setattr(_OddAnswers, "said", said)
    for offset, length in WINDOWS[2:]:
        with pytest.raises(storage.StorageError, match="does not say which"):
            storage.read_bytes("s3://b/a.tar", offset=offset, length=length)


def test_of_a_server_that_sends_all_no_more_is_read_than_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_OddAnswers, "said", "")
    monkeypatch.setattr(_OddAnswers, "status", 200)
    for offset, length in WINDOWS:
        stop = None if length is None else offset + length
        assert storage.read_bytes("s3://b/a.bin", offset=offset, length=length) == DATA[offset:stop]
    monkeypatch.setattr(_OddAnswers, "length", 10**12)
    assert storage.read_bytes("s3://b/a.bin", offset=100, length=200) == DATA[100:300]
    assert _OddAnswers.sent < 50 << 20


def test_what_is_in_front_of_a_part_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_OddAnswers, "said", "")
    monkeypatch.setattr(_OddAnswers, "status", 200)
    monkeypatch.setattr(_OddAnswers, "sent", 0)
    monkeypatch.setattr(_OddAnswers, "length", 10**12)
    tracemalloc.start()
    try:
        assert storage.read_bytes("s3://b/a.bin", offset=40 << 20, length=200) == bytes(200)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()

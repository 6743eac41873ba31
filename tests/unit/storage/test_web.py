"""Web addresses: one bounded GET, no redirect, and an answer for every status."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from moderation import storage
from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import FatalError, UsageError
from moderation.sources import open_source
from moderation.sources.fetch import Fetcher
from moderation.storage import StorageError, retry
from moderation.types import ErrorCode, TypedBytes
from tests.drawn_media import draw, encode

PICTURE = encode(draw(), "PNG")


class Addresses(http.server.BaseHTTPRequestHandler):
    """`/status/N` answers so; `/endless` never ends; HEAD is refused, as for a signed address."""

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    def do_HEAD(self) -> None:
        self.send_error(403)

    def do_GET(self) -> None:
        if self.path.startswith("/status/"):
            self.send_response(int(self.path[8:11]))
            self.send_header("Location", "/x.png")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/endless":
            self._answer(200, [])
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        elif self.path.startswith(("/ranged", "/short", "/shifted")):
            start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            start = 0 if self.path == "/shifted" else start
            end = start + 1 if self.path == "/short" else end
            data = PICTURE[start : end + 1]
            span = f"bytes {start}-{start + len(data) - 1}/{len(PICTURE)}"
            self._answer(206, [("Content-Range", span), ("Content-Length", str(len(data))), ("ETag", '"v1"')])
            self.wfile.write(data)
        else:
            self._answer(200, [("Content-Length", str(len(PICTURE)))])
            self.wfile.write(PICTURE)

    def _answer(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in [("Content-Type", "image/png"), *headers]:
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Addresses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("path", ["/whole.png", "/ranged.png", "/whole.png?X-Amz-Signature=a%2Fb", "/a b.png"])
def test_an_object_is_read_whole_in_part_and_with_its_type(address: str, path: str) -> None:
    assert storage.info(address + path).size_bytes == len(PICTURE)
    assert storage.read_bytes(address + path, offset=5, length=7) == PICTURE[5:12]
    data = storage.read_typed(address + path, 10**6)
    assert data == PICTURE and isinstance(data, TypedBytes) and data.content_type == "image/png"


@pytest.mark.parametrize("path", ["/short", "/shifted"])
def test_other_bytes_than_were_asked_for_are_refused(address: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_wait", lambda attempt: None)
    with pytest.raises(StorageError, match="asked for bytes from 5"):
        storage.read_bytes(address + path, offset=5, length=7)


def test_one_web_server_that_is_down_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_wait", lambda attempt: None)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for number in range(60):
        with pytest.raises(StorageError):
            storage.read_bytes(f"{gone}/{number}.png", offset=0, length=10)


def test_an_answer_without_end_is_read_to_the_limit_only(address: str) -> None:
    assert storage.read_bytes(f"{address}/endless", offset=0, length=1000) == bytes(1000)


def test_another_version_is_told(address: str) -> None:
    with pytest.raises(storage.ChangedError):
        storage.read_bytes(f"{address}/ranged", offset=0, length=5, etag="v0")


def test_every_row_of_a_list_has_its_answer(address: str, tmp_path: Path) -> None:
    expected = {
        "/whole.png": None,
        "/status/302": ErrorCode.FORBIDDEN,
        "/status/401": ErrorCode.FORBIDDEN,
        "/status/403": ErrorCode.FORBIDDEN,
        "/status/404": ErrorCode.NOT_FOUND,
        "/status/410": ErrorCode.NOT_FOUND,
        "/status/400": ErrorCode.FETCH_FAILED,
        "/endless": ErrorCode.TOO_LARGE,
    }
    (tmp_path / "l.txt").write_text("\n".join(address + path for path in expected))
    items = list(open_source(str(tmp_path / "l.txt"), SourceConfig(allow=[address])))
    fetch = Fetcher(items, MediaConfig(max_bytes=100_000))
    answers = [payload if isinstance(payload, bytes) else payload.code for item in items for payload in fetch(item)]
    assert answers == [PICTURE if code is None else code for code in expected.values()]


def test_an_address_is_a_source_of_one_and_no_place_to_write(address: str) -> None:
    assert [item.uri for item in open_source(f"{address}/a.png?page=1", SourceConfig())] == [f"{address}/a.png?page=1"]
    with pytest.raises(UsageError, match="may not be read"):
        open_source(f"{address}/status/302", SourceConfig())
    with pytest.raises(FatalError, match="only read"):
        storage.publish(f"{address}/x", b"")
    for change in (storage.delete_object, lambda uri: storage.copy_object(uri, f"{uri}.copy")):
        with pytest.raises(UsageError, match="only read"):
            change(f"{address}/x.png")

"""An HTTP proxy that stands before an S3 server and has bad days: by a seed, at a rate, of several kinds.

`slow_down`  503 SlowDown, as S3 says it          `error`   500 InternalError
`reset`      the connection is reset, unanswered  `lost`    done by the server, but the answer is lost
`stall`      no answer for longer than a deadline  `cut`     half of the body, then the connection is closed
`short`      half of the body, whose Content-Length fits: only the Content-Range tells

Every request is recorded. A path below one of `denied` is answered with 403 AccessDenied.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KINDS = ("slow_down", "error", "reset", "lost", "stall", "cut", "short")
_ANSWERS = {"slow_down": (503, "SlowDown"), "error": (500, "InternalError"), "denied": (403, "AccessDenied")}
# Belong to one connection, not to the message.
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


@dataclass(kw_only=True)
class FaultProxy:
    """A running proxy; `rate` and `denied` may be changed while it runs."""

    upstream: str
    rate: float = 0.0
    kinds: Sequence[str] = KINDS
    stall_s: float = 0.0
    denied: tuple[str, ...] = ()
    seed: int = 0
    endpoint: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)  # method, path with its query
    injected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._lock = threading.Lock()
        self._turn = 0
        self.stopped = threading.Event()

    def fault(self, method: str, path: str) -> str | None:
        """What happens to the next request, which is recorded: each kind in its turn, at moments that chance picks."""
        with self._lock:
            self.requests.append((method, path))
            if any(path.startswith(prefix) for prefix in self.denied):
                return "denied"
            if self._chance.random() >= self.rate:
                return None
            for _ in self.kinds:
                kind = self.kinds[self._turn % len(self.kinds)]
                self._turn += 1
                # Only what is read has a body to cut.
                if kind not in ("cut", "short") or method == "GET":
                    self.injected[kind] += 1
                    return kind
            return None


@contextmanager
def fault_proxy(upstream: str, **options: Any) -> Iterator[FaultProxy]:
    """A proxy before `http://host:port`, in threads of this process, until the end of the block."""
    proxy = FaultProxy(upstream=upstream, **options)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with _Server(("127.0.0.1", 0), handler) as server:
        proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.stopped.set()
            server.shutdown()
            thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what this is all about."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    upstream: http.client.HTTPConnection | None = None

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.proxy.fault(self.command, self.path)
        if kind in _ANSWERS:
            self._answer(*_ANSWERS[kind])
        elif kind == "reset":
            self._reset()
        elif kind == "stall":
            self.proxy.stopped.wait(self.proxy.stall_s)
            self._reset()
        else:
            self._forward(body, kind)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    def _forward(self, body: bytes, kind: str | None) -> None:
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        # Host included: the signature is over it.
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "expect")}
        self.upstream.request(self.command, self.path, body or None, headers)
        answer = self.upstream.getresponse()
        data = answer.read()
        if kind == "lost":
            self._reset()
            return
        # A HEAD has a length and no body.
        length = int(answer.headers.get("Content-Length") or len(data)) if self.command == "HEAD" else len(data)
        sent = data[: len(data) // 2] if kind in ("cut", "short") else data
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent) if kind == "short" else length))
        self.end_headers()
        self.wfile.write(sent)
        if kind == "cut":
            self.close_connection = True

    def _answer(self, status: int, code: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
        data = b"" if self.command == "HEAD" else text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            # Closing with a linger of zero sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()
        if self.upstream is not None:
            self.upstream.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

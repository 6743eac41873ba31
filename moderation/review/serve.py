"""The server of the reviewers' page: binds first, prints a link per reviewer, then serves until it is told to end."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import uvicorn

from moderation.errors import UsageError
from moderation.pages.text import short_line
from moderation.review.access import Gate, Reviewer, is_pseudonym
from moderation.review.desk import ReviewDesk, open_desk
from moderation.review.settings import ReviewSettings
from moderation.review.web import make_app

# With the same secret the links of the last server stay good.
SECRET_VARIABLE: Final = "MODERATION_REVIEW_SECRET"
_MIN_SECRET_CHARS: Final = 16
_MAX_CONNECTIONS: Final = 256


def serve_review(
    out: str,
    reviewers: Sequence[Reviewer],
    settings: ReviewSettings,
    *,
    host: str,
    port: int,
    announce: Callable[[Reviewer, str], None],
    public_url: str | None = None,
) -> None:
    """Serve the page until SIGINT or SIGTERM. announce: is told each reviewer's link once the port answers.

    public_url: what a proxy serves the page as, for links. Raises UsageError where OUT is no run, the port is taken, a
    name is no pseudonym or the address is none; LeaseHeldError where another process decides there.
    """
    check_reviewers(reviewers)
    check_public_url(public_url)
    secret = read_secret()
    with closing(bind(host, port)) as sock, open_desk(out, settings) as desk:
        bound = int(sock.getsockname()[1])
        gate = Gate(reviewers, secret, bound)
        shown = f"[{host}]" if ":" in host else host
        address = (public_url or f"http://{shown}:{bound}").rstrip("/")
        for reviewer in reviewers:
            announce(reviewer, f"{address}/?token={gate.token_of(reviewer)}")
        threading.Thread(target=desk.warm_up, name="warm-up", daemon=True).start()
        with until_told():
            make_server(desk, gate, host, public_url).run(sockets=[sock])


def count_waiting(out: str, reviewers: Sequence[Reviewer], settings: ReviewSettings) -> dict[str, int]:
    """What the items of a run wait for -> how many; without those that wait for nobody. Raises as `serve_review`."""
    check_reviewers(reviewers)
    with open_desk(out, settings) as desk:
        return desk.waiting()


@contextmanager
def until_told() -> Iterator[None]:
    """Ctrl-C or SIGTERM is how a server ends: the block is left, so that what it holds is let go of."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # The server stops gracefully, then raises the signal again.
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def make_server(desk: ReviewDesk, gate: Gate, host: str, public_url: str | None = None) -> uvicorn.Server:
    """A server that logs no addresses: a link has a token in it."""
    config = uvicorn.Config(
        make_app(desk, gate, host, public_url),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def check_reviewers(reviewers: Sequence[Reviewer]) -> None:
    """Raises UsageError where a name is no pseudonym, or stands twice."""
    names = [reviewer.name for reviewer in reviewers]
    for name in names:
        if not is_pseudonym(name):
            raise UsageError(f"--reviewer {name[:60]!r}: a pseudonym of at most 40 letters, digits and -_.")
        if names.count(name) > 1:
            raise UsageError(f"--reviewer {name}: twice; each reviewer has one link")


def check_public_url(url: str | None) -> None:
    """Raises UsageError where this is not what a browser can open the page by."""
    try:
        parts = urlsplit(url or "https://localhost")
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if (
        not fits
        or not parts.netloc.isascii()
        or "@" in parts.netloc
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
    ):
        raise UsageError(
            f"--public-url {short_line(url or '', 100)!r}: expected https://HOST or https://HOST:PORT, without a path"
        )


def read_secret() -> bytes:
    """The secret that tokens are made of: from the environment, else a new one. Raises UsageError for a short one."""
    given = os.environ.get(SECRET_VARIABLE, "")
    if given and len(given) < _MIN_SECRET_CHARS:
        raise UsageError(
            f"{SECRET_VARIABLE}: at least {_MIN_SECRET_CHARS} characters; `openssl rand -hex 32` makes some"
        )
    return given.encode() if given else secrets.token_bytes(32)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror or error}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()
    except OSError as error:
        sock.close()
        raise UsageError(f"{host}:{port}: {error.strerror or error}; --port 0 takes a free one") from error
    return sock

"""Who may use the reviewers' page: one link per reviewer, and what every answer forbids the browser.

The token of a link is an HMAC of the reviewer's pseudonym, so that a reviewer decides under no other name. It comes in
the address once, then in a cookie that no script and no other site can use.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 1 << 20  # of a batch of decisions
_MAX_NAME_CHARS: Final = 40
_READING: Final = frozenset({"GET", "HEAD"})
# No inline script or style, nothing from elsewhere, in no frame.
_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewer:
    """Who decides, by a pseudonym. expert: their word settles where two differ."""

    name: str
    expert: bool = False


def is_pseudonym(name: str) -> bool:
    """Whether this may stand in decisions and on the page: 1 to 40 letters, digits, `-`, `_` or `.`."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    return len(name) <= _MAX_NAME_CHARS and plain.isalnum()


class Gate:
    """Knows the reviewers by their tokens. secret: of this server; port: in the cookie's name."""

    def __init__(self, reviewers: Sequence[Reviewer], secret: bytes, port: int) -> None:
        self._tokens = {reviewer: self._sign(reviewer, secret) for reviewer in reviewers}
        # Browsers send the cookies of one host to all its ports.
        self.cookie = f"review_{port}"

    @staticmethod
    def _sign(reviewer: Reviewer, secret: bytes) -> str:
        named = f"{'expert' if reviewer.expert else 'reviewer'}:{reviewer.name}"
        return hmac.new(secret, named.encode(), sha256).hexdigest()

    def token_of(self, reviewer: Reviewer) -> str:
        """The token of a reviewer's link."""
        return self._tokens[reviewer]

    def who(self, token: str | None) -> Reviewer | None:
        """The reviewer that a token belongs to, in a time that tells nothing of it."""
        given = (token or "").encode("utf-8", "replace")
        known = [reviewer for reviewer, own in self._tokens.items() if hmac.compare_digest(own.encode(), given)]
        return known[0] if known else None

    def who_asks(self, request: Request) -> Reviewer | None:
        """The reviewer of a request, by its cookie."""
        return self.who(request.cookies.get(self.cookie))


class Guard:
    """Puts the headers on every answer, and refuses requests from other sites before they reach a route.

    public_url: of a proxy, through which requests come too.
    """

    def __init__(self, app: ASGIApp, host: str, public_url: str | None = None) -> None:
        self._app = app
        public = urlsplit((public_url or "").lower())
        # Browsers leave out the port that goes with the scheme.
        own = public.netloc.removesuffix({"https": ":443", "http": ":80"}.get(public.scheme, " "))
        self._sites = frozenset({own} - {""})
        self._hosts = _LOOPBACK | {public.hostname or "localhost"} if host in _LOOPBACK else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refused = self._refuse(scope["method"], Headers(scope=scope))
        if refused is not None:
            await PlainTextResponse(refused, 403)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _refuse(self, method: str, headers: Headers) -> str | None:
        """Why a request is refused; None where it is not."""
        host = headers.get("host", "")
        if self._hosts is not None and _split(f"//{host}").hostname not in self._hosts:
            # A page of another site whose name was pointed at this machine.
            return "this server answers to the name of this machine alone"
        if method in _READING:
            return None
        if (
            _split(headers.get("origin", "")).netloc not in (host, *self._sites)
            or headers.get("sec-fetch-site", "same-origin") != "same-origin"
        ):
            return "a request from another site"
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return "only JSON is taken"
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return f"a body of more than {MAX_BODY_BYTES} bytes, or of unknown length"
        return None


def _split(address: str) -> SplitResult:
    """The parts of an address that a stranger sent; all empty where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")

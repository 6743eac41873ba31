"""The reviewers' page as a web application: routes, and what each answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from moderation import storage
from moderation.errors import FatalError, UsageError, one_line
from moderation.review.access import MAX_BODY_BYTES, Gate, Guard, Reviewer
from moderation.review.desk import BREAK_MIN, ReviewDesk
from moderation.review.items import QueueItem
from moderation.review.pictures import BusyError, ItemPicture, ItemPictures
from moderation.review.settings import MAX_UNDO
from moderation.review.shown_item import clock
from moderation.review.templates import fill_template
from moderation.review.wire import ItemsAgain, NextItems, SentDecisions, parse

PAGE: Final = Path(__file__).parent / "page"
# Named one by one: no part of an address becomes a path.
_FILES: Final[Mapping[str, str]] = {
    "review.js": "text/javascript", "outbox.js": "text/javascript", "pictures.js": "text/javascript",
    "review.css": "text/css", "icon.svg": "image/svg+xml",
}  # fmt: skip
_COOKIE_AGE_S: Final = 14 * 86_400
_PICTURE_WAIT_S: Final = 120.0
# A picture of an item never changes: its content is checked by its hash.
_KEEP: Final = {"cache-control": "private, max-age=3600"}
_KEYS: Final = (
    ("P", "pass", "pass all but the odd ones"),
    ("B", "block, for the reasons chosen, or else for what the machine says", "block the odd ones"),
    ("1–9", "choose a reason", "choose a reason"),
    ("E", "escalate to an expert", "escalate the odd ones"),
    ("S", "skip: no answer", "skip the odd ones"),
    ("U", "undo, up to the last 20", "undo, up to the last 20"),
    ("N", "next: this one later", ""),
    ("R", "reveal, or blur again", "reveal, or blur again"),
    ("Arrows", "picture before or after", "move; Enter or Space marks an odd one"),
    ("J", "jump to the picture that decided", ""),
    ("O", "overlay: boxes, explanation, none", ""),
    ("A", "decide alike items together, or this one alone", ""),
    ("V", "all that waits of this uploader, user or group as a grid", ""),
    ("C", "comment", "comment"),
    ("F", "filters", "filters"),
    ("G", "grid", "one item"),
    ("?", "these keys", "these keys"),
)

_Handler = Callable[[Request, Reviewer], Awaitable[Response]]


def make_app(desk: ReviewDesk, gate: Gate, host: str, public_url: str | None = None) -> Starlette:
    """The application. host: what it is bound to; on loopback it answers to loopback's names and public_url alone."""
    pages = _Pages(desk, gate, secure=(public_url or "").startswith("https:"))
    routes = [
        Route("/", pages.index),
        Route("/page/{name}", pages.file),
        Route("/picture", pages.for_reviewer(pages.picture)),
        Route("/frames", pages.for_reviewer(pages.frames)),
        Route("/overlay", pages.for_reviewer(pages.overlay)),
        Route("/next", pages.for_reviewer(pages.next_items), methods=["POST"]),
        Route("/again", pages.for_reviewer(pages.again), methods=["POST"]),
        Route("/decisions", pages.for_reviewer(pages.decide), methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _plainly, UsageError: _wrong, BusyError: _busy, FatalError: _failed}
    handlers |= {storage.StorageError: _failed, OSError: _failed}
    return Starlette(
        routes=routes, middleware=[Middleware(Guard, host=host, public_url=public_url)], exception_handlers=handlers
    )


class _Pages:
    """The handlers of the routes."""

    def __init__(self, desk: ReviewDesk, gate: Gate, *, secure: bool) -> None:
        self._desk, self._gate, self._secure = desk, gate, secure

    def for_reviewer(self, handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
        """A route for those with a link."""

        async def handle(request: Request) -> Response:
            reviewer = self._gate.who_asks(request)
            return _no_link() if reviewer is None else await handler(request, reviewer)

        return handle

    async def index(self, request: Request) -> Response:
        """The page; the first time, with the token of the link, which becomes a cookie."""
        token = request.query_params.get("token")
        reviewer = self._gate.who_asks(request) if token is None else self._gate.who(token)
        if reviewer is None:
            return _no_link()
        chosen = {name: value for name, value in request.query_params.items() if name != "token" and value}
        values = {
            "reviewer": reviewer,
            "run_id": self._desk.run_id,
            "reasons": self._desk.reasons,
            "filters": self._desk.filters,
            "chosen": chosen,
            "keys": _KEYS,
            "history": MAX_UNDO,
            "break_min": BREAK_MIN,
        }
        response = HTMLResponse(fill_template("index.html", **values))
        if token is not None:
            cookie, secure = self._gate.cookie, self._secure
            response.set_cookie(cookie, token, max_age=_COOKIE_AGE_S, secure=secure, httponly=True, samesite="strict")
        return response

    async def file(self, request: Request) -> Response:
        """The style, the script, the icon."""
        name = request.path_params["name"]
        if name not in _FILES:
            raise HTTPException(404)
        return FileResponse(PAGE / name, media_type=_FILES[name], headers={"cache-control": "no-cache"})

    async def picture(self, request: Request, reviewer: Reviewer) -> Response:
        """One picture of an item as JPEG."""
        item, pictures = await self._look_at(request)
        one = _chosen(pictures, request.query_params.get("frame"), item.blind)
        large = request.query_params.get("size") == "large"
        return Response(one.large if large else one.small, media_type="image/jpeg", headers=_KEEP)

    async def frames(self, request: Request, reviewer: Reviewer) -> Response:
        """Which pictures an item has, or why there are none."""
        item, pictures = await self._look_at(request)
        frames = [
            {"frame": p.frame, "time_s": p.time_s, "clock": "" if p.time_s is None else clock(p.time_s)}
            for p in pictures.pictures
        ]
        error = None if pictures.error is None else str(pictures.error)
        deciding = pictures.deciding if frames and not item.blind else None
        return JSONResponse({"frames": frames, "deciding": deciding, "total": pictures.total, "error": error})

    async def overlay(self, request: Request, reviewer: Reviewer) -> Response:
        """The overlay of an item's explanation as JPEG."""
        item = await self._item(request)
        data = None if item.blind else await run_in_threadpool(self._desk.overlay, item.item_id)
        if data is None:
            raise HTTPException(404)
        return Response(data, media_type="image/jpeg", headers=_KEEP)

    async def next_items(self, request: Request, reviewer: Reviewer) -> Response:
        """Items to decide on, claimed for the reviewer."""
        wish = parse(NextItems, await _body(request))
        return JSONResponse(await run_in_threadpool(self._desk.next_items, reviewer, wish))

    async def again(self, request: Request, reviewer: Reviewer) -> Response:
        """Items that an undo brings back."""
        wish = parse(ItemsAgain, await _body(request))
        return JSONResponse(await run_in_threadpool(self._desk.again, reviewer, wish))

    async def decide(self, request: Request, reviewer: Reviewer) -> Response:
        """A batch of decisions; those in `taken` are on disk."""
        batch = parse(SentDecisions, await _body(request))
        return JSONResponse(await run_in_threadpool(self._desk.decide, reviewer, batch))

    async def _item(self, request: Request) -> QueueItem:
        """The item that a request names; of the audit it is `blind`, whoever asks. Raises HTTPException."""
        item = await run_in_threadpool(self._desk.item, request.query_params.get("item", ""))
        if item is None:
            raise HTTPException(404)
        return item

    async def _look_at(self, request: Request) -> tuple[QueueItem, ItemPictures]:
        """The item that a request names, and its pictures. Raises HTTPException, BusyError."""
        item = await self._item(request)
        try:
            async with asyncio.timeout(_PICTURE_WAIT_S):
                # Shielded: another reviewer may wait for the same.
                return item, await asyncio.shield(asyncio.wrap_future(self._desk.pictures.ask(item.item_id)))
        except TimeoutError as error:
            raise BusyError("the picture takes too long") from error


def _chosen(pictures: ItemPictures, frame: str | None, blind: bool) -> ItemPicture:
    """The picture of a frame; without one the deciding one, or the first for who must not know that."""
    if not pictures.pictures:
        raise HTTPException(404)
    if frame is None:
        return pictures.pictures[0 if blind else pictures.deciding]
    wanted = [picture for picture in pictures.pictures if str(picture.frame) == frame]
    if not wanted:
        raise HTTPException(404)
    return wanted[0]


async def _body(request: Request) -> bytes:
    """The body, which is no longer than it said. Raises HTTPException."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise HTTPException(413)
    return bytes(data)


def _no_link() -> Response:
    text = "Open the link that `moderation review serve` printed for you; each is for one reviewer."
    return HTMLResponse(fill_template("message.html", title="No access", text=text), 403)


async def _plainly(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return Response({404: "not found", 405: "not that way"}.get(status, "refused"), status, media_type="text/plain")


async def _wrong(_: Request, error: Exception) -> Response:
    return Response(one_line(error, 500), 400, media_type="text/plain")


async def _busy(_: Request, error: Exception) -> Response:
    return Response(one_line(error, 200), 503, {"retry-after": "2"}, media_type="text/plain")


async def _failed(_: Request, error: Exception) -> Response:
    return Response(storage.mask_signatures(one_line(error, 500)), 500, media_type="text/plain")

"""Objects at web addresses (http, https): one GET each, bounded, without redirects.

Only reads. fsspec's own methods would ask by HEAD, which a signed address does not permit, keep a whole answer in
memory where a server ignores the range, and follow redirects to servers that `source.allow` does not name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from fsspec.asyn import sync

from moderation.storage.clients import connect_timeout_s, filesystem, request_timeout_s
from moderation.storage.retry import DeniedError, StorageError
from moderation.storage.s3 import check_version

if TYPE_CHECKING:
    import aiohttp

_SCHEMES = frozenset({"http", "https"})
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")
# An address that is taken as it is written: decoding and encoding it again would break its signature.
_ENCODED = re.compile(r"[!-~]+")
_TRANSIENT_STATUS = frozenset({408, 425, 429})


class WebAnswer(NamedTuple):
    """What came. size_bytes: of the whole object, None where the server does not say it."""

    data: bytes
    size_bytes: int | None
    etag: str | None
    content_type: str | None


def is_web(scheme: str) -> bool:
    """Whether a scheme is read here."""
    return scheme in _SCHEMES


def head(uri: str) -> dict[str, Any]:
    """Size and etag, by a GET of one byte. Raises as `get`; StorageError where the server does not say the size."""
    answer = get(uri, 0, 1)
    if answer.size_bytes is None:
        raise StorageError(f"{uri}: the server does not say how long it is")
    return {"size": answer.size_bytes, "ETag": answer.etag, "type": "file"}


def get(uri: str, start: int, length: int | None, etag: str | None = None) -> WebAnswer:
    """The bytes from `start`, at most `length`. etag: the version that is asked for.

    Raises FileNotFoundError, DeniedError (also for a redirect), ChangedError, StorageError for other refusals, and what
    a retry may cure.
    """
    import aiohttp  # only runs over web addresses need it

    async def ask() -> WebAnswer:
        session = await filesystem("https").set_session()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s(), sock_read=request_timeout_s())
        end = "" if length is None else str(start + length - 1)
        headers = {"Range": f"bytes={start}-{end}", "Accept-Encoding": "identity"}
        request = session.get(_address(uri), headers=headers, timeout=timeout, allow_redirects=False)
        async with request as answer:
            if answer.status == 416:
                return WebAnswer(b"", _size(answer), None, None)
            _refuse(uri, answer)
            version = (answer.headers.get("ETag") or "").strip('"') or None
            check_version(uri, etag, version)
            skip = start if answer.status == 200 else 0
            data = await _read_body(answer, skip, length)
            if answer.status == 206:
                _refuse_other_range(uri, answer, start, length, len(data))
            return WebAnswer(data, _size(answer), version, answer.headers.get("Content-Type"))

    try:
        result: WebAnswer = sync(filesystem("https").loop, ask)
    except aiohttp.InvalidURL as error:
        raise FileNotFoundError(f"{uri}: not a web address") from error
    return result


def _address(uri: str) -> Any:  # noqa: ANN401 - yarl comes with aiohttp
    import yarl

    return yarl.URL(uri, encoded=True) if _ENCODED.fullmatch(uri) else yarl.URL(uri)


def _refuse(uri: str, answer: aiohttp.ClientResponse) -> None:
    """Raises for every answer that holds no bytes of the object."""
    status = answer.status
    if status in (200, 206):
        return
    if status in (404, 410):
        raise FileNotFoundError(f"{uri}: HTTP {status}")
    # 401, too: it is about this address, not about the credentials of the run.
    if status in (401, 403):
        raise DeniedError(f"{uri}: HTTP {status}")
    if 300 <= status < 400:
        raise DeniedError(f"{uri}: redirects to another address, which is not followed: name that one")
    if status >= 500 or status in _TRANSIENT_STATUS:
        answer.raise_for_status()
    raise StorageError(f"{uri}: HTTP {status}")


def _refuse_other_range(uri: str, answer: aiohttp.ClientResponse, start: int, length: int | None, came: int) -> None:
    """Raises ConnectionResetError where an answer in part holds other bytes than were asked for, or fewer.

    A server may send less of a range than was asked for: what is behind it would never be looked at.
    """
    told, total = answer.headers.get("Content-Range") or "", _size(answer)
    ends = [end for end in (total, None if length is None else start + length) if end is not None]
    if not told.startswith(f"bytes {start}-") or not ends or came != min(ends) - start:
        raise ConnectionResetError(f"{uri}: asked for bytes from {start}, {came} came: {told[:80]}")


async def _read_body(answer: aiohttp.ClientResponse, skip: int, length: int | None) -> bytes:
    """The body without its first `skip` bytes, at most `length` of them. A body cut short raises aiohttp's error."""
    pieces: list[bytes] = []
    left = length
    async for piece in answer.content.iter_chunked(1 << 16):
        piece, skip = piece[skip:], max(0, skip - len(piece))
        pieces.append(piece if left is None else piece[:left])
        left = None if left is None else left - len(pieces[-1])
        if left == 0:
            break
    return b"".join(pieces)


def _size(answer: aiohttp.ClientResponse) -> int | None:
    total = _TOTAL.fullmatch(answer.headers.get("Content-Range") or "")
    if total is not None:
        return int(total[1])
    return answer.content_length if answer.status == 200 else None

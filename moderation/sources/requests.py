"""Lines of an OpenAI Batch for `/v1/moderations`, as a source: https://platform.openai.com/docs/guides/batch

    {"custom_id": "a", "method": "POST", "url": "/v1/moderations", "body": {"input": [{"type": "image_url", ...}]}}

- A line is an item, its id the `custom_id`; the images of its `input` are its objects, several of them an album.
- `data:` URIs are read from the file again when the item is judged, by the range of their line.
- Any other URI is read only where `source.allow` permits it, as in a manifest.
- The texts of the `input` are the attribute `text`. They are not judged: the votes show what is.
- A line without an image is an error row.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources.allow import resolver
from moderation.sources.items import (
    UniqueIds,
    base_name,
    bound_attributes,
    bound_id,
    clean_text,
    cut_text,
    error_item,
    make_id,
)
from moderation.sources.listed import entry_error, list_files
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item, Kind, MediaObject

SUFFIXES: Final = (".jsonl", ".ndjson")
URL: Final = "/v1/moderations"
# That API takes images of 20 MB, 27 MB in base64. The line is read again for each of its images.
MAX_LINE: Final = 64 * 1024 * 1024
MAX_IMAGES: Final = 32
_CHUNK: Final = 8 * 1024 * 1024
_COLUMN: Final = "input:"  # prefix of `MediaObject.column`; the index of the image in the line follows
_HEAD: Final = 64 * 1024


class _RawLine(NamedTuple):
    """A line of the file: its number from 1, where it begins, and its bytes; None where it is too long."""

    number: int
    offset: int
    size_bytes: int
    raw: bytes | None


def is_requests(uri: str) -> bool:
    """Whether a file of JSON lines is a Batch, by the beginning of its first line."""
    if not uri.lower().endswith(SUFFIXES):
        return False
    head = storage.read_bytes(uri, offset=0, length=_HEAD).lstrip()
    first = head.partition(b"\n")[0]
    return first.startswith(b"{") and b'"custom_id"' in first and b'"body"' in first


def request_items(source: str, config: SourceConfig) -> Iterator[Item]:
    """The items of one or more files of requests, in the order of their lines.

    Raises UsageError for more lines than `max_manifest_rows`; FileNotFoundError, PermissionError, StorageError.
    """
    ids = UniqueIds()
    left = config.max_manifest_rows
    for info, _ in list_files(source, SUFFIXES, config):
        if info.error is not None:
            yield entry_error(info)
            continue
        resolve = resolver(info.uri, config.allow)
        for line in _raw_lines(info):
            left -= 1
            if left < 0:
                raise UsageError(f"{info.uri}: more than source.max_manifest_rows = {config.max_manifest_rows} rows")
            yield _request_item(info, line, resolve, ids)


def _raw_lines(info: ObjectInfo) -> Iterator[_RawLine]:
    """The lines that are not blank, in bounded memory."""
    number, start, size = 0, 0, 0
    pieces: list[bytes] | None = []
    for offset in range(0, info.size_bytes, _CHUNK):
        chunk = storage.read_bytes(info.uri, offset=offset, length=min(_CHUNK, info.size_bytes - offset))
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            number += 1
            whole = b"".join([*pieces, piece]) if pieces is not None and size + len(piece) <= MAX_LINE else None
            if whole is None or whole.strip():
                yield _RawLine(number, start, size + len(piece), whole)
            start, size, pieces = start + size + len(piece) + 1, 0, []
        size += len(rest)
        pieces = [*pieces, rest] if pieces is not None and size <= MAX_LINE else None
    if size:
        last = None if pieces is None else b"".join(pieces)
        if last is None or last.strip():
            yield _RawLine(number + 1, start, size, last)


def _request_item(info: ObjectInfo, line: _RawLine, resolve: Callable[[str], str], ids: UniqueIds) -> Item:
    where = f"{info.uri}#line={line.number}"
    own_id = make_id(info.uri, "line", line.number)
    try:
        request = _parse(line.raw)
        inputs = _inputs_of(request)
    except ItemError as error:
        return error_item(ids.claim(own_id, where), where, error.code, f"line {line.number}: {error.detail}")
    given = request.get("custom_id")
    given = bound_id(clean_text(given)) if isinstance(given, str) and given else None
    item_id = ids.claim(given or own_id, where)
    attributes = _attributes_of(inputs)
    if given:
        attributes["custom_id"] = given
    try:
        objects = tuple(_objects_of(info, line, inputs, resolve))
    except ItemError as error:
        return error_item(item_id, where, error.code, f"line {line.number}: {error.detail}", attributes)
    uri = where if len(objects) > 1 or objects[0].column is not None else storage.mask_signatures(objects[0].uri)
    kind = Kind.ALBUM if len(objects) > 1 else None
    return Item(item_id=item_id, uri=uri, objects=objects, kind=kind, attributes=bound_attributes(attributes))


def _parse(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        raise ItemError(ErrorCode.TOO_LARGE, f"a line of more than {MAX_LINE // 2**20} MiB")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ItemError(ErrorCode.CORRUPT, "not valid JSON") from None
    if not isinstance(value, dict):
        raise ItemError(ErrorCode.CORRUPT, "a JSON value that is not an object")
    if value.get("url", URL) != URL:
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"a request of another endpoint than {URL}")
    return value


def _inputs_of(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of the input as objects with `type`. Raises ItemError."""
    body = request.get("body")
    given = body.get("input") if isinstance(body, dict) else None
    parts = given if isinstance(given, list) else [given]
    inputs = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    objects = [part for part in inputs if isinstance(part, dict)]
    if len(objects) < len(inputs):
        raise ItemError(ErrorCode.CORRUPT, "the request has no `input`, or one that is neither text nor parts")
    return objects


def _attributes_of(inputs: list[dict[str, Any]]) -> dict[str, str]:
    texts = [text for part in inputs if isinstance(text := part.get("text"), str)]
    return {"text": cut_text(clean_text("\n".join(texts)))} if texts else {}


def _image_urls(inputs: list[dict[str, Any]]) -> list[str]:
    """The addresses of the images, in order. Raises ItemError for an invalid one."""
    urls = []
    for part in inputs:
        if part.get("type") != "image_url":
            continue
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if not isinstance(url, str) or not url:
            raise ItemError(ErrorCode.NOT_FOUND, "an image without a url")
        urls.append(url)
    return urls


def _objects_of(
    info: ObjectInfo, line: _RawLine, inputs: list[dict[str, Any]], resolve: Callable[[str], str]
) -> Iterator[MediaObject]:
    urls = _image_urls(inputs)
    if not urls:
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, "no image in the request; texts are not judged here")
    if len(urls) > MAX_IMAGES:
        raise ItemError(ErrorCode.TOO_LARGE, f"more than {MAX_IMAGES} images in a request")
    for index, url in enumerate(urls):
        if url[:5].lower() == "data:":
            yield MediaObject(
                uri=info.uri,
                name="",
                size_bytes=line.size_bytes,
                etag=info.etag,
                offset=line.offset,
                column=f"{_COLUMN}{index}",
            )
        else:
            uri = resolve(clean_text(url))
            yield MediaObject(uri=uri, name=base_name(uri))


def is_inline(media: MediaObject) -> bool:
    """Whether an object is a `data:` URI in a line of requests."""
    return media.offset is not None and media.column is not None and media.column.startswith(_COLUMN)


def read_inline(media: MediaObject, max_bytes: int) -> bytes:
    """The bytes of a `data:` URI. Raises ItemError, and what storage raises."""
    assert media.offset is not None and media.size_bytes is not None and media.column is not None
    if media.size_bytes > MAX_LINE:
        raise ItemError(ErrorCode.TOO_LARGE, f"a line of more than {MAX_LINE // 2**20} MiB")
    raw = storage.read_bytes(media.uri, offset=media.offset, length=media.size_bytes, etag=media.etag)
    urls = _image_urls(_inputs_of(_parse(raw)))
    index = int(media.column.removeprefix(_COLUMN))
    if index >= len(urls):
        raise ItemError(ErrorCode.CHANGED, "the line has not that many images any more")
    return decode_data_uri(urls[index], max_bytes)


def decode_data_uri(uri: str, max_bytes: int) -> bytes:
    """The bytes of a base64 `data:` URI; the type that it claims is ignored. Raises ItemError."""
    head, comma, text = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ItemError(ErrorCode.CORRUPT, "a data: URI that is not base64")
    if len(text) * 3 // 4 > max_bytes + 2:
        raise ItemError(ErrorCode.TOO_LARGE, f"about {len(text) * 3 // 4} bytes, media.max_bytes is {max_bytes}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ItemError(ErrorCode.CORRUPT, "a data: URI whose base64 is not valid") from None

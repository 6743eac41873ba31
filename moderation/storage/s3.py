"""S3 requests by the client of s3fs but not its methods: one GET per object, one HEAD, listings, tags, copies.

s3fs asks for the size before each whole read (two requests instead of one), and takes `?versionId=` in a key for a
version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fsspec.asyn import sync

from moderation.storage.clients import filesystem, request_timeout_s
from moderation.storage.retry import ChangedError

# "bytes 0-99/1000"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
# In request timeouts, for a whole page. An object's bytes have no such deadline, only the client's for the next ones.
_PAGE_DEADLINES = 2.0
_PARTIAL = 206  # HTTP
_SKIPPED_BYTES = 1024 * 1024


_T = TypeVar("_T")


def split_key(path: str) -> tuple[str, str]:
    """`bucket/a/b` -> (`bucket`, `a/b`); a key is taken as it is written."""
    bucket, _, key = path.partition("/")
    return bucket, key


def get_range(path: str, start: int, length: int | None, etag: str | None = None) -> bytes:
    """The bytes of an object from `start`, at most `length`. etag: the version that is asked for.

    Always a ranged request: its answer says how long the object is, so that a body cut short shows.
    Raises ConnectionResetError when fewer bytes come than there are, ChangedError when the answer is another version.
    """
    return get_typed(path, start, length, etag)[0]


def get_typed(path: str, start: int, length: int | None, etag: str | None = None) -> tuple[bytes, str | None]:
    """As `get_range`, with the Content-Type of the object."""
    bucket, key = _object_key(path)
    wanted = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"

    condition = {} if etag is None else {"IfMatch": f'"{etag}"'}

    async def read(client: Any) -> tuple[bytes, str | None, str | None]:  # noqa: ANN401 - botocore is untyped
        answer = await client.get_object(
            Bucket=bucket, Key=key, Range=wanted, **condition, **_extras(client, "GetObject")
        )
        # A server may ignore the condition; the etag of its answer tells which version it sent.
        check_version(path, etag, answer.get("ETag"))
        described = _CONTENT_RANGE.fullmatch(answer.get("ContentRange") or "")
        if described is None and answer["ResponseMetadata"]["HTTPStatusCode"] == _PARTIAL:
            # Taken for the whole object, it would be other bytes than those asked for.
            raise ConnectionResetError(f"a part came that does not say which of how many: {answer.get('ContentRange')}")
        async with answer["Body"] as body:
            data = await (_read_part(body, described) if described else _read_whole(body, start, length, answer))
            return data, answer.get("ContentRange"), answer.get("ContentType")

    data, content_range, content_type = _call(read)
    described = _CONTENT_RANGE.fullmatch(content_range or "")
    if described is None:
        return data, content_type  # a server that does not know ranges sent the whole object
    first, last, total = map(int, described.groups())
    end = total if length is None else min(start + length, total)
    if first != start or last + 1 != end or len(data) != end - start:
        raise ConnectionResetError(f"{len(data)} bytes came of {start} to {end}")
    return data, content_type


async def _read_whole(
    body: Any,  # noqa: ANN401 - botocore is untyped
    start: int,
    length: int | None,
    answer: Mapping[str, Any],
) -> bytes:
    """The bytes from `start` of an answer that is the whole object. What is in front of them is not held."""
    left = start
    while left > 0 and (skipped := await body.read(min(left, _SKIPPED_BYTES))):
        left -= len(skipped)
    if length is None or answer.get("ContentLength", math.inf) <= start + length:
        return bytes(await body.read())  # to its end, where the client compares a checksum
    return await _read_most(body, length)


async def _read_part(body: Any, described: re.Match[str]) -> bytes:  # noqa: ANN401 - botocore is untyped
    """The bytes of an answer in part. described: its Content-Range.

    The client compares a checksum when it meets the end. For a range it must not: some servers send the checksum of
    the whole object. The caller checks the length instead.
    """
    first, last, total = map(int, described.groups())
    if first == 0 and last + 1 == total:
        return bytes(await body.read())
    return await _read_most(body, last + 1 - first)


async def _read_most(body: Any, length: int) -> bytes:  # noqa: ANN401 - botocore is untyped
    left = length
    pieces = []
    while left > 0 and (piece := await body.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _extras(client: Any, operation: str) -> dict[str, Any]:  # noqa: ANN401 - botocore is untyped
    """The user's settings of s3fs for every request (who pays, which key), as far as this operation takes them."""
    fs = filesystem("s3")
    takes = client.meta.service_model.operation_model(operation).input_shape.members
    return {name: value for name, value in {**fs.s3_additional_kwargs, **fs.req_kw}.items() if name in takes}


def check_version(path: str, wanted: str | None, current: object) -> None:
    """Raises ChangedError where both versions are known and differ. current: as the store writes it."""
    if wanted is None or current is None:
        return
    if str(current).strip('"') != wanted:
        raise ChangedError(f"{path}: listed as version {wanted}, is {str(current).strip(chr(34))} now")


def head(path: str) -> dict[str, Any]:
    """Size and etag of one object, as a listing has them."""
    bucket, key = _object_key(path)

    async def ask(client: Any) -> dict[str, Any]:  # noqa: ANN401 - botocore is untyped
        answer: dict[str, Any] = await client.head_object(Bucket=bucket, Key=key, **_extras(client, "HeadObject"))
        return answer

    answer = _call(ask)
    return {"size": answer["ContentLength"], "ETag": answer.get("ETag")}


def get_tags(path: str) -> dict[str, str]:
    """The tags of an object."""
    bucket, key = _object_key(path)

    async def ask(client: Any) -> dict[str, str]:  # noqa: ANN401 - botocore is untyped
        answer = await client.get_object_tagging(Bucket=bucket, Key=key, **_extras(client, "GetObjectTagging"))
        return {str(tag["Key"]): str(tag["Value"]) for tag in answer.get("TagSet", ())}

    return _call(ask)


def put_tags(path: str, tags: Mapping[str, str]) -> None:
    """Replace all tags of an object."""
    bucket, key = _object_key(path)
    wanted = {"TagSet": [{"Key": name, "Value": tags[name]} for name in sorted(tags)]}

    async def ask(client: Any) -> None:  # noqa: ANN401 - botocore is untyped
        if not tags:
            # An empty set is not taken by every server.
            await client.delete_object_tagging(Bucket=bucket, Key=key)
            return
        extras = _extras(client, "PutObjectTagging")
        await client.put_object_tagging(Bucket=bucket, Key=key, Tagging=wanted, **extras)

    _call(ask)


def copy(path: str, to: str, etag: str | None) -> None:
    """Copy an object within the store, with its tags and metadata. etag: the version that is asked for."""
    bucket, key = _object_key(path)
    to_bucket, to_key = _object_key(to)
    condition = {} if etag is None else {"CopySourceIfMatch": f'"{etag}"'}

    async def ask(client: Any) -> None:  # noqa: ANN401 - botocore is untyped
        source = {"Bucket": bucket, "Key": key}
        extras = _extras(client, "CopyObject")
        await client.copy_object(Bucket=to_bucket, Key=to_key, CopySource=source, **condition, **extras)

    # The store answers when it has copied all bytes.
    _call(ask)


def delete(path: str) -> None:
    """Remove an object; in a bucket with versions, its newest one gets a delete marker."""
    bucket, key = _object_key(path)

    async def ask(client: Any) -> None:  # noqa: ANN401 - botocore is untyped
        await client.delete_object(Bucket=bucket, Key=key, **_extras(client, "DeleteObject"))

    _call(ask)


def list_page(bucket: str, prefix: str, token: str | None, *, delimiter: str | None = None) -> dict[str, Any]:
    """One page (1,000 objects) of what lies below a prefix, in the order of keys. delimiter: where names end."""
    arguments = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": 1000}
    if delimiter:
        arguments["Delimiter"] = delimiter
    if token:
        arguments["ContinuationToken"] = token

    async def ask(client: Any) -> dict[str, Any]:  # noqa: ANN401 - botocore is untyped
        page: dict[str, Any] = await client.list_objects_v2(**arguments, **_extras(client, "ListObjectsV2"))
        return page

    return _call(ask, timeout_s=_PAGE_DEADLINES * request_timeout_s())


def _object_key(path: str) -> tuple[str, str]:
    bucket, key = split_key(path)
    if not key:
        raise FileNotFoundError(path)  # a bucket is a folder
    return bucket, key


def _call(ask: Callable[[Any], Awaitable[_T]], timeout_s: float | None = None) -> _T:
    fs = filesystem("s3")

    async def run() -> _T:
        return await ask(await fs.set_session())

    answer: _T = sync(fs.loop, run, timeout=timeout_s)
    return answer

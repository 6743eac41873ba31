"""A row of the ledger: which item, which version of it was judged, the result and where that lies.

All hashes are blake2b. Nothing here reads or writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from moderation.types import ErrorCode, Item, MediaObject

U64 = npt.NDArray[np.uint64]

KEY_BYTES = 16
UNKNOWN = 0  # an unknown version or content

# One row per item; the newest row of a key counts.
LEDGER_SCHEMA = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("version", pa.uint64()),
        ("content_key", pa.uint64()),
        ("attributes_key", pa.uint64()),  # of the attributes that the policy reads; missing in version 1
        ("uri", pa.string()),
        ("item_id", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("content_hash", pa.string()),
        ("verdict", pa.string()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("source", pa.string()),  # the SOURCE that listed it; only its complete listing can miss it
        ("run_out", pa.string()),
        ("part", pa.string()),  # shard id: the name of the part in run_out/verdicts and run_out/votes
        ("format", pa.string()),
        ("stack_fingerprint", pa.string()),
        ("policy_hash", pa.string()),
        ("judged_at", pa.timestamp("s", tz="UTC")),
        ("deleted_at", pa.timestamp("s", tz="UTC")),
    ],
    metadata={"moderation.table": "ledger", "moderation.schema_version": "2"},
)

LATER_COLUMNS = ("attributes_key",)  # that an older ledger lacks: UNKNOWN

# Errors whose cause lies outside the object: the next night may succeed.
RETRIED = (ErrorCode.FETCH_FAILED, ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.CHANGED)
# Columns of a manifest that tell the version where its listing does not.
_VERSION_ATTRIBUTES = ("etag", "content_hash", "size_bytes", "last_modified")
_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def item_key(item: Item) -> bytes:
    """16 bytes that name an item in the ledger.

    Hashed from URI and id: a manifest that gives an object a new id asks for a row under that id, and members of one
    tar or cells of one table may share a URI.
    """
    return blake2b(f"{item.uri}\0{item.item_id}".encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def item_version(item: Item) -> int:
    """64 bits of etag and size (of local files: size and time), which differ when the content may; UNKNOWN = 0.

    A manifest row has neither; its columns `etag`, `content_hash`, `size_bytes` and `last_modified` then count.
    """
    if item.error is not None:
        return _hash64(f"error\0{item.error}")
    if len(item.objects) == 1:
        media = item.objects[0]
        if media.etag is not None and media.offset is None and media.column is None:
            return _hash64(f"{media.etag}\0{media.size_bytes}")
    return _hash_facts(item)


def attributes_key(item: Item, names: Sequence[str]) -> int:
    """64 bits of the values that an item has of some attributes; UNKNOWN = 0 where there are no such attributes."""
    if not names:
        return UNKNOWN
    return _hash64(json.dumps([[name, item.attributes.get(name)] for name in names], separators=(",", ":")))


def _hash_facts(item: Item) -> int:
    fields: list[object] = [
        [o.uri, o.etag, o.size_bytes, o.offset, o.row_group, o.row, o.column, o.frame, o.time_s] for o in item.objects
    ]
    if not all(o.etag is not None or o.size_bytes is not None for o in item.objects):
        told = {name: item.attributes[name] for name in _VERSION_ATTRIBUTES if name in item.attributes}
        if not told and len(item.objects) == 1:
            return UNKNOWN
        # An album of unknown versions still changes with its members.
        fields.append(sorted(told.items()))
    return _hash64(json.dumps(fields, separators=(",", ":")))


def content_id(item: Item) -> str | None:
    """The id of an item's content as far as known before reading; equal ids mean equal bytes. None: unknown.

    Made of the manifest column `content_hash` (sha256, hex), or of the size and the etag of a single-part upload to
    S3, which is the MD5 of the object (32 hex digits; that of a multipart upload has a `-`).
    """
    if item.error is not None or item.kind is not None or len(item.objects) != 1:
        return None
    told = item.attributes.get("content_hash", "").lower()
    if _SHA256.fullmatch(told):
        return f"sha256:{told}"
    return _etag_id(item.objects[0])


def measured_ids(item: Item, content_hash: str | None) -> tuple[str, ...]:
    """The ids of an item's content as measured after reading; never what a manifest claims."""
    if item.error is not None or item.kind is not None or len(item.objects) != 1:
        return ()
    ids = (_etag_id(item.objects[0]), f"sha256:{content_hash}" if content_hash else None)
    return tuple(identity for identity in ids if identity is not None)


def tonight_key(item: Item) -> int:
    """What two items of one night must share to need one verdict: content, and the type that their names claim.

    (The name decides whether a file that is not media is skipped or an error.) 0: content unknown.
    """
    identity = content_id(item)
    if identity is None:
        return 0
    name = item.objects[0].name
    return content_key(f"{identity}\0{name.rpartition('.')[2].lower() if '.' in name else ''}")


def row_contents(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The content ids of a row of the ledger, as `rows.content_id` names them."""
    return (f"md5:{row['etag']}|{row['size_bytes']}", f"sha256:{row['content_hash']}")


def content_key(identity: str | None) -> int:
    """64 bits of a content id; UNKNOWN = 0 for None."""
    return UNKNOWN if identity is None else _hash64(identity)


def _etag_id(media: MediaObject) -> str | None:
    if media.etag is None or media.size_bytes is None or media.offset is not None or media.column is not None:
        return None
    return f"md5:{media.etag}|{media.size_bytes}" if _MD5.fullmatch(media.etag) else None


def _hash64(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def split_keys(keys: Sequence[bytes]) -> tuple[U64, U64]:
    """Keys as two uint64 [N] (high, low halves), which sort as the bytes do."""
    return _halves(b"".join(keys))


def newest_by_key(high: U64, low: U64) -> npt.NDArray[np.int64]:
    """Positions of the first row of each key, sorted by key; the caller puts newer rows first."""
    order = np.lexsort((low, high))  # stable: the first of equal keys stays first
    high, low = high[order], low[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return order[first]


def newest(table: pa.Table) -> pa.Table:
    """The first row of each key, sorted by key; the caller puts newer rows first."""
    return table.take(pa.array(newest_by_key(*table_keys(table))))


def table_keys(table: pa.Table) -> tuple[U64, U64]:
    """The column `key` of a table, without nulls, split as by `split_keys`."""
    chunks = [_key_column(chunk) for chunk in table["key"].chunks]
    if not chunks:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    return np.concatenate([high for high, _ in chunks]), np.concatenate([low for _, low in chunks])


def _key_column(column: pa.FixedSizeBinaryArray) -> tuple[U64, U64]:
    start = column.offset * KEY_BYTES
    data = column.buffers()[1]
    return _halves(memoryview(data)[start : start + len(column) * KEY_BYTES] if data is not None else b"")


def _halves(data: bytes | memoryview) -> tuple[U64, U64]:
    pairs = np.frombuffer(data, dtype=">u8").reshape(-1, 2)
    return pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.uint64)

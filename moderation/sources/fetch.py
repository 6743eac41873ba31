"""Encoded bytes of an item's objects: whole objects, byte ranges of tars, cells of tables.

The bytes are those of the version that was listed. An object that has changed is an error of its item: listing and
reading may be hours apart, and a verdict must not be kept under another content's etag.
"""

from __future__ import annotations

import errno
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

from moderation import storage
from moderation.config.model import MediaConfig
from moderation.errors import ItemError, UsageError
from moderation.sources.cells import Cell, no_bytes, read_pictures, split_column
from moderation.sources.requests import is_inline, read_inline
from moderation.types import ErrorCode, Item, MediaObject

_Group = tuple[str, int, str, str | None]  # uri, row group, leaf, etag
_CAUGHT = (ItemError, storage.StorageError, storage.ChangedError, UsageError, OSError, ValueError)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# As in an S3 Inventory: an MD5, then the number of parts of a multipart upload.
_S3_ETAG = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")


class Fetcher:
    """Reads the items of one shard, by several threads at once."""

    def __init__(self, items: Sequence[Item], config: MediaConfig) -> None:
        self._max_bytes = config.max_bytes
        self._asked = _cells_by_group(items)
        self._cells_left = {group: set(cells) for group, cells in self._asked.items()}
        self._readers: dict[_Group, Iterator[tuple[Cell, bytes | ItemError]]] = {}
        self._waiting: dict[_Group, dict[Cell, bytes | ItemError]] = {group: {} for group in self._cells_left}
        self._lock = threading.Lock()

    def __call__(self, item: Item) -> list[bytes | ItemError]:
        """One payload per object, in order; an ItemError where one could not be read.

        Never raises for an item. Raises CredentialsError where storage does not know the caller, StoreDownError where
        it answers no request: otherwise the run would go on writing error rows of items that were not read.
        """
        if item.error is not None:
            return [ItemError(item.error, item.error_detail) for _ in item.objects]
        told = item.attributes if len(item.objects) == 1 and item.kind is None else {}
        return [_checked(self._fetch(o, _told_etag(o, told)), told.get("content_hash")) for o in item.objects]

    def _fetch(self, source: MediaObject, etag: str | None) -> bytes | ItemError:
        try:
            if is_inline(source):
                return self._limited(read_inline(source, self._max_bytes))
            if source.column is not None:
                return self._limited(self._cell(source))
            return self._limited(self._object(source, etag))
        except storage.CredentialsError:
            raise
        except _CAUGHT as error:
            return _as_item_error(error)

    def _object(self, source: MediaObject, etag: str | None) -> bytes:
        if source.size_bytes is not None and source.size_bytes > self._max_bytes:
            raise ItemError(ErrorCode.TOO_LARGE, f"{source.size_bytes} bytes, media.max_bytes is {self._max_bytes}")
        if source.offset is not None:
            data = storage.read_bytes(source.uri, offset=source.offset, length=source.size_bytes, etag=etag)
        else:
            # One byte past the limit shows that it is too large; the listed size may be unknown (a manifest).
            data = storage.read_typed(source.uri, self._max_bytes + 1, etag=etag)
        if source.size_bytes is not None and len(data) < source.size_bytes:
            # More may come where a store unpacks what it sends.
            raise ItemError(ErrorCode.CHANGED, f"{len(data)} bytes came, {source.size_bytes} were listed")
        return data

    def _cell(self, source: MediaObject) -> bytes | ItemError:
        group, cell = _locate(source)
        with self._lock:
            waiting = self._waiting[group]
            # Items come nearly in order; cells that another item's turn read on the way wait here.
            while cell not in waiting:
                try:
                    read, payload = next(self._pictures(group))
                    self._cells_left[group].discard(read)
                    waiting[read] = payload
                except storage.CredentialsError:
                    raise
                except StopIteration:
                    raise ItemError(ErrorCode.NOT_FOUND, f"row {source.row} was handed out before") from None
                except _CAUGHT as error:
                    # This ends the reader: all rows that were still to come get the error.
                    waiting.update(dict.fromkeys(self._cells_left[group], _as_item_error(error)))
            # A list may name a row twice: it is kept for the last who asks.
            self._asked[group][cell] -= 1
            payload = waiting[cell] if self._asked[group][cell] > 0 else waiting.pop(cell)
        if isinstance(payload, ItemError) and payload.code is ErrorCode.EMPTY:
            return ItemError(ErrorCode.EMPTY, no_bytes(source.name))
        return payload

    def _pictures(self, group: _Group) -> Iterator[tuple[Cell, bytes | ItemError]]:
        if group not in self._readers:
            uri, row_group, leaf, etag = group
            self._readers[group] = read_pictures(uri, row_group, leaf, frozenset(self._cells_left[group]), etag=etag)
        return self._readers[group]

    def _limited(self, payload: bytes | ItemError) -> bytes | ItemError:
        if isinstance(payload, bytes) and len(payload) > self._max_bytes:
            return ItemError(ErrorCode.TOO_LARGE, f"{len(payload)} bytes, media.max_bytes is {self._max_bytes}")
        return payload


def _locate(source: MediaObject) -> tuple[_Group, Cell]:
    assert source.row_group is not None and source.row is not None and source.column is not None
    leaf, nth = split_column(source.column)
    return (source.uri, source.row_group, leaf, source.etag), (source.row, nth)


def _cells_by_group(items: Sequence[Item]) -> dict[_Group, Counter[Cell]]:
    """The cells that a shard wants of each row group, and how often. A group is read once."""
    cells: dict[_Group, Counter[Cell]] = {}
    for item in items:
        for source in item.objects if item.error is None else ():
            if source.column is not None and source.row_group is not None and source.row is not None:
                group, cell = _locate(source)
                cells.setdefault(group, Counter())[cell] += 1
    return cells


def _told_etag(source: MediaObject, told: Mapping[str, str]) -> str | None:
    """The version of an object: as listed, or for an object in S3 as the manifest (an S3 Inventory) states it."""
    if source.etag is not None or storage.scheme_of(source.uri) not in ("s3", "s3a") or source.offset is not None:
        return source.etag
    etag = told.get("etag", "").strip('"').lower()
    return etag if _S3_ETAG.fullmatch(etag) else None


def _checked(payload: bytes | ItemError, told_sha256: str | None) -> bytes | ItemError:
    """The bytes, unless a manifest states another sha256."""
    told = (told_sha256 or "").lower()
    if not isinstance(payload, bytes) or not _SHA256.fullmatch(told) or sha256(payload).hexdigest() == told:
        return payload
    return ItemError(ErrorCode.CHANGED, "its content is not the one whose sha256 (content_hash) it came with")


def _as_item_error(error: Exception) -> ItemError:
    if isinstance(error, ItemError):
        return error
    detail = storage.mask_signatures(str(error))
    if isinstance(error, storage.NotRegularError):
        return ItemError(ErrorCode.UNSUPPORTED_TYPE, detail)
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | storage.BucketError):
        return ItemError(ErrorCode.NOT_FOUND, detail)
    if isinstance(error, PermissionError):
        return ItemError(ErrorCode.FORBIDDEN, detail)
    if isinstance(error, storage.ChangedError):
        return ItemError(ErrorCode.CHANGED, detail)
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return ItemError(ErrorCode.NOT_FOUND, detail)
    return ItemError(ErrorCode.FETCH_FAILED, detail)

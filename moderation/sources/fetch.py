"""Encoded bytes of an item's objects: whole objects, byte ranges of tars, cells of tables."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from moderation import storage
from moderation.config import MediaConfig
from moderation.errors import ItemError, UsageError
from moderation.sources.table import read_cells
from moderation.types import ErrorCode, Item, MediaObject

# Cells of a table are read this many at a time: each read opens the file anew, and its pages hold about as many.
_BLOCK = 64


class Fetcher:
    """Reads the items of one shard, by several threads at once."""

    def __init__(self, items: Sequence[Item], config: MediaConfig) -> None:
        self._max_bytes = config.max_bytes
        self._blocks = _plan_blocks(items)
        self._read: dict[MediaObject, bytes | ItemError] = {}
        self._lock = threading.Lock()

    def __call__(self, item: Item) -> list[bytes | ItemError]:
        """One payload an object, in order; an ItemError where one could not be read. Never raises for an item."""
        if item.error is not None:
            return [ItemError(item.error, item.error_detail) for _ in item.objects]
        return [self._fetch(o) for o in item.objects]

    def _fetch(self, source: MediaObject) -> bytes | ItemError:
        try:
            if source.column is not None:
                return self._limited(self._cell(source))
            return self._limited(self._object(source))
        except ItemError as error:
            return error
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            return ItemError(ErrorCode.NOT_FOUND, str(error))
        except PermissionError as error:
            return ItemError(ErrorCode.FORBIDDEN, str(error))
        except (storage.StorageError, UsageError, OSError, ValueError) as error:
            return ItemError(ErrorCode.FETCH_FAILED, str(error))

    def _object(self, source: MediaObject) -> bytes:
        if source.size_bytes is not None and source.size_bytes > self._max_bytes:
            raise ItemError(ErrorCode.TOO_LARGE, f"{source.size_bytes} bytes, media.max_bytes is {self._max_bytes}")
        if source.offset is not None:
            return storage.read_bytes(source.uri, offset=source.offset, length=source.size_bytes)
        if source.size_bytes is not None:
            return storage.read_bytes(source.uri)
        # Size unknown (a manifest row): one byte past the limit tells, without asking for the size first.
        return storage.read_bytes(source.uri, offset=0, length=self._max_bytes + 1)

    def _cell(self, source: MediaObject) -> bytes | ItemError:
        with self._lock:
            if source not in self._read:
                block = self._blocks[source]
                for cell, payload in zip(block, read_cells(source.uri, block), strict=True):
                    self._read[cell] = payload
            return self._read.pop(source)

    def _limited(self, payload: bytes | ItemError) -> bytes | ItemError:
        if isinstance(payload, bytes) and len(payload) > self._max_bytes:
            return ItemError(ErrorCode.TOO_LARGE, f"{len(payload)} bytes, media.max_bytes is {self._max_bytes}")
        return payload


def _plan_blocks(items: Sequence[Item]) -> dict[MediaObject, list[MediaObject]]:
    """Each cell of a table -> the neighbours that are read with it, at most `_BLOCK` of one file."""
    by_file: dict[str, list[MediaObject]] = {}
    for item in items:
        for source in item.objects if item.error is None else ():
            if source.column is not None:
                by_file.setdefault(source.uri, []).append(source)
    blocks: dict[MediaObject, list[MediaObject]] = {}
    for cells in by_file.values():
        for start in range(0, len(cells), _BLOCK):
            block = cells[start : start + _BLOCK]
            blocks.update(dict.fromkeys(block, block))
    return blocks

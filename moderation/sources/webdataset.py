"""WebDataset tars: members that share a key (the path up to the first dot of the name) are one item.

- One picture or video in a key: that is the item. Several pictures: an album. A video among several: one item each.
- `.json` beside it: attributes, flattened one level. `.txt` and `.cls`: an attribute of that name.
- A member that begins like a picture or a video, whatever its name: an item of its own where it is in no other.
- A key without a name of media: its first member that is no sidecar, by content; only sidecars: `not_media`.
- With `source.keyframes` the pictures of one folder are one item's keyframes, `frame` from the number in the name and
  `time_s` from a `.json` beside the picture; other `.json` in the folder, or of its name, give attributes.
- A fault of the archive is an error row of the tar itself, beside the items that could be indexed; the album or set of
  keyframes that it cuts is one, too.

A whole tar is indexed before its first item: in a tar that was not sorted, the members of a key lie apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources.items import error_item, make_id
from moderation.sources.keys import NAMED, READ_SIDECARS
from moderation.sources.listed import entry_error, gone_item, list_files
from moderation.sources.tar import read_members
from moderation.sources.tar_items import tar_items
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# Tars indexed at the same time, because indexing waits for storage. Their indexes are held in memory.
_AHEAD = 4


def webdataset_items(source: str, config: SourceConfig) -> Iterator[Item]:
    """The items of one or more tars, in the order of tars and members.

    Raises UsageError when the first tar is compressed (a later one is an error row), FileNotFoundError,
    PermissionError, StorageError.
    """
    waiting: deque[Future[list[Item]]] = deque()
    pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="tar-index")
    try:
        for info, first in list_files(source, SUFFIXES, config):
            index = _index if info.error is None else _index_nothing
            waiting.append(pool.submit(index, info, config, first))
            if first or len(waiting) == _AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _index_nothing(info: ObjectInfo, config: SourceConfig, first: bool) -> list[Item]:
    """The row of a tar that could not be listed."""
    del config, first
    return [entry_error(info)]


def _index(info: ObjectInfo, config: SourceConfig, first: bool) -> list[Item]:
    try:
        indexed = list(read_members(info, READ_SIDECARS, NAMED, config.max_grouped_bytes // _AHEAD))
    except UsageError as error:
        if first:
            raise
        return [error_item(make_id(info.uri), info.uri, ErrorCode.UNSUPPORTED_TYPE, str(error))]
    except (FileNotFoundError, PermissionError, storage.ChangedError) as error:
        if first and not isinstance(error, storage.ChangedError):
            raise
        return [gone_item(info.uri, error)]
    return tar_items(info, indexed, keyframes=config.keyframes)

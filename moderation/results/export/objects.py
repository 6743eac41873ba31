"""The objects of selected items, read again: as copies in a folder, or as a WebDataset.

Only judged content is exported: an object that cannot be read, or whose content differs from that of the verdict's row,
becomes a line of `errors.jsonl`. Untrusted names never become paths.

    TO/<verdict>/<item>.jpg  TO/manifest.jsonl    copies; an item of several objects has `<item>/000000.jpg`, ...
    TO/part-000000.tar                            a WebDataset: `<item>.jpg`, `<item>.json`; of several `<item>.0.jpg`
    TO/errors.jsonl                               what was left out, and why
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Final

from moderation import storage
from moderation.concurrency import map_ahead
from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.results.export.manifest import manifest_lines
from moderation.results.export.plain import json_line
from moderation.results.export.selection import SelectedRow
from moderation.results.layout import EXPORT_ERRORS_FILE, EXPORT_MANIFEST_FILE
from moderation.sources.content import content_hash
from moderation.sources.fetch import Fetcher
from moderation.sources.items import make_id
from moderation.sources.keys import PICTURES, VIDEOS
from moderation.types import ErrorCode, Item, MediaObject

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_THREADS: Final = 16
_TAR_BYTES: Final = 512 << 20  # of one tar of a WebDataset
_HELD_BYTES: Final = 256 << 20
# Suffix by the first bytes, where the name has none; readers go by the suffix.
_MAGIC: Final = (
    (b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"), (b"\x1aE\xdf\xa3", "mkv"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectsReport:
    """The outcome of an export of objects."""

    items: int
    left_out: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetched:
    """A row with the bytes of its objects, or why there are none."""

    row: SelectedRow
    payloads: tuple[bytes, ...] = ()
    error: ItemError | None = None

    @property
    def held_bytes(self) -> int:
        return sum(map(len, self.payloads))


def write_copies(rows: Iterator[Sequence[SelectedRow]], to: str, config: Config) -> ObjectsReport:
    """Copies of the objects below `to`, a folder per verdict, and a manifest of them."""
    items = size = 0
    with ExitStack() as stack:
        manifest = stack.enter_context(storage.open_output(storage.join(to, EXPORT_MANIFEST_FILE)))
        errors = _ErrorLines(stack.enter_context(storage.open_output(storage.join(to, EXPORT_ERRORS_FILE))))
        for fetched in errors.without(_fetch_all(rows, config)):
            names = _copy_names(fetched)
            for name, payload in zip(names, fetched.payloads, strict=True):
                storage.publish(storage.join(to, name), payload)
            for name, line in zip(names, _lines_of_copies(fetched.row), strict=True):
                manifest.write(json_line({**line, "uri": name, "original_uri": line["uri"]}))
            items += 1
            size += fetched.held_bytes
    return ObjectsReport(items=items, left_out=errors.count, size_bytes=size)


def write_webdataset(rows: Iterator[Sequence[SelectedRow]], to: str, config: Config) -> ObjectsReport:
    """Tars of about 512 MiB below `to`; one sample per item, with its row as JSON."""
    items = size = parts = 0
    with storage.open_output(storage.join(to, EXPORT_ERRORS_FILE)) as file:
        errors = _ErrorLines(file)
        samples = errors.without(_fetch_all(rows, config))
        following = next(samples, None)
        while following is not None:
            with storage.open_output(storage.join(to, f"part-{parts:06d}.tar")) as part:
                written, count, following = _write_samples(part, following, samples)
            parts += 1
            items += count
            size += written
    return ObjectsReport(items=items, left_out=errors.count, size_bytes=size)


class _ErrorLines:
    """`errors.jsonl`: what was left out, and why."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def without(self, fetched: Iterator[_Fetched]) -> Iterator[_Fetched]:
        """The items that can be exported; the others become lines of `errors.jsonl`."""
        for one in fetched:
            if one.error is None:
                yield one
                continue
            facts = {"item_id": one.row.item_id, "uri": one.row.cells["uri"]}
            line = {**facts, "error_code": str(one.error.code), "error_detail": one.error.detail}
            self._file.write(json_line(line))
            self.count += 1


def _write_samples(file: IO[bytes], first: _Fetched, samples: Iterator[_Fetched]) -> tuple[int, int, _Fetched | None]:
    """Write one tar until it is full; returns its bytes, its samples, and the sample for the next tar."""
    written = count = 0
    following: _Fetched | None = first
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        while following is not None and written < _TAR_BYTES:
            _add_sample(tar, following)
            count += 1
            written += following.held_bytes
            following = next(samples, None)
    return written, count, following


def _fetch_all(rows: Iterator[Sequence[SelectedRow]], config: Config) -> Iterator[_Fetched]:
    with ThreadPoolExecutor(_THREADS, "export") as pool:
        for part in rows:
            items = [_item_of(row) for row in part]
            fetcher = Fetcher(items, config.media)
            yield from map_ahead(
                partial(_fetch_one, fetcher),
                zip(part, items, strict=True),
                pool,
                max_ahead=2 * _THREADS,
                budget_bytes=_HELD_BYTES,
                expected_bytes=lambda pair: pair[1].size_bytes or (1 << 20),
                held_bytes=lambda fetched: fetched.held_bytes,
            )


def _item_of(row: SelectedRow) -> Item:
    """The item of a row; for a row in no plan, a copy of an earlier item, the object that its URI names."""
    if row.item is not None:
        return row.item
    uri = str(row.cells["uri"])
    media = MediaObject(uri=uri, name=uri.rpartition("/")[2], etag=row.cells["etag"])
    return Item(item_id=row.item_id, uri=uri, objects=(media,))


def _fetch_one(fetcher: Fetcher, pair: tuple[SelectedRow, Item]) -> _Fetched:
    row, item = pair
    payloads = fetcher(item)
    error = next((payload for payload in payloads if isinstance(payload, ItemError)), None)
    if not payloads:
        error = ItemError(item.error or ErrorCode.NOT_FOUND, item.error_detail)
    if error is not None:
        return _Fetched(row=row, error=error)
    read = tuple(payload for payload in payloads if isinstance(payload, bytes))
    judged = row.cells["content_hash"]
    if judged is not None and content_hash(read) != judged:
        return _Fetched(row=row, error=ItemError(ErrorCode.CHANGED, "its content is not the one that was judged"))
    return _Fetched(row=row, payloads=read)


def sample_key(item_id: str) -> str:
    """An item's name in a folder or a tar: its id where that is a plain name, else a hash of it."""
    return item_id if _PLAIN_ID.fullmatch(item_id) else make_id("export", item_id)


def _endings(fetched: _Fetched) -> list[str]:
    item = _item_of(fetched.row)
    return [_ending(media.name, payload) for media, payload in zip(item.objects, fetched.payloads, strict=True)]


def _ending(name: str, payload: bytes) -> str:
    """The suffix, `jpg`: from the name where that has a known one, else from the first bytes."""
    suffix = name.rpartition(".")[2].lower()
    if suffix in PICTURES | VIDEOS:
        return suffix
    if payload[4:8] == b"ftyp":
        return "mp4"
    return next((ending for magic, ending in _MAGIC if payload.startswith(magic)), "bin")


def _copy_names(fetched: _Fetched) -> list[str]:
    top = f"{fetched.row.cells['verdict'] or fetched.row.cells['status']}/{sample_key(fetched.row.item_id)}"
    endings = _endings(fetched)
    if len(endings) == 1:
        return [f"{top}.{endings[0]}"]
    return [f"{top}/{index:06d}.{ending}" for index, ending in enumerate(endings)]


def _lines_of_copies(row: SelectedRow) -> list[dict[str, Any]]:
    """Lines of the manifest, one per object; all objects of a packed item have its one line."""
    lines = list(manifest_lines(row))
    count = len(_item_of(row).objects)
    return lines if len(lines) == count else [{**lines[0], "group": row.item_id}] * count


def _add_sample(tar: tarfile.TarFile, fetched: _Fetched) -> None:
    key, cells = sample_key(fetched.row.item_id), fetched.row.cells
    endings = _endings(fetched)
    names = [f"{key}.{endings[0]}"] if len(endings) == 1 else [f"{key}.{i}.{e}" for i, e in enumerate(endings)]
    facts = {name: cells[name] for name in ("item_id", "uri", "kind", "verdict", "reason", "check", "score")}
    about = json_line({**fetched.row.attributes, **facts})
    for name, payload in (*zip(names, fetched.payloads, strict=True), (f"{key}.json", about)):
        member = tarfile.TarInfo(name)
        member.size = len(payload)
        tar.addfile(member, io.BytesIO(payload))

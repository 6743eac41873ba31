"""Manifests: rows that name objects, and perhaps which of them belong together.

- A row alone is an item; its id is `item_id`, else made from its canonical URI.
- Rows of one `group` are one album, wherever they stand. Its id is the rows' common `item_id`, else the group's name.
- Rows of one `item_id` with a `frame` or a `time_s` are one item's pre-cut keyframes.
- A repeated id (the same `item_id` or URI twice, and none of the above) keeps its row: the later item's id is
  `<id>~<hash of its URI>`, and the attribute `item_id` holds the id that the manifest gave.
- Any other column is an attribute, as text, nulls left out. Where rows of one item differ, it is a JSON list.
- A URI may name a part of a tar or a table as a run's own tables do: `x.tar#a/b.jpg`, `x.parquet#row=7`. A folder of
  keyframes in a tar is an item by itself, and in a group or beside other rows of its item an error row.
- A row that can't be used (no URI, not readable, outside of `source.allow`) is an error row, and so are the album or
  the keyframes that it belongs to, or may belong to (`lost_rows`): unseen content is never passed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources.allow import resolver
from moderation.sources.items import MAX_OBJECTS, UniqueIds, base_name, error_item, make_id
from moderation.sources.listed import entry_error, list_files
from moderation.sources.lost_rows import Numbered, has_parts, with_lost
from moderation.sources.packed import PackedItems, split_packed
from moderation.sources.row_attributes import common, merge_attributes, with_packed
from moderation.sources.rows import SUFFIXES, SourceRow, read_columns, read_rows
from moderation.types import ErrorCode, Item, Kind, MediaObject

_BATCH_ROWS = 8192
_HELD = pa.schema(
    [
        ("file", pa.int32()),
        ("key", pa.large_string()),
        ("line", pa.int64()),
        ("uri", pa.large_string()),
        ("item_id", pa.large_string()),
        ("group", pa.large_string()),
        ("frame", pa.int64()),
        ("time_s", pa.float64()),
        ("attributes", pa.large_string()),  # JSON
        ("error", pa.large_string()),
        ("detail", pa.large_string()),
    ]
)


def manifest_items(source: str, config: SourceConfig) -> Iterator[Item]:
    """The items of a manifest, or of several (a glob, a folder): streamed, unless rows have to be grouped.

    Raises UsageError for a manifest without the column `uri`, with `frame` or `time_s` but no `item_id`, of an
    unknown type, or with more rows than `max_manifest_rows`; FileNotFoundError, PermissionError, StorageError.
    """
    files: list[str] = []
    for info, _ in list_files(source, SUFFIXES, config):
        if info.error is None:
            files.append(info.uri)
        else:
            yield entry_error(info)
    grouped = False
    for uri in files:
        columns = read_columns(uri)
        cut = sorted(columns & {"frame", "time_s"})
        if cut and not columns & {"item_id", "group"}:
            raise UsageError(f"{uri}: the manifest has `{cut[0]}` but no column `item_id` that says of which item")
        grouped = grouped or bool(cut) or "group" in columns
    items = _ManifestItems(files, config)
    for rows in (_grouped_rows if grouped else _single_rows)(files, config):
        yield items.make(rows)


def _rows(files: list[str], config: SourceConfig) -> Iterator[Numbered]:
    count = total_bytes = 0
    for number, uri in enumerate(files):
        for row in read_rows(uri):
            count += 1
            total_bytes += _size_of(row)
            if count > config.max_manifest_rows:
                raise UsageError(f"{uri}: more than source.max_manifest_rows = {config.max_manifest_rows} rows")
            if total_bytes > config.max_manifest_bytes:
                raise UsageError(
                    f"{uri}: more than source.max_manifest_bytes = {config.max_manifest_bytes} in its rows"
                )
            yield number, row


def _size_of(row: SourceRow) -> int:
    """The approximate size of a row as text."""
    return 64 + len(row.uri) + sum(len(name) + len(value) for name, value in row.attributes.items())


def _single_rows(files: list[str], config: SourceConfig) -> Iterator[list[Numbered]]:
    return ([row] for row in _rows(files, config))


def _grouped_rows(files: list[str], config: SourceConfig) -> Iterator[list[Numbered]]:
    """The rows of each item, items in the order of their first rows; all rows are held, as one Arrow table."""
    table = pa.Table.from_batches(_held_batches(files, config), schema=_HELD).combine_chunks()
    if not table.num_rows:
        return
    # Codes follow the first appearance of keys, so a stable sort by code gives the order we want.
    codes = table["key"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    table = table.drop_columns(["key"])
    last, rows = -1, list[Numbered]()
    for start in range(0, len(order), _BATCH_ROWS):
        chunk = order[start : start + _BATCH_ROWS]
        for code, held in zip(codes[chunk], table.take(pa.array(chunk)).to_pylist(), strict=True):
            if code != last and rows:
                yield rows
                rows = []
            last = code
            if len(rows) <= MAX_OBJECTS:  # one more than allowed, so that it shows
                rows.append(_unpack(held))
    yield rows


def _held_batches(files: list[str], config: SourceConfig) -> Iterator[pa.RecordBatch]:
    columns: list[list[object]] = [[] for _ in _HELD]
    held_bytes = 0
    for number, row in with_lost(_rows(files, config)):
        held_bytes += _size_of(row)
        if held_bytes > config.max_grouped_bytes:
            limit = f"source.max_grouped_bytes = {config.max_grouped_bytes}"
            raise UsageError(f"{files[number]}: rows that have to be brought together take more than {limit}")
        packed = (
            number,
            _key(number, row),
            *row[:6],
            json.dumps(row.attributes) if row.attributes else None,
            row.error,
            row.detail or None,
        )
        for column, value in zip(columns, packed, strict=True):
            column.append(value)
        if len(columns[0]) == _BATCH_ROWS:
            yield pa.record_batch(columns, schema=_HELD)
            columns = [[] for _ in _HELD]
    yield pa.record_batch(columns, schema=_HELD)


def _key(number: int, row: SourceRow) -> str:
    if row.group is not None:
        return f"group\0{row.group}"
    if has_parts(row):
        return f"item\0{row.item_id}"
    return f"row\0{number}\0{row.line}"


def _unpack(held: dict[str, object]) -> Numbered:
    number = held.pop("file")
    assert isinstance(number, int)
    packed = held.pop("attributes")
    attributes = json.loads(packed) if isinstance(packed, str) else {}
    error = held.pop("error")
    detail = held.pop("detail") or ""
    code = ErrorCode(str(error)) if error is not None else None
    return number, SourceRow(**held, attributes=attributes, error=code, detail=detail)  # type: ignore[arg-type]  # from _HELD


class _ManifestItems:
    """Rows of one item -> the item. Remembers which ids are taken."""

    def __init__(self, files: list[str], config: SourceConfig) -> None:
        self._files = files
        self._resolvers = [resolver(uri, config.allow) for uri in files]
        self._packed = PackedItems(config)
        self._ids = UniqueIds()

    def make(self, numbered: list[Numbered]) -> Item:
        """The item of these rows: a group, keyframes of one item, or a single row."""
        rows = [row for _, row in numbered]
        try:
            if len(rows) > MAX_OBJECTS:
                detail = f"more than {MAX_OBJECTS} rows of one item"
                raise _RowError(ItemError(ErrorCode.TOO_LARGE, detail), rows[0].uri)
            parts = [self._part(number, row) for number, row in numbered]
            _refuse_keyframes(parts, rows)
        except _RowError as error:
            return self._error_item(numbered[0][0], rows, error)
        objects = [found for part in parts for found in part.objects]
        item_id, attributes = self._identify(numbered[0][0], rows, parts[0].item_id, parts[0].uri)
        kind = _kind_of(rows[0]) or parts[0].kind
        if kind is Kind.KEYFRAMES:
            objects.sort(key=_moment)
        # Only the plan keeps the signature of a signed address: only fetching needs it.
        shown = storage.mask_signatures(parts[0].uri)
        attributes = with_packed(attributes, [part.attributes for part in parts])
        return Item(item_id=item_id, uri=shown, objects=tuple(objects), kind=kind, attributes=attributes)

    def _part(self, number: int, row: SourceRow) -> Item:
        """What a row names, as an item: one object, or the item that a packed source would make of it."""
        try:
            if row.error is not None:
                raise ItemError(row.error, row.detail)
            packed = split_packed(row.uri)
            if packed is not None:
                return _with_moment(self._find_packed(number, *packed), row)
            uri = self._resolvers[number](row.uri)
        except ItemError as error:
            where = f"line {row.line} of {self._files[number]}"
            raise _RowError(ItemError(error.code, f"{where}: {error.detail}"), row.uri) from error
        # Sizes stay unknown: they are not worth a million requests before the first shard.
        source = MediaObject(uri=uri, name=base_name(uri), frame=row.frame, time_s=row.time_s)
        return Item(item_id=make_id(uri), uri=uri, objects=(source,))

    def _find_packed(self, number: int, container: str, inside: str) -> Item:
        """Raises ItemError, also where the container itself may not be read."""
        item = self._packed.find(self._resolvers[number](container), inside)
        if item.error is not None:
            raise ItemError(item.error, item.error_detail)
        return item

    def _error_item(self, number: int, rows: list[SourceRow], error: _RowError) -> Item:
        manifest, line = self._files[number], rows[0].line
        written = storage.without_password(error.written)
        item_id, attributes = self._identify(number, rows, make_id(manifest, "line", line), written)
        where = written or f"{manifest}#line={line}"
        return error_item(item_id, where, error.reason.code, error.reason.detail, attributes)

    def _identify(self, number: int, rows: list[SourceRow], own_id: str, uri: str) -> tuple[str, dict[str, str]]:
        """The item's id, unique in the source, and its attributes. own_id: used where the manifest gives none."""
        given = common([row.item_id for row in rows]) or rows[0].group
        item_id = self._ids.claim(given or own_id, uri, (self._files[number], rows[0].line))
        attributes = merge_attributes(rows)
        if given and item_id != given:
            attributes["item_id"] = given
        return item_id, attributes


class _RowError(Exception):
    """Why rows make no item. written: the URI as the row has it."""

    def __init__(self, reason: ItemError, written: str) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.written = written


def _refuse_keyframes(parts: list[Item], rows: list[SourceRow]) -> None:
    """Raises _RowError where one of several parts, or of a group, is a set of keyframes.

    What was not seen of its video, and the gaps between its pictures, are of that set alone.
    """
    is_alone = len(parts) == 1 and rows[0].group is None
    for part in parts:
        if part.kind is Kind.KEYFRAMES and not is_alone:
            detail = "a set of keyframes is an item by itself, and no part of another"
            raise _RowError(ItemError(ErrorCode.UNSUPPORTED_TYPE, detail), part.uri)


def _with_moment(part: Item, row: SourceRow) -> Item:
    """A part of a container with the frame and the time that its row states; keyframes have their own."""
    if part.kind is Kind.KEYFRAMES or (row.frame is None and row.time_s is None):
        return part
    return replace(part, objects=tuple(replace(o, frame=row.frame, time_s=row.time_s) for o in part.objects))


def _kind_of(first: SourceRow) -> Kind | None:
    if first.group is not None:
        return Kind.ALBUM
    return Kind.KEYFRAMES if has_parts(first) else None


def _moment(picture: MediaObject) -> tuple[float, float]:
    late = float("inf")
    return (
        late if picture.frame is None else float(picture.frame),
        late if picture.time_s is None else picture.time_s,
    )

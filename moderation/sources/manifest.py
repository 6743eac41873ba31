"""Manifests: rows that name objects, and perhaps which of them belong together.

- A row alone is an item; its id is `item_id`, else made from its canonical URI.
- Rows of one `group` are one album, wherever they stand. Its id is the rows' common `item_id`, else the group's name.
- Rows of one `item_id` with a `frame` or a `time_s` are one item's pre-cut keyframes.
- An id that comes again (the same `item_id` or URI twice, and none of the above) keeps its row: the later item's id
  is `<id>~<hash of its URI>`, and the attribute `item_id` tells the id that the manifest gave.
- Any other column is an attribute, as text, nulls left out. Where rows of one item differ, it is a JSON list.
- A row that can't be used (no URI, not readable, outside of `source.allow`) is an error row, and so is the album or
  the keyframes that it belongs to: what was not seen is never passed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources.allow import resolver
from moderation.sources.items import MAX_OBJECTS, UniqueIds, base_name, error_item, list_files, make_id
from moderation.sources.rows import SUFFIXES, SourceRow, read_columns, read_rows
from moderation.types import ErrorCode, Item, Kind, MediaObject

_BATCH = 8192
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

Numbered = tuple[int, SourceRow]  # with the number of its manifest


def manifest_items(source: str, config: SourceConfig) -> Iterator[Item]:
    """The items of a manifest, or of several (a glob, a folder): streamed, unless rows have to be brought together.

    Raises UsageError for a manifest without the column `uri`, with `frame` or `time_s` but no `item_id`, of an
    unknown type, or with more rows than `max_manifest_rows`; FileNotFoundError, PermissionError, StorageError.
    """
    files = [info.uri for info, _ in list_files(source, SUFFIXES)]
    grouped = False
    for uri in files:
        columns = read_columns(uri)
        cut = sorted(columns & {"frame", "time_s"})
        if cut and not columns & {"item_id", "group"}:
            raise UsageError(f"{uri}: the manifest has `{cut[0]}` but no column `item_id` that says of which item")
        grouped = grouped or bool(cut) or "group" in columns
    resolvers = [resolver(uri, config.allow) for uri in files]
    ids = UniqueIds()
    for rows in (_together if grouped else _apart)(files, config):
        yield _item(rows, files, resolvers, ids)


def _rows(files: list[str], config: SourceConfig) -> Iterator[Numbered]:
    count = 0
    for number, uri in enumerate(files):
        for row in read_rows(uri):
            count += 1
            if count > config.max_manifest_rows:
                raise UsageError(f"{uri}: more than source.max_manifest_rows = {config.max_manifest_rows} rows")
            yield number, row


def _apart(files: list[str], config: SourceConfig) -> Iterator[list[Numbered]]:
    return ([row] for row in _rows(files, config))


def _together(files: list[str], config: SourceConfig) -> Iterator[list[Numbered]]:
    """The rows of each item, items in the order of their first rows; all rows are held, as one Arrow table."""
    table = pa.Table.from_batches(_held_batches(files, config), schema=_HELD).combine_chunks()
    if not table.num_rows:
        return
    # Codes are given in the order in which keys first appear, so a stable sort by code is the order we want.
    codes = table["key"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    table = table.drop_columns(["key"])
    last, rows = -1, list[Numbered]()
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        for code, held in zip(codes[part], table.take(pa.array(part)).to_pylist(), strict=True):
            if code != last and rows:
                yield rows
                rows = []
            last = code
            if len(rows) <= MAX_OBJECTS:  # one more than allowed, so that it shows
                rows.append(_unpack(held))
    yield rows


def _held_batches(files: list[str], config: SourceConfig) -> Iterator[pa.RecordBatch]:
    columns: list[list[object]] = [[] for _ in _HELD]
    for number, row in _rows(files, config):
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
        if len(columns[0]) == _BATCH:
            yield pa.record_batch(columns, schema=_HELD)
            columns = [[] for _ in _HELD]
    yield pa.record_batch(columns, schema=_HELD)


def _key(number: int, row: SourceRow) -> str:
    if row.group is not None:
        return f"group\0{row.group}"
    if row.item_id is not None and (row.frame is not None or row.time_s is not None):
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


def _item(numbered: list[Numbered], files: list[str], resolvers: list[Callable[[str], str]], ids: UniqueIds) -> Item:
    """One item of its rows (all of one group, or keyframes of one item, or a single one)."""
    objects: list[MediaObject] = []
    rows = [row for _, row in numbered]
    failed: tuple[ErrorCode, str, str] | None = None  # code, what, the URI as written
    if len(rows) > MAX_OBJECTS:
        failed = ErrorCode.TOO_LARGE, f"more than {MAX_OBJECTS} rows of one item", rows[0].uri
    for number, row in numbered if failed is None else ():
        try:
            objects.append(_object(row, resolvers[number]))
        except ItemError as error:
            failed = error.code, f"line {row.line} of {files[number]}: {error.detail}", row.uri
            break
    manifest = files[numbered[0][0]]
    explicit = _common([row.item_id for row in rows])
    given = explicit or rows[0].group
    attributes = _attributes(rows)
    if failed is not None:
        code, detail, written = failed[0], failed[1], storage.without_password(failed[2])
        wanted = given or make_id(manifest, "line", rows[0].line)
        item_id = ids.claim(wanted, written, (manifest, rows[0].line))
        if given and item_id != given:
            attributes["item_id"] = given
        return error_item(item_id, written or f"{manifest}#line={rows[0].line}", code, detail, attributes)
    item_id = ids.claim(given or make_id(objects[0].uri), objects[0].uri, (manifest, rows[0].line))
    if given and item_id != given:
        attributes["item_id"] = given
    kind = None
    if rows[0].group is not None:
        kind = Kind.ALBUM
    elif rows[0].item_id is not None and (rows[0].frame is not None or rows[0].time_s is not None):
        kind = Kind.KEYFRAMES
        objects.sort(key=_moment)
    return Item(item_id=item_id, uri=objects[0].uri, objects=tuple(objects), kind=kind, attributes=attributes)


def _object(row: SourceRow, resolve: Callable[[str], str]) -> MediaObject:
    if row.error is not None:
        raise ItemError(row.error, row.detail)
    uri = resolve(row.uri)
    # Sizes stay unknown: a million requests before the first shard would cost more than they tell.
    return MediaObject(uri=uri, name=base_name(uri), frame=row.frame, time_s=row.time_s)


def _moment(picture: MediaObject) -> tuple[float, float]:
    late = float("inf")
    return (
        late if picture.frame is None else float(picture.frame),
        late if picture.time_s is None else picture.time_s,
    )


def _attributes(rows: list[SourceRow]) -> dict[str, str]:
    if len(rows) == 1:
        merged = dict(rows[0].attributes)
    else:
        names = dict.fromkeys(name for row in rows for name in row.attributes)
        merged = {name: _merge([row.attributes.get(name) for row in rows]) for name in names}
        if rows[0].group is not None and _common([row.item_id for row in rows]) is None:
            named = [row.item_id for row in rows]
            if any(named):
                merged["item_id"] = _merge(named)
    if rows[0].group is not None:
        merged["group"] = rows[0].group
    return merged


def _merge(values: list[str | None]) -> str:
    first = values[0]
    return first if first is not None and all(v == first for v in values) else json.dumps(values, ensure_ascii=False)


def _common(values: list[str | None]) -> str | None:
    return values[0] if len(set(values)) == 1 else None

"""The changed verdicts of a sweep as rows to act on: the objects of older runs, with the verdict that holds now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from moderation import storage
from moderation.actions.rows import JudgedRow
from moderation.config.canonical import parse_json
from moderation.errors import UsageError
from moderation.results.sweep_layout import changes_folder, sweep_uri
from moderation.results.tables import decode_table
from moderation.types import MediaObject

_NEEDED: Final = ("item_id", "uri", "run", "new_verdict", "new_reason", "etag", "content_hash")


def read_sweep_id(home: str) -> str | None:
    """The id of the sweep in a folder; None where there is none. Raises UsageError where it has not ended."""
    data = storage.read_optional(sweep_uri(home))
    if data is None:
        return None
    try:
        record: Any = parse_json(data)
        sweep_id, state = str(record["sweep_id"]), str(record["state"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{sweep_uri(home)}: not readable as that of a sweep") from error
    if state != "done":
        raise UsageError(f"{home}: the sweep there has not ended; the same command of `moderation sweep` goes on")
    return sweep_id


def read_swept_rows(home: str, sweep_id: str) -> Iterator[list[JudgedRow]]:
    """Rows of a sweep, part by part. Their run is the sweep, so that one undo takes all of them back.

    Raises UsageError where a part is damaged, StorageError.
    """
    folder = changes_folder(home)
    for name in sorted(storage.list_names(folder)):
        uri = storage.join(folder, name)
        table = decode_table(storage.read_bytes(uri), "arrow", where=uri)
        missing = [column for column in _NEEDED if column not in table.column_names]
        if missing:
            raise UsageError(f"{uri}: has no column {missing[0]}")
        yield [_swept_row(sweep_id, cells) for cells in table.select(_NEEDED).to_pylist()]


def _swept_row(sweep_id: str, cells: Mapping[str, Any]) -> JudgedRow:
    uri, reason = str(cells["uri"]), str(cells["new_reason"] or "")
    kind, _, rest = reason.partition(":")
    return JudgedRow(
        run_id=sweep_id,
        item_id=str(cells["item_id"]),
        uri=uri,
        verdict=cells["new_verdict"],
        reason=reason,
        check=rest.partition(":")[0] if kind in ("negative", "positive", "context", "null") else None,
        label=None,
        severity=None,
        score=None,
        kind=None,
        content_hash=cells["content_hash"],
        size_bytes=None,
        objects=(MediaObject(uri=uri, name=uri.rpartition("/")[2], etag=cells["etag"]),),
        is_packed=False,
    )

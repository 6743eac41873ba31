"""Lists of known pictures: built from what other tools share, and held against the hashes that a run kept.

A new list needs no picture and no GPU where the run had the detector `pdq`: its votes keep every frame's hash. This is
also where both shares of a video are known, which no single frame can tell:

    OUT/known.parquet   item_id, label, group, distance (of the nearest frame), frames_matched, frames, share_of_item,
                        listed_matched, listed, share_of_listed
"""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moderation import storage
from moderation.concurrency import map_ahead
from moderation.detectors.base import Weights
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError
from moderation.hashes.exchange import MAX_JSON, read_exchange
from moderation.hashes.lists import MAX_FILE_BYTES, HashList, KnownPicture, encode_list, read_list
from moderation.hashes.search import I64
from moderation.results.frame_hashes import Hashed, read_hashes, read_run_format
from moderation.results.receipts import committed_ids, part_name

_READERS = 4
_PIECE_BYTES = 4 << 20  # of a list: one request each
_BUDGET_BYTES = 128 << 20  # of parts read ahead

KNOWN_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("distance", pa.int16()),
        ("frames_matched", pa.int32()),
        ("frames", pa.int32()),
        ("share_of_item", pa.float32()),
        ("listed_matched", pa.int32()),
        ("listed", pa.int32()),
        ("share_of_listed", pa.float32()),
    ],
    metadata={"moderation.table": "known", "moderation.schema_version": "1"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A list that was written. sha256: what a configuration names it with."""

    uri: str
    sha256: str
    entries: int
    labels: tuple[str, ...]
    skipped: int  # records of another type than PDQ
    repeated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """What a list found in a run."""

    uri: str
    items: int
    items_matched: int
    rows: int
    without_hash: int  # frames whose hash says nothing, or is not there


def build_list(lists: Sequence[str], out: str, *, exchange: str = "csv", label: str = "known") -> Built:
    """Read lists and write them as one file, which must not be one of them.

    exchange: their form, see `hashes.exchange`. label: of entries that bring none. Raises UsageError naming bad lines.
    """
    if not label or not label.isprintable():
        raise UsageError(f"--label {label!r}: must be one printable word or more")
    if storage.canonical(out) in {storage.canonical(uri) for uri in lists}:
        raise UsageError(f"--out {out}: is one of the lists that are read")
    entries: list[KnownPicture] = []
    skipped = 0
    for uri in lists:
        found = read_exchange(_lines(uri), exchange, name=Path(uri).name, label=label)
        entries += found.entries
        skipped += found.skipped
    data, count = encode_list(entries)
    storage.publish(out, data)
    return Built(
        uri=storage.canonical(out),
        sha256=hashlib.sha256(data).hexdigest(),
        entries=count,
        labels=tuple(sorted({known.label for known in entries})),
        skipped=skipped,
        repeated=len(entries) - count,
    )


def _lines(uri: str) -> Iterator[str]:
    try:
        size = storage.info(uri).size_bytes
    except FileNotFoundError as error:
        raise UsageError(f"{uri}: no such list") from error
    if size > MAX_FILE_BYTES:
        raise UsageError(f"{uri}: {size:,} bytes; a list has at most {MAX_FILE_BYTES:,}")
    decoder = codecs.getincrementaldecoder("utf-8")()
    pending = ""
    try:
        with storage.open_input(uri) as file:
            while data := file.read(_PIECE_BYTES):
                *lines, pending = (pending + decoder.decode(data)).split("\n")
                yield from (f"{line}\n" for line in lines)
                if len(pending) > MAX_JSON:
                    raise UsageError(f"{uri}: a line of over {MAX_JSON:,} characters")
        yield pending + decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UsageError(f"{uri}: not text in UTF-8: {error}") from error


def match_run(out: str, uri: str, sha256: str, *, distance: int = 31, quality: int = 50) -> Matched:
    """Hold the hashes that a run kept against a list; writes OUT/known.parquet whole, a row an item and group.

    uri, sha256: the list, as a configuration names it. A listed picture without a group is a group of its own, named by
    its hash. Frames and entries of a lower quality (0..100) count in no share. Raises UsageError where there is nothing
    to hold against it.
    """
    locator = uri if "://" in uri else f"file://{Path(uri).absolute()}"
    weights = Weights(locator=locator, sha256=sha256, licence="the list's own", origin="`moderation hashes build`")
    known = read_list(resolve(weights), quality=quality)
    groups = _Groups(known)
    format_ = read_run_format(out)
    ids = sorted(committed_ids(out))
    if not ids:
        raise UsageError(f"{out}: no shard is committed there")
    tables, items, without = [KNOWN_SCHEMA.empty_table()], 0, 0
    with ThreadPoolExecutor(_READERS) as pool:
        parts = map_ahead(
            lambda shard_id: read_hashes(storage.join(out, "votes", part_name(shard_id, format_)), format_),
            ids,
            pool,
            most=2 * _READERS,
            budget_bytes=_BUDGET_BYTES,
            expected_bytes=lambda _: 1 << 20,
            held_bytes=lambda part: int(part.hashes.nbytes),
        )
        for part in parts:
            usable = part.quality >= quality
            items += len(part.items)
            without += int((~usable).sum())
            tables.append(_match_part(part, known, groups, usable, distance))
    table = pa.concat_tables(tables)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    target = storage.join(out, "known.parquet")
    storage.publish(target, sink.getvalue())
    return Matched(
        uri=target,
        items=items,
        items_matched=len(table["item_id"].unique()),
        rows=table.num_rows,
        without_hash=without,
    )


class _Groups:
    """Groups of a list with their sizes; pictures by themselves come after the videos, each its own."""

    def __init__(self, known: HashList) -> None:
        self.known = known
        alone = np.flatnonzero(known.group < 0)
        self.of_entry: I64 = known.group.astype(np.int64)
        self.of_entry[alone] = len(known.groups) + np.arange(len(alone))
        self.sizes = np.bincount(self.of_entry)
        self._alone = alone

    def name(self, group: int) -> str:
        if group < len(self.known.groups):
            return self.known.groups[group]
        alone: bytes = self.known.hashes[self._alone[group - len(self.known.groups)]].tobytes()
        return alone.hex()


def _match_part(part: Hashed, known: HashList, groups: _Groups, usable: np.ndarray, distance: int) -> pa.Table:
    rows = np.flatnonzero(usable)
    frames_of_item = np.bincount(part.item[rows], minlength=len(part.items))
    matches = known.index.pairs(part.hashes[rows], distance)
    frame, item = rows[matches.query], part.item[rows][matches.query]
    group = groups.of_entry[matches.entry]
    cells: dict[str, list[object]] = {field.name: [] for field in KNOWN_SCHEMA}
    order = np.lexsort((matches.entry, frame, group, item))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1) | np.diff(item[order], prepend=-1))
    for here in np.split(order, starts[1:]) if len(order) else ():
        its_item, its_group = int(item[here[0]]), int(group[here[0]])
        nearest = here[np.argmin(matches.distance[here])]
        matched, listed = len(np.unique(frame[here])), len(np.unique(matches.entry[here]))
        row = {
            "item_id": part.items[its_item],
            "label": known.labels[known.label[matches.entry[nearest]]],
            "group": groups.name(its_group),
            "distance": int(matches.distance[nearest]),
            "frames_matched": matched,
            "frames": int(frames_of_item[its_item]),
            "share_of_item": matched / int(frames_of_item[its_item]),
            "listed_matched": listed,
            "listed": int(groups.sizes[its_group]),
            "share_of_listed": listed / int(groups.sizes[its_group]),
        }
        for name, value in row.items():
            cells[name].append(value)
    return pa.table([pa.array(cells[f.name], f.type) for f in KNOWN_SCHEMA], schema=KNOWN_SCHEMA)

"""Lists of known pictures: built from files of other tools, and matched with the hashes that a run kept.

A new list needs no picture and no GPU where the run had the detector `pdq`: its votes keep every frame's hash. Only
here, over all frames of a video, are both of its shares known:

    OUT/known.parquet   item_id, label, group, distance (of the nearest frame), frames_matched, frames, share_of_item,
                        listed_matched, listed, share_of_listed, copy (videos by the rule of `hashes.films`), and the
                        longest matching stretch in seconds: start_s, end_s; listed_start_s, listed_end_s
"""

from __future__ import annotations

import codecs
import hashlib
import io
import re
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
from moderation.hashes.films import FilmFrames, FilmMatch, FoundFrames, film_of, further, match_frames
from moderation.hashes.lists import MAX_FILE_BYTES, HashList, KnownPicture, encode_list, read_list
from moderation.hashes.search import I64
from moderation.results.frame_hashes import Hashed, read_hashes
from moderation.results.layout import known_uri
from moderation.results.reader import READERS, open_run

_AT = re.compile(r".* at ([0-9]{1,9}(?:\.[0-9]{1,9})?) s")
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
        ("copy", pa.bool_()),  # null: a picture and a video, of which a hash tells too little
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("listed_start_s", pa.float64()),
        ("listed_end_s", pa.float64()),
    ],
    metadata={"moderation.table": "known", "moderation.schema_version": "1"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A list that was written. sha256: for the configuration that names it."""

    uri: str
    sha256: str
    entries: int
    labels: tuple[str, ...]
    skipped: int  # records of another type than PDQ
    repeated: int
    is_illegal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """The matches of a list in a run."""

    uri: str
    items: int
    items_matched: int
    rows: int
    without_hash: int  # frames without a hash or with one of low quality


def build_list(
    lists: Sequence[str], out: str, *, exchange: str = "csv", label: str = "known", is_illegal: bool = False
) -> Built:
    """Read lists and write them as one file, which must not be one of them.

    exchange: their form, see `hashes.exchange`. label: of entries without one. is_illegal: matches are
    escalated and never shown; so they are where an entry says `bank: illegal`. Raises UsageError naming bad lines.
    """
    if not label or not label.isprintable():
        raise UsageError(f"--label {label!r}: must be one printable word or more")
    if storage.canonical(out) in {storage.canonical(uri) for uri in lists}:
        raise UsageError(f"--out {out}: is one of the lists that are read")
    entries: list[KnownPicture] = []
    skipped = 0
    for uri in lists:
        exchanged = read_exchange(_lines(uri), exchange, name=Path(uri).name, label=label)
        entries += exchanged.entries
        skipped += exchanged.skipped
        is_illegal = is_illegal or exchanged.is_illegal
    data, count = encode_list(entries, is_illegal=is_illegal)
    storage.publish(out, data)
    return Built(
        uri=storage.canonical(out),
        sha256=hashlib.sha256(data).hexdigest(),
        entries=count,
        labels=tuple(sorted({known.label for known in entries})),
        skipped=skipped,
        repeated=len(entries) - count,
        is_illegal=is_illegal,
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
    """Match the hashes that a run kept with a list; writes OUT/known.parquet whole, one row per item and group.

    uri, sha256: the list, as a configuration names it. A listed picture without a group is a group of its own, named by
    its hash. Frames and entries below `quality` (0..100) count in no share. Raises UsageError where the run has nothing
    to match.
    """
    locator = uri if "://" in uri else f"file://{Path(uri).absolute()}"
    weights = Weights(locator=locator, sha256=sha256, licence="the list's own", origin="`moderation hashes build`")
    hash_list = read_list(resolve(weights), quality=quality)
    if hash_list.is_illegal:
        raise UsageError(
            f"{uri}: an illegal list; its matches are found by the detector `known` when items are judged, and what"
            " an earlier run keeps of them would stay: judge the source again into a new OUT (docs/illegal.md)"
        )
    groups = _Groups(hash_list)
    run = open_run(out)
    tables, items, without = [KNOWN_SCHEMA.empty_table()], 0, 0
    with ThreadPoolExecutor(READERS) as pool:
        parts = map_ahead(
            lambda shard_id: read_hashes(out, shard_id, run.format),
            run.shard_ids,
            pool,
            max_ahead=2 * READERS,
            budget_bytes=_BUDGET_BYTES,
            expected_bytes=lambda _: 1 << 20,
            held_bytes=lambda part: int(part.frames.hashes.nbytes + part.frames.parts.nbytes),
        )
        for part in parts:
            usable = part.frames.quality >= quality
            items += len(part.items)
            without += int((~usable).sum())
            tables.append(_match_part(part, groups, usable, distance))
    table = pa.concat_tables(tables)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    target = known_uri(out)
    storage.publish(target, sink.getvalue())
    return Matched(
        uri=target,
        items=items,
        items_matched=len(table["item_id"].unique()),
        rows=table.num_rows,
        without_hash=without,
    )


class _Groups:
    """Groups of a list with their sizes: first the videos, then pictures without a group, each as one of its own."""

    def __init__(self, hash_list: HashList) -> None:
        self.hash_list = hash_list
        alone = np.flatnonzero(hash_list.group < 0)
        self.of_entry: I64 = hash_list.group.astype(np.int64)
        self.of_entry[alone] = len(hash_list.groups) + np.arange(len(alone))
        self._alone = alone
        self._order = np.argsort(self.of_entry, kind="stable")
        self._ends = np.cumsum(np.bincount(self.of_entry))
        self._films: dict[int, FilmFrames] = {}
        self._rows: dict[int, I64] = {}

    def rows(self, group: int) -> I64:
        """The entries of a group, in the order of time where their names tell it (`12 at 3.5 s`)."""
        self.film(group)
        return self._rows[group]

    def film(self, group: int) -> FilmFrames:
        """The frames of a group; made when it first matches."""
        if group not in self._films:
            rows = self._order[self._ends[group - 1] if group else 0 : self._ends[group]]
            names = self.hash_list.entries.take(pa.array(rows)).to_pylist() if len(rows) > 1 else [None] * len(rows)
            times_s = np.array([_second_of(name) for name in names])
            order = np.argsort(times_s, kind="stable")
            self._rows[group] = rows[order]
            self._films[group] = film_of(self.hash_list.hashes[rows[order]], times_s[order])
        return self._films[group]

    def name(self, group: int) -> str:
        """A group's name in the list; for a picture without a group its hash."""
        videos = len(self.hash_list.groups)
        if group < videos:
            return self.hash_list.groups[group]
        alone: bytes = self.hash_list.hashes[self._alone[group - videos]].tobytes()
        return alone.hex()


def _second_of(name: str | None) -> float:
    """The time in the name of a listed frame, as `hashes.exchange` writes it; NaN where there is none."""
    told = _AT.fullmatch(name) if name is not None else None
    return float(told.group(1)) if told else float("nan")


def _match_part(part: Hashed, groups: _Groups, usable: np.ndarray, distance: int) -> pa.Table:
    """A row of KNOWN_SCHEMA for each item and group that match. usable: bool [F], frames with a hash good enough."""
    hash_list = groups.hash_list
    rows = np.flatnonzero(usable)
    item_of_row = part.item[rows]
    framed = rows[part.frames.parts.inner[rows].any(axis=1)]
    asked = np.append(rows, framed)  # with bars, and without
    queries = np.concatenate([part.frames.hashes[rows], part.frames.parts.inner[framed]])
    matches = hash_list.index.pairs(queries, further(distance))
    frame, item = asked[matches.query], part.item[asked[matches.query]]
    group = groups.of_entry[matches.entry]
    order = np.lexsort((matches.entry, frame, group, item))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1) | np.diff(item[order], prepend=-1))
    matched: list[dict[str, object]] = []
    for of_pair in np.split(order, starts[1:]) if len(order) else ():
        item_index, group_index = int(item[of_pair[0]]), int(group[of_pair[0]])
        nearest = of_pair[np.argmin(matches.distance[of_pair])]
        if matches.distance[nearest] > distance:
            continue
        near = of_pair[matches.distance[of_pair] <= distance]
        own = rows[item_of_row == item_index]
        film = film_of(part.frames.hashes[own], part.time_s[own])
        listed = groups.film(group_index)
        entries = groups.rows(group_index)
        ours = FoundFrames(near=np.isin(own, frame[near]), far=np.isin(own, frame[of_pair]))
        theirs = FoundFrames(near=np.isin(entries, matches.entry[near]), far=np.isin(entries, matches.entry[of_pair]))
        match = match_frames(film, ours, listed, theirs)
        matched.append(
            {
                "item_id": part.items[item_index],
                "label": hash_list.labels[hash_list.label[matches.entry[nearest]]],
                "group": groups.name(group_index),
                "distance": int(matches.distance[nearest]),
                "frames_matched": int(ours.near.sum()),
                "frames": len(film),
                "share_of_item": match.share_left,
                "listed_matched": int(theirs.near.sum()),
                "listed": len(listed),
                "share_of_listed": match.share_right,
                "copy": _is_copy(len(film), len(listed), match),
                **_times(match),
            }
        )
    return pa.Table.from_pylist(matched, schema=KNOWN_SCHEMA)


def _is_copy(frames: int, listed: int, match: FilmMatch) -> bool | None:
    """Pictures are copies, as they are near; videos by their rule; of a picture and a video nothing is said."""
    if frames == listed == 1:
        return True
    return match.is_copy if frames > 1 and listed > 1 else None


def _times(match: FilmMatch) -> dict[str, float | None]:
    seconds = (*match.segment_left_s, *match.segment_right_s)
    names = ("start_s", "end_s", "listed_start_s", "listed_end_s")
    return {name: None if np.isnan(s) else s for name, s in zip(names, seconds, strict=True)}

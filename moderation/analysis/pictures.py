"""The items among which duplicates are searched, of a run and of earlier ones: about 170 bytes each, in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moderation import storage
from moderation.analysis.picture_films import NO_FILMS, FilmHashes, concatenate_films, read_films
from moderation.concurrency import map_ahead
from moderation.errors import UsageError
from moderation.hashes.search import HASH_BYTES, I16, I64, U64
from moderation.ledger.rows import newest_by_key, table_keys
from moderation.ledger.store import open_log, read_file
from moderation.results.frame_hashes import HASH_COLUMNS, NO_QUALITY, FrameHashes, frame_hashes, no_hashes, own_frames
from moderation.results.intact import PartMissingError, read_intact
from moderation.results.joined import read_joined
from moderation.results.layout import VERDICTS
from moderation.results.reader import AHEAD_BYTES, READERS, open_run
from moderation.results.votes import adjacent_runs
from moderation.types import U8, Status

_VERDICTS = ["item_id", "kind", "verdict", "status", "width", "height", "size_bytes", "content_hash"]
_OF_PART = ["item_id", "run_out", "part", "format", "verdict", "size_bytes", "content_hash"]
_LEDGER = ("key", "status", "deleted_at", *_OF_PART)
_NO_CONTENT = "0" * 32
# 2.4 million items with 1,280 numbers, or 40 million frames of videos; hashes of pictures have no such bound.
_MAX_HELD_BYTES = 6 << 30

F16 = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Items in columns, N each.

    items: item_id, run_out (null: this run), verdict. pixels, size_bytes: int64, 0 where unknown. content: uint64
    [N,2], the first half of the sha256; 0, 0 where unknown. hashes: uint8 [N,32]; inner: uint8 [N,32], of the picture
    within bars, 0 where there are none; quality: int16, -1 for an item that is not compared by hash: no hash, an error,
    or more than one frame. embeddings: float16 [N,D] or None; NaN in rows without one. films: the frames of items that
    move. unread: earlier items whose parts are gone.
    """

    items: pa.Table
    pixels: npt.NDArray[np.int64]
    size_bytes: npt.NDArray[np.int64]
    content: U64
    hashes: U8
    inner: U8
    quality: I16
    embeddings: F16 | None = None
    films: FilmHashes = NO_FILMS
    unread: int = 0

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def nbytes(self) -> int:
        """The size of the hashes and embeddings."""
        embedded = 0 if self.embeddings is None else int(self.embeddings.nbytes)
        return int(self.hashes.nbytes + self.inner.nbytes) + self.films.nbytes + embedded


def read_pictures(out: str, *, ledger: str | None = None, embedding: str | None = None) -> Pictures:
    """The items of a finished run, and (with `ledger`) the current ones of earlier runs.

    embedding: the detector whose kept embeddings are read. Earlier items whose parts are gone are compared by content
    alone. Raises UsageError when there is no run, or it kept no such embeddings.
    """
    run = open_run(out)
    own = [_Source(run_out=out, part=shard_id, format=run.format, wanted=None) for shard_id in run.shard_ids]
    earlier = list(_earlier_parts(ledger, storage.canonical(out).rstrip("/"))) if ledger else []
    if ledger and not earlier and not storage.is_folder(ledger):
        raise UsageError(f"--ledger {ledger}: there is no ledger")
    with ThreadPoolExecutor(READERS) as pool:
        parts = map_ahead(
            lambda source: _read_source(source, embedding),
            [*own, *earlier],
            pool,
            max_ahead=2 * READERS,
            budget_bytes=AHEAD_BYTES,
            expected_bytes=lambda _: 4 << 20,
            held_bytes=lambda part: part.nbytes,
        )
        pictures, held_bytes = [], 0
        for part in parts:
            pictures.append(part)
            held_bytes += part.films.nbytes + (0 if part.embeddings is None else part.embeddings.nbytes)
            if held_bytes > _MAX_HELD_BYTES:
                raise UsageError(f"{out}: over {_MAX_HELD_BYTES >> 30} GiB of embeddings and frames of videos to hold")
        return _concatenate(pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A part of a run. wanted: for an earlier run, its rows in the ledger; None: the whole part, of this run."""

    run_out: str
    part: str
    format: str
    wanted: pa.Table | None


def _concatenate(parts: Sequence[Pictures]) -> Pictures:
    names = ("pixels", "size_bytes", "content", "hashes", "inner", "quality")
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Pictures(
        items=pa.concat_tables([p.items for p in parts]),
        **columns,
        embeddings=_concatenate_embeddings(parts),
        films=concatenate_films([p.films for p in parts], [len(p) for p in parts]),
        unread=sum(p.unread for p in parts),
    )


def _concatenate_embeddings(parts: Sequence[Pictures]) -> F16 | None:
    """float16 [N,D]; NaN rows for parts without embeddings, or with those of another width."""
    width = next((p.embeddings.shape[1] for p in parts if p.embeddings is not None), None)
    if width is None:
        return None
    return np.concatenate([_filled(p, width) for p in parts])


def _filled(part: Pictures, width: int) -> F16:
    if part.embeddings is not None and part.embeddings.shape[1] == width:
        return part.embeddings
    return np.full((len(part), width), np.nan, np.float16)


def _read_source(source: _Source, embedding: str | None) -> Pictures:
    """The items of a part; for an earlier run only those of its rows in the ledger."""
    wanted = source.wanted
    try:
        verdicts, votes = _read_tables(source, embedding)
    except PartMissingError:
        if wanted is None:
            raise
        return _by_content(wanted, source.run_out)
    if wanted is not None:
        verdicts = verdicts.filter(pc.is_in(verdicts["item_id"], value_set=wanted["item_id"].combine_chunks()))
    frames, rows = _of_single_frames(verdicts, votes)
    return Pictures(
        items=_items(verdicts, None if wanted is None else source.run_out),
        pixels=_numbers(verdicts["width"]) * _numbers(verdicts["height"]),
        size_bytes=_numbers(verdicts["size_bytes"]),
        content=_contents(verdicts["content_hash"]),
        hashes=frames.hashes,
        inner=frames.parts.inner,
        quality=frames.quality,
        embeddings=_read_embeddings(source, votes, embedding, rows),
        films=read_films(verdicts, votes),
    )


def _read_tables(source: _Source, embedding: str | None) -> tuple[pa.Table, pa.Table]:
    """Verdicts and votes of a part; of the votes the rows of frames."""
    vector = [f"{embedding}.embedding"] if embedding else []
    columns = ["item_id", "role", "time_s", *HASH_COLUMNS, *vector]
    at = (source.part, source.format)
    verdicts = read_intact(source.run_out, VERDICTS, *at, _VERDICTS, strict=False)
    return verdicts, own_frames(read_joined(source.run_out, *at, columns, strict=False))


def _read_embeddings(source: _Source, votes: pa.Table, embedding: str | None, rows: I64) -> F16 | None:
    """The embeddings of the given rows. Raises UsageError where this run kept none; an earlier run may lack them."""
    if embedding is None:
        return None
    column = f"{embedding}.embedding"
    if column in votes.column_names:
        return _vectors(votes[column], rows)
    if source.wanted is not None:
        return None
    advice = "they would be with --set stack.keep_embeddings=true"
    raise UsageError(f"{source.run_out}: no embeddings of {embedding!r} were kept; {advice}")


def _of_single_frames(verdicts: pa.Table, votes: pa.Table) -> tuple[FrameHashes, I64]:
    """The hashes of each item, and its row of the votes (-1: not compared).

    One hash identifies a picture, but not a film: films that share a title would be one. See `picture_films`.
    """
    counted = votes["item_id"].value_counts() if len(votes) else None
    single = counted.field("values").filter(pc.equal(counted.field("counts"), 1)) if counted is not None else None
    rows = np.full(len(verdicts), -1, np.int64)
    if single is not None and "pdq.hash" in votes.column_names and len(verdicts):
        fine = pc.and_(
            pc.fill_null(pc.equal(verdicts["status"], Status.OK.value), False), pc.is_in(verdicts["item_id"], single)
        )
        places = pc.index_in(verdicts["item_id"], votes["item_id"].combine_chunks())
        rows = np.where(np.asarray(fine), pc.fill_null(places, -1).to_numpy().astype(np.int64), -1)
    there = rows >= 0
    if not there.any():
        return no_hashes(len(verdicts)), rows
    frames = frame_hashes(votes).take(np.maximum(rows, 0)).within_bars()
    for hashes in (frames.hashes, frames.parts.inner):
        hashes[~there] = 0
    frames.quality[~there] = NO_QUALITY
    return frames, rows


def _vectors(column: pa.ChunkedArray, rows: npt.NDArray[np.int64]) -> F16:
    dim = column.type.list_size
    valid = np.asarray(column.is_valid())
    flat = column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    every = np.full((len(column), dim), np.nan, np.float16)
    every[valid] = flat.reshape(-1, dim)
    vectors = np.full((len(rows), dim), np.nan, np.float16)
    vectors[rows >= 0] = every[rows[rows >= 0]]
    return vectors


def _items(verdicts: pa.Table, run_out: str | None) -> pa.Table:
    where = pa.array([run_out] * len(verdicts), pa.string()).dictionary_encode()
    return pa.table(
        {
            "item_id": verdicts["item_id"].cast(pa.large_string()),
            "run_out": where.cast(pa.dictionary(pa.int32(), pa.string())),
            "verdict": verdicts["verdict"].cast(pa.string()).dictionary_encode(),
        }
    ).unify_dictionaries()


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    numbers: I64 = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return numbers


def _contents(column: pa.ChunkedArray) -> U64:
    """sha256 in hexadecimal -> uint64 [N,2], of its first 16 bytes."""
    text = "".join(value[:32] if value else _NO_CONTENT for value in column.to_pylist())
    return np.frombuffer(bytes.fromhex(text), ">u8").astype(np.uint64).reshape(-1, 2)


def _by_content(wanted: pa.Table, out: str) -> Pictures:
    """Rows of the ledger whose part is gone."""
    count = len(wanted)
    return Pictures(
        items=_items(wanted, out),
        pixels=np.zeros(count, np.int64),
        size_bytes=_numbers(wanted["size_bytes"]),
        content=_contents(wanted["content_hash"]),
        hashes=np.zeros((count, HASH_BYTES), np.uint8),
        inner=np.zeros((count, HASH_BYTES), np.uint8),
        quality=np.full(count, NO_QUALITY, np.int16),
        unread=count,
    )


def _earlier_parts(ledger: str, out: str) -> Iterator[_Source]:
    """Each part with current rows of runs other than `out`, and those rows."""
    rows = _current_rows(ledger, out)
    if rows is None:
        return
    for name in ("run_out", "format", "verdict"):
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(pa.string()))
    rows = rows.sort_by([("run_out", "ascending"), ("part", "ascending"), ("item_id", "ascending")])
    parts = list(zip(*(rows[name].to_pylist() for name in ("run_out", "part", "format")), strict=True))
    for of_part in adjacent_runs(parts):
        run_out, part, format_ = parts[of_part.start]
        wanted = rows.slice(of_part.start, of_part.stop - of_part.start)
        yield _Source(run_out=run_out, part=part, format=format_, wanted=wanted)


def _current_rows(ledger: str, out: str) -> pa.Table | None:
    """The newest row of each item that another run than `out` judged; None where the ledger is empty."""
    log = open_log(ledger)
    files = log.newest_first
    keys = [table_keys(table) for file in files for table in read_file(ledger, file, ("key",))]
    if not keys:
        return None
    high, low = (np.concatenate([k[half] for k in keys]) for half in (0, 1))
    current = np.zeros(len(high), dtype=bool)
    current[newest_by_key(high, low)] = True
    kept, start = [], 0
    for file in files:
        for table in read_file(ledger, file, _LEDGER):
            here = current[start : start + table.num_rows]
            start += table.num_rows
            kept.append(table.filter(pa.array(here & _judged_elsewhere(table, out))).select(_OF_PART))
    return pa.concat_tables(kept).unify_dictionaries().combine_chunks()


def _judged_elsewhere(rows: pa.Table, out: str) -> npt.NDArray[np.bool_]:
    """Rows of the ledger that another run than `out` judged, of items that are still there."""
    judged = pc.and_(pc.equal(rows["status"], Status.OK.value), pc.is_null(rows["deleted_at"]))
    other = pc.not_equal(rows["run_out"].cast(pa.string()), out)
    return np.asarray(pc.fill_null(pc.and_(judged, other), False))

"""What duplicates are looked for among: the items of a run, and those that a ledger has judged before it.

Held in columns, about 170 bytes an item with its id: ten million are 1.7 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moderation import storage
from moderation.concurrency import map_ahead
from moderation.errors import UsageError
from moderation.hashes.search import HASH_BYTES, I16, U64
from moderation.ledger.rows import table_keys
from moderation.ledger.store import open_log, read_file
from moderation.results.frame_hashes import NO_QUALITY, hash_rows, own_frames, percents, read_columns, read_run_format
from moderation.results.receipts import committed_ids, part_name
from moderation.types import U8, Status

_READERS = 4
_BUDGET_BYTES = 256 << 20  # of parts read ahead
_VERDICTS = ["item_id", "verdict", "status", "width", "height", "size_bytes", "content_hash"]
_LEDGER = (
    "key",
    "item_id",
    "run_out",
    "part",
    "format",
    "verdict",
    "status",
    "size_bytes",
    "content_hash",
    "deleted_at",
)
_NO_CONTENT = "0" * 32
_MAX_EMBEDDED_BYTES = 6 << 30  # 2.4 million items with 1,280 numbers each; hashes alone have no such bound

F16 = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Items in columns, N each.

    items: item_id, run_out (null: this run), verdict. pixels, size_bytes: int64, 0 where unknown. content: uint64
    [N,2], the first half of the sha256; 0, 0 where unknown. hashes: uint8 [N,32]; quality: int16, -1 for what is not
    compared by its hash: no hash, an error, or more than one frame. embeddings: float16 [N,D] or nothing; NaN rows
    where there is none. unread: earlier items whose parts are gone.
    """

    items: pa.Table
    pixels: npt.NDArray[np.int64]
    size_bytes: npt.NDArray[np.int64]
    content: U64
    hashes: U8
    quality: I16
    embeddings: F16 | None = None
    unread: int = 0

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def nbytes(self) -> int:
        """Of the hashes and embeddings."""
        return int(self.hashes.nbytes) + (0 if self.embeddings is None else int(self.embeddings.nbytes))


def read_pictures(out: str, *, ledger: str | None = None, embedding: str | None = None) -> Pictures:
    """The items of a finished run, and (with `ledger`) the current ones of earlier runs.

    embedding: the detector whose kept embeddings are read. Earlier items whose parts are gone are compared by content
    alone. Raises UsageError when there is no run, or it kept no such embeddings.
    """
    format_ = read_run_format(out)
    ids = sorted(committed_ids(out))
    if not ids:
        raise UsageError(f"{out}: no shard is committed there")
    own = [(out, shard_id, format_, None) for shard_id in ids]
    earlier = list(_earlier_parts(ledger, storage.canonical(out).rstrip("/"))) if ledger else []
    if ledger and not earlier and not storage.is_folder(ledger):
        raise UsageError(f"--ledger {ledger}: there is no ledger")
    with ThreadPoolExecutor(_READERS) as pool:
        parts = map_ahead(
            lambda part: _read_part(*part, embedding=embedding, required=part[3] is None),
            [*own, *earlier],
            pool,
            most=2 * _READERS,
            budget_bytes=_BUDGET_BYTES,
            expected_bytes=lambda _: 4 << 20,
            held_bytes=lambda part: part.nbytes,
        )
        found, held = [], 0
        for part in parts:
            found.append(part)
            held += 0 if part.embeddings is None else part.embeddings.nbytes
            if held > _MAX_EMBEDDED_BYTES:
                raise UsageError(f"{out}: too many embeddings of {embedding!r} to hold; group by hashes alone")
        return _joined(found)


def _joined(parts: Sequence[Pictures]) -> Pictures:
    vectors = [p.embeddings for p in parts if p.embeddings is not None]
    width = vectors[0].shape[1] if vectors else 0
    return Pictures(
        items=pa.concat_tables([p.items for p in parts]),
        pixels=np.concatenate([p.pixels for p in parts]),
        size_bytes=np.concatenate([p.size_bytes for p in parts]),
        content=np.concatenate([p.content for p in parts]),
        hashes=np.concatenate([p.hashes for p in parts]),
        quality=np.concatenate([p.quality for p in parts]),
        embeddings=np.concatenate([_filled(p, width) for p in parts]) if vectors else None,
        unread=sum(p.unread for p in parts),
    )


def _filled(part: Pictures, width: int) -> F16:
    if part.embeddings is not None and part.embeddings.shape[1] == width:
        return part.embeddings
    return np.full((len(part), width), np.nan, np.float16)


def _read_part(
    out: str, shard_id: str, format_: str, wanted: pa.Table | None, *, embedding: str | None, required: bool
) -> Pictures:
    """A part of a run; of an earlier one just the `wanted` rows of the ledger."""
    name = part_name(shard_id, format_)
    vector = f"{embedding}.embedding"
    columns = ["item_id", "role", "pdq.quality", "pdq.hash", *([vector] if embedding else [])]
    try:
        verdicts = read_columns(storage.join(out, "verdicts", name), _VERDICTS, format_)
        votes = own_frames(read_columns(storage.join(out, "votes", name), columns, format_))
    except FileNotFoundError:
        if required:
            raise
        assert wanted is not None  # only those of this run are required
        return _by_content(wanted, out)
    if wanted is not None:
        verdicts = verdicts.filter(pc.is_in(verdicts["item_id"], value_set=wanted["item_id"].combine_chunks()))
    if embedding and vector not in votes.column_names and required:
        advice = "they would be with --set stack.keep_embeddings=true"
        raise UsageError(f"{out}: no embeddings of {embedding!r} were kept; {advice}")
    hashes, quality, rows = _of_single_frames(verdicts, votes)
    return Pictures(
        items=_items(verdicts, None if required else out),
        pixels=_numbers(verdicts["width"]) * _numbers(verdicts["height"]),
        size_bytes=_numbers(verdicts["size_bytes"]),
        content=_contents(verdicts["content_hash"]),
        hashes=hashes,
        quality=quality,
        embeddings=_vectors(votes[vector], rows) if embedding and vector in votes.column_names else None,
    )


def _of_single_frames(verdicts: pa.Table, votes: pa.Table) -> tuple[U8, I16, npt.NDArray[np.int64]]:
    """Hash and quality an item, and its row of the votes (-1: not compared).

    One hash says what a picture is, but not what a film is: films that share a title would be one. See `known`.
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
    hashes = np.zeros((len(verdicts), HASH_BYTES), np.uint8)
    quality = np.full(len(verdicts), NO_QUALITY, np.int16)
    there = rows >= 0
    if there.any():
        hashes[there] = hash_rows(votes["pdq.hash"])[rows[there]]
        quality[there] = percents(votes["pdq.quality"], votes["pdq.hash"])[rows[there]]
    return hashes, quality, rows


def _vectors(column: pa.ChunkedArray, rows: npt.NDArray[np.int64]) -> F16:
    dim = column.type.list_size
    valid = np.asarray(column.is_valid())
    flat = column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    every = np.full((len(column), dim), np.nan, np.float16)
    every[valid] = flat.reshape(-1, dim)
    found = np.full((len(rows), dim), np.nan, np.float16)
    found[rows >= 0] = every[rows[rows >= 0]]
    return found


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
    found: npt.NDArray[np.int64] = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return found


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
        quality=np.full(count, NO_QUALITY, np.int16),
        unread=count,
    )


def _earlier_parts(ledger: str, out: str) -> Iterator[tuple[str, str, str, pa.Table]]:
    """(run, part, format, its rows of the ledger) for each part with current rows of other runs."""
    log = open_log(ledger)
    files = log.newest_first
    keys = [table_keys(table) for file in files for table in read_file(ledger, file, ("key",))]
    if not keys:
        return
    high, low = (np.concatenate([k[half] for k in keys]) for half in (0, 1))
    order = np.lexsort((low, high))  # stable: of equal keys the newest stays first
    current = np.zeros(len(order), dtype=bool)
    current[order[0]] = True
    current[order[1:]] = (high[order[1:]] != high[order[:-1]]) | (low[order[1:]] != low[order[:-1]])
    found, start = [], 0
    for file in files:
        for table in read_file(ledger, file, _LEDGER):
            here = current[start : start + table.num_rows]
            start += table.num_rows
            judged = pc.and_(pc.equal(table["status"], Status.OK.value), pc.is_null(table["deleted_at"]))
            other = pc.not_equal(table["run_out"].cast(pa.string()), out)
            kept = here & np.asarray(pc.fill_null(pc.and_(judged, other), False))
            found.append(table.filter(pa.array(kept)).drop_columns(["key", "status", "deleted_at"]))
    rows = pa.concat_tables(found).unify_dictionaries().combine_chunks()
    for name in ("run_out", "format", "verdict"):
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(pa.string()))
    rows = rows.sort_by([("run_out", "ascending"), ("part", "ascending"), ("item_id", "ascending")])
    names = list(zip(rows["run_out"].to_pylist(), rows["part"].to_pylist(), rows["format"].to_pylist(), strict=True))
    first = 0
    for stop in range(1, len(names) + 1):
        if stop == len(names) or names[stop] != names[first]:
            run_out, part, format_ = names[first]
            yield run_out, part, format_, rows.slice(first, stop - first)
            first = stop

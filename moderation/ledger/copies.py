"""Rows of items whose content is judged under another name: the verdict and the votes of that one, taken over.

They become parts with receipts of their own beside those that were judged, so that rows out = items new or changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderation.config.model import Config
from moderation.ledger.difference import TONIGHT, Origin, row_contents, tonight_key
from moderation.ledger.index import locate
from moderation.ledger.listing import Listing, read_copies
from moderation.ledger.rows import U64, content_id, item_key, split_keys
from moderation.planning.shards import make_shards
from moderation.results.layout import VERDICTS, VOTES, part_uri
from moderation.results.reader import read_part
from moderation.results.receipts import commit_shard
from moderation.results.schema import verdicts_schema
from moderation.results.tables import ItemRow, encode_table, verdicts_table
from moderation.types import ErrorCode, Item, Judgement, Kind, Shard, Status, Verdict

_PARTS = 8  # of other runs, held as tables
REASON = "same_content"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where copies are written, and what their tables look like."""

    out: str
    config: Config
    checks: tuple[str, ...]
    votes_schema: pa.Schema
    metadata: Mapping[str, str]


def write_copies(target: Target, listing: Listing, plan: Iterable[Shard], committed: set[str]) -> list[Shard]:
    """Write what takes over a verdict; the shards of it. What has a receipt is not written again.

    plan: the shards that were judged tonight; all of them are committed. Raises FatalError, StorageError.
    """
    if not listing.copy_chunks:
        return []
    wanted = {tonight_key(item) for item, origin in _all(target.out, listing) if origin == TONIGHT}
    judged, planned = _judged_tonight(target, plan, wanted)
    read = lru_cache(_PARTS)(_read_part)
    shards = []
    for chunk in read_copies(target.out, listing):
        # A name that an interrupted listing had planned already has its row there.
        _, there = locate(*planned, *split_keys([item_key(item) for item, _ in chunk]))
        copies = {
            item.item_id: judged.get(tonight_key(item)) if origin == TONIGHT else origin
            for (item, origin), row_there in zip(chunk, there.tolist(), strict=True)
            if not row_there
        }
        items = (item for item, _ in chunk if item.item_id in copies)
        for shard in make_shards(items, target.config.shards):
            shards.append(shard)
            if shard.shard_id not in committed:
                _write(target, shard, [copies[item.item_id] for item in shard.items], read)
    return shards


def _all(out: str, listing: Listing) -> Iterator[tuple[Item, Origin]]:
    return chain.from_iterable(read_copies(out, listing))


def _judged_tonight(
    target: Target, plan: Iterable[Shard], wanted: set[int]
) -> tuple[dict[int, Origin], tuple[U64, U64]]:
    """Content -> the first item of it that was judged tonight; and the sorted keys of all."""
    found: dict[int, Origin] = {}
    halves = [split_keys([])]
    for shard in plan:
        halves.append(split_keys([item_key(item) for item in shard.items]))
        for item in shard.items:
            key = tonight_key(item)
            if key in wanted and key not in found:
                found[key] = Origin(
                    run_out=target.out,
                    part=shard.shard_id,
                    format=target.config.output.format,
                    item_id=item.item_id,
                )
    high, low = np.concatenate([h for h, _ in halves]), np.concatenate([w for _, w in halves])
    order = np.lexsort((low, high))
    return found, (high[order], low[order])


@dataclass(frozen=True, slots=True)
class _Part:
    verdicts: pa.Table
    votes: pa.Table
    rows: Mapping[str, int]  # item id -> row of `verdicts`


_Reader = Callable[[str, str, str], _Part | None]


def _read_part(run_out: str, part: str, format_: str) -> _Part | None:
    try:
        verdicts = read_part(part_uri(run_out, VERDICTS, part, format_), format_)
        votes = read_part(part_uri(run_out, VOTES, part, format_), format_)
    except FileNotFoundError:
        return None
    return _Part(verdicts, votes, {i: row for row, i in enumerate(verdicts["item_id"].to_pylist())})


def _write(target: Target, shard: Shard, origins: list[Origin | None], read: _Reader) -> None:
    schema = verdicts_schema(target.checks, target.metadata)
    verdicts, votes = [], [target.votes_schema.empty_table()]
    for item, origin in zip(shard.items, origins, strict=True):
        found = _taken_over(item, origin, read)
        if found is None:
            verdicts.append(verdicts_table([_lost(item)], target.checks, target.metadata))
            continue
        verdict, its_votes = found
        verdicts.append(_renamed(conform(verdict, schema), item, found_in=str(verdict["item_id"][0])))
        votes.append(_set(conform(its_votes, target.votes_schema), "item_id", item.item_id))
    tables = {VOTES: pa.concat_tables(votes), VERDICTS: pa.concat_tables(verdicts)}
    commit_shard(
        target.out,
        shard,
        parts={name: encode_table(table.combine_chunks(), target.config.output) for name, table in tables.items()},
        rows={name: table.num_rows for name, table in tables.items()},
        format_=target.config.output.format,
        facts={"counts": count_table(tables[VERDICTS], tables[VOTES].num_rows), "worker": REASON},
    )


def _taken_over(item: Item, origin: Origin | None, read: _Reader) -> tuple[pa.Table, pa.Table] | None:
    """The row and the votes of an item's origin, if it is there and does have this content (by what was measured)."""
    part = read(origin.run_out, origin.part, origin.format) if origin is not None else None
    row = part.rows.get(origin.item_id) if part is not None and origin is not None else None
    if part is None or row is None:
        return None
    verdict = part.verdicts.slice(row, 1)
    (cells,) = verdict.select(["etag", "size_bytes", "content_hash", "item_id"]).to_pylist()
    if content_id(item) not in row_contents(cells):
        return None
    return verdict, part.votes.filter(pc.equal(part.votes["item_id"], cells["item_id"]))


def _lost(item: Item) -> ItemRow:
    # Of a code that the next night tries again; by then the ledger does not promise this content any more.
    detail = "what has the same content, by its etag or the manifest, was not judged or proved different"
    judged = Judgement(
        verdict=Verdict.REVIEW,
        reason=f"error:{ErrorCode.FETCH_FAILED}",
        check=None,
        score=None,
        confidence=None,
    )
    return ItemRow(
        item=item,
        status=Status.ERROR,
        kind=Kind.UNKNOWN,
        judgement=judged,
        size_bytes=item.size_bytes or None,
        error_code=ErrorCode.FETCH_FAILED,
        error_detail=detail,
    )


def _renamed(verdict: pa.Table, item: Item, *, found_in: str) -> pa.Table:
    """A verdict's row as that of another item."""
    verdict = _set(verdict, "item_id", item.item_id)
    verdict = _set(verdict, "uri", item.uri)
    verdict = _set(verdict, "reason", f"{REASON}:{found_in}")
    verdict = _set(verdict, "etag", item.objects[0].etag)
    verdict = _set(verdict, "group_id", item.attributes.get("group"))
    return _set(verdict, "attributes", sorted(item.attributes.items()))


def _set(table: pa.Table, name: str, value: object) -> pa.Table:
    at = table.schema.get_field_index(name)
    field = table.schema.field(at)
    return table.set_column(at, field, pa.array([value] * table.num_rows, field.type))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with just the columns of a schema; what it lacks (embeddings that were not kept) is null."""
    columns = [
        table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(table.num_rows, f.type) for f in schema
    ]
    return pa.table(columns, schema=schema)


def count_table(verdicts: pa.Table, votes: int) -> dict[str, int]:
    """The counters of a part from its rows, as `pipeline.count_rows` has them."""
    counts: Counter[str] = Counter(frames=votes)
    rows = verdicts.select(["status", "kind", "verdict", "check", "error_code"]).to_pylist()
    for row in rows:
        counts[f"status:{row['status']}"] += 1
        counts[f"kind:{row['kind']}"] += 1
        if row["verdict"] is not None:
            counts[f"verdict:{row['verdict']}"] += 1
            if row["check"]:
                counts[f"check:{row['check']}:{row['verdict']}"] += 1
        if row["error_code"] is not None:
            counts[f"error:{row['error_code']}"] += 1
    return dict(sorted(counts.items()))

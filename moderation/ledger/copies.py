"""Rows of items whose content was judged under another name: they take over its verdict and votes.

They become parts with receipts of their own beside the judged parts, so that rows out = items new or changed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderation.config.model import Config
from moderation.ledger.difference import TONIGHT, Origin
from moderation.ledger.index import locate
from moderation.ledger.listing import NightListing, read_copies
from moderation.ledger.rows import U64, content_id, item_key, row_contents, split_keys, tonight_key
from moderation.planning.shards import make_shards
from moderation.policy.bind import BoundPolicy
from moderation.results.escalations import Escalation, is_escalated, publish_escalations, read_escalation
from moderation.results.intact import PartChangedError, PartMissingError, read_intact
from moderation.results.joined import read_joined
from moderation.results.judged import judge_row
from moderation.results.layout import VERDICTS, VOTES
from moderation.results.receipts import COPIES_WORKER, commit_shard
from moderation.results.schema import verdicts_schema
from moderation.results.tables import ItemRow, encode_table, judgement_cells, verdicts_table
from moderation.results.votes import item_votes
from moderation.types import ErrorCode, Item, Judgement, Kind, Shard, Status, Verdict

_MAX_PARTS = 8  # parts of other runs, held as tables
REASON = COPIES_WORKER
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where copies are written, and the schemas of their tables."""

    out: str
    config: Config
    checks: tuple[str, ...]
    votes_schema: pa.Schema
    metadata: Mapping[str, str]
    policy: BoundPolicy | None = None  # judges items with other attributes again; None: there are none


def write_copies(target: Target, listing: NightListing, plan: Iterable[Shard], committed: set[str]) -> list[Shard]:
    """Write the rows that take over a verdict; return their shards. Parts with a receipt are not written again.

    plan: the shards judged tonight, all of them committed. Raises FatalError, StorageError.
    """
    if not listing.copy_chunks:
        return []
    chunks = chain.from_iterable(read_copies(target.out, listing))
    tonight = _judged_tonight(target, plan, {tonight_key(item) for item, origin in chunks if origin == TONIGHT})
    read_part = lru_cache(_MAX_PARTS)(_read_part)
    shards = []
    for chunk in read_copies(target.out, listing):
        origins = _resolve_origins(chunk, tonight)
        for shard in make_shards((item for item, _ in chunk if item.item_id in origins), target.config.shards):
            shards.append(shard)
            if shard.shard_id not in committed:
                _write(target, shard, [origins[item.item_id] for item in shard.items], read_part)
    return shards


@dataclass(frozen=True, slots=True, kw_only=True)
class _JudgedTonight:
    """first: content -> the first item with it that was judged tonight. keys: of all planned items, sorted."""

    first: Mapping[int, Origin]
    keys: tuple[U64, U64]


def _judged_tonight(target: Target, plan: Iterable[Shard], wanted: set[int]) -> _JudgedTonight:
    """Read tonight's plan. wanted: the contents that copies need."""
    first: dict[int, Origin] = {}
    halves = [split_keys([])]
    for shard in plan:
        halves.append(split_keys([item_key(item) for item in shard.items]))
        for item in shard.items:
            key = tonight_key(item)
            if key in wanted and key not in first:
                first[key] = Origin(
                    run_out=target.out,
                    part=shard.shard_id,
                    format=target.config.output.format,
                    item_id=item.item_id,
                )
    high, low = np.concatenate([h for h, _ in halves]), np.concatenate([w for _, w in halves])
    order = np.lexsort((low, high))
    return _JudgedTonight(first=first, keys=(high[order], low[order]))


def _resolve_origins(chunk: list[tuple[Item, Origin]], tonight: _JudgedTonight) -> dict[str, Origin | None]:
    """Item id -> where its verdict lies; None where the other name was not judged after all.

    Left out: items that an interrupted listing had already planned; they have their row there.
    """
    _, planned = locate(*tonight.keys, *split_keys([item_key(item) for item, _ in chunk]))
    return {
        item.item_id: tonight.first.get(tonight_key(item)) if origin == TONIGHT else origin
        for (item, origin), is_planned in zip(chunk, planned.tolist(), strict=True)
        if not is_planned
    }


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a run, read."""

    verdicts: pa.Table
    votes: pa.Table
    rows: Mapping[str, int]  # item id -> row of `verdicts`


_ReadPart = Callable[[str, str, str], _Part | None]


def _read_part(run_out: str, part: str, format_: str) -> _Part | None:
    try:
        verdicts = read_intact(run_out, VERDICTS, part, format_)
        votes = read_joined(run_out, part, format_)
    except (PartMissingError, PartChangedError) as error:
        _LOG.warning("a verdict is not taken over: %s", error)
        return None
    return _Part(verdicts, votes, {i: row for row, i in enumerate(verdicts["item_id"].to_pylist())})


def _write(target: Target, shard: Shard, origins: list[Origin | None], read_part: _ReadPart) -> None:
    schema = verdicts_schema(target.checks, target.metadata)
    verdicts, votes, escalations = [], [target.votes_schema.empty_table()], list[Escalation]()
    for item, origin in zip(shard.items, origins, strict=True):
        rows = _find_rows(item, origin, read_part)
        if rows is None:
            verdicts.append(verdicts_table([_lost_row(item)], target.checks, target.metadata))
            continue
        verdict, own_votes, escalation = rows
        if origin is not None and origin.judge:
            verdicts.append(_judge_again(target, conform(verdict, schema), own_votes, item))
        else:
            verdicts.append(_rename(conform(verdict, schema), item))
        if escalation is not None:
            escalations.append(replace(escalation, item_id=item.item_id, uri=item.uri, etag=item.objects[0].etag))
        votes.append(_set(conform(own_votes, target.votes_schema), "item_id", item.item_id))
    tables = {VOTES: pa.concat_tables(votes), VERDICTS: pa.concat_tables(verdicts)}
    counts = count_table(tables[VERDICTS], tables[VOTES].num_rows)
    # Before the receipt: what has to be reported is on disk when the shard counts as done.
    publish_escalations(target.out, shard.shard_id, escalations, target.metadata["run_id"])
    commit_shard(
        target.out,
        shard,
        parts={name: encode_table(table.combine_chunks(), target.config.output) for name, table in tables.items()},
        rows={name: table.num_rows for name, table in tables.items()},
        format_=target.config.output.format,
        facts={
            "counts": {**counts, "escalated": len(escalations)} if escalations else counts,
            "worker": REASON,
        },
    )


def _find_rows(
    item: Item, origin: Origin | None, read_part: _ReadPart
) -> tuple[pa.Table, pa.Table, Escalation | None] | None:
    """The row and the votes of an item's origin, if they exist and have this content (as measured, not as claimed).

    With the origin's match with an illegal list: another name of it is reported, too, and is no row without that.
    """
    if origin is None or (part := read_part(origin.run_out, origin.part, origin.format)) is None:
        return None
    row = part.rows.get(origin.item_id)
    if row is None:
        return None
    verdict = part.verdicts.slice(row, 1)
    (cells,) = verdict.select(["etag", "size_bytes", "content_hash", "item_id", "status"]).to_pylist()
    # An item's own row is of the same version, by its key.
    if not origin.judge and content_id(item) not in row_contents(cells):
        return None
    escalation = None
    if is_escalated(cells) and not origin.judge:
        escalation = read_escalation(origin.run_out, origin.part, origin.item_id)
        if escalation is None:
            _LOG.warning("a verdict is not taken over: the escalation of %s is not readable", origin.item_id)
            return None
    return verdict, part.votes.filter(pc.equal(part.votes["item_id"], cells["item_id"])), escalation


def _judge_again(target: Target, verdict: pa.Table, votes: pa.Table, item: Item) -> pa.Table:
    """An item's row with its attributes of tonight, judged by its stored votes."""
    assert target.policy is not None
    (cells,) = verdict.to_pylist()
    cells |= {
        "uri": item.uri,
        "group_id": item.attributes.get("group"),
        "attributes": sorted(item.attributes.items()),
    }
    own = dict(item_votes(votes, target.policy.labels)) if len(votes) else {}
    judgement = judge_row(cells, own.get(item.item_id), target.policy)
    return pa.Table.from_pylist([cells | judgement_cells(judgement, target.checks)], schema=verdict.schema)


def _lost_row(item: Item) -> ItemRow:
    # This code is retried the next night; by then the ledger no longer offers this content.
    detail = "the item with the same content, by etag or manifest, was not judged or proved different"
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


def _rename(verdict: pa.Table, item: Item) -> pa.Table:
    """A verdict's row under another item's name; its reason names the judged item, unless it is escalated."""
    (cells,) = verdict.select(["item_id", "status", "reason"]).to_pylist()
    reason = cells["reason"] if is_escalated(cells) else f"{REASON}:{cells['item_id']}"
    verdict = _set(verdict, "item_id", item.item_id)
    verdict = _set(verdict, "uri", item.uri)
    verdict = _set(verdict, "reason", reason)
    verdict = _set(verdict, "etag", item.objects[0].etag)
    verdict = _set(verdict, "group_id", item.attributes.get("group"))
    return _set(verdict, "attributes", sorted(item.attributes.items()))


def _set(table: pa.Table, name: str, value: object) -> pa.Table:
    at = table.schema.get_field_index(name)
    field = table.schema.field(at)
    return table.set_column(at, field, pa.array([value] * table.num_rows, field.type))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with exactly the columns of a schema; missing ones (embeddings that were not kept) are null."""
    columns = [
        table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(table.num_rows, f.type) for f in schema
    ]
    return pa.table(columns, schema=schema)


def count_table(verdicts: pa.Table, votes: int) -> dict[str, int]:
    """The counters of a part from its rows, as `pipeline.count_rows` counts them."""
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

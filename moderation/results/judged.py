"""A policy's judgements of whole parts, as columns of the verdicts table; the rows are those that a run would write.

`policy.judge_part` judges votes in columns; the items that it leaves are judged one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderation.policy.bind import BoundCheck, BoundPolicy
from moderation.policy.judge import judge_item
from moderation.policy.judge_part import PartItems, decide_part, judge_part
from moderation.policy.part_scores import I64, Flags, PartVotes
from moderation.policy.variants import checks_for
from moderation.results.escalations import ESCALATED_JUDGEMENT, is_escalated
from moderation.results.judged_columns import JudgedColumns
from moderation.results.listed_items import find_listed
from moderation.results.votes import item_votes, score_matrix
from moderation.types import ErrorCode, ItemFacts, ItemVotes, Judgement, Kind, Role, Seen, Status

# `unseen` is missing in tables of version 2.
JUDGED_BY: Final = (
    "item_id", "status", "error_code", "kind", "duration_s", "widest_gap_s", "unseen", "attributes", "content_hash",
    "pdq",
)  # fmt: skip
# Columns of these that only some policies need; attributes are untrusted, long, and lists of pairs.
_OF_FACTS: Final = ("attributes", "content_hash", "pdq")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRows:
    """The N items of a part: what a policy needs of each besides its votes."""

    item_ids: pa.Array
    skipped: Sequence[bool]
    escalated: Sequence[bool]
    errors: Sequence[ErrorCode | None]
    seen: Sequence[Seen]
    facts: Sequence[ItemFacts]

    @staticmethod
    def of(verdicts: pa.Table, *, with_facts: bool = True) -> PartRows:
        """Rows from the verdicts of a part; verdicts: at least the columns of `JUDGED_BY` that the table has."""
        names = [n for n in JUDGED_BY if n in verdicts.column_names and (with_facts or n not in _OF_FACTS)]
        rows = verdicts.select(names).to_pylist()
        return PartRows(
            item_ids=_one_chunk(verdicts["item_id"]),
            skipped=[row["status"] == Status.SKIPPED for row in rows],
            escalated=[is_escalated(row) for row in rows],
            errors=[None if row["error_code"] is None else ErrorCode(row["error_code"]) for row in rows],
            seen=[_seen_of(row) for row in rows],
            facts=[_facts_of(row) for row in rows],
        )


def _seen_of(row: Mapping[str, Any]) -> Seen:
    return Seen(
        kind=Kind(row["kind"]),
        duration_s=row["duration_s"],
        widest_gap_s=row["widest_gap_s"],
        unseen=tuple(row.get("unseen") or ()),
    )


def _facts_of(row: Mapping[str, Any]) -> ItemFacts:
    return ItemFacts(
        item_id=row["item_id"],
        attributes=dict(row.get("attributes") or ()),
        content_hash=row.get("content_hash"),
        pdq=row.get("pdq"),
    )


def judge_rows(verdicts: pa.Table, votes: Mapping[str, ItemVotes], bound: BoundPolicy) -> Iterator[Judgement | None]:
    """A policy's judgement of each item of a part; None where the item was skipped. votes: by item id."""
    rows = PartRows.of(verdicts)
    for row in range(len(rows.seen)):
        yield _judge_row(rows, row, votes.get(rows.facts[row].item_id), bound)


def judge_row(row: Mapping[str, Any], votes: ItemVotes | None, bound: BoundPolicy) -> Judgement | None:
    """A policy's judgement of one row of the verdicts by the item's votes; None where it was skipped."""
    if row["status"] == Status.SKIPPED:
        return None
    if is_escalated(row):
        return ESCALATED_JUDGEMENT
    error = None if row["error_code"] is None else ErrorCode(row["error_code"])
    return judge_item(votes, error, bound, _seen_of(row), _facts_of(row))


def _judge_row(rows: PartRows, row: int, votes: ItemVotes | None, bound: BoundPolicy) -> Judgement | None:
    if rows.skipped[row]:
        return None
    if rows.escalated[row]:
        return ESCALATED_JUDGEMENT  # no policy takes it back: its votes are gone
    return judge_item(votes, rows.errors[row], bound, rows.seen[row], rows.facts[row])


def judge_columns(verdicts: pa.Table, votes: pa.Table, bound: BoundPolicy) -> dict[str, pa.Array]:
    """The columns of the verdicts table that a policy decides, for all items of a part.

    verdicts: as of `JUDGED_BY`. votes: of the part, bound to `bound`'s labels.
    """
    rows, frames, left = _begin(verdicts, votes, bound)
    columns = JudgedColumns(tuple(check.name for check in bound.checks), len(rows.seen))
    for checks, own in _by_checks(bound, rows, np.flatnonzero(~left)):
        group, places = _group_of(own, rows, frames, bound)
        judged = judge_part(bound, group.votes, checks, group.items.seen[0].kind, group.items)
        columns.fill(own, places, judged)
        left[own[judged.left]] = True
    for row, judgement in _judge_left(bound, rows, votes, frames, np.flatnonzero(left)):
        columns.set(row, judgement)
    return columns.arrays(votes, bound.labels)


class Ruled(NamedTuple):  # a tuple: there are millions
    """What a policy says of an item, without what explains it; None, None: it was skipped."""

    verdict: str | None
    reason: str | None


def judge_verdicts(verdicts: pa.Table, votes: pa.Table, bound: BoundPolicy) -> list[Ruled]:
    """The verdict and the reason of each item of a part, as `judge_columns` has them, in less time."""
    rows, frames, left = _begin(verdicts, votes, bound)
    ruled = [Ruled(None, None)] * len(rows.seen)
    for checks, own in _by_checks(bound, rows, np.flatnonzero(~left)):
        group, _ = _group_of(own, rows, frames, bound)
        part = decide_part(bound, group.votes, checks, group.items.seen[0].kind, group.items)
        for item, decision in zip(own.tolist(), part.decisions, strict=True):
            ruled[item] = Ruled(decision.verdict.value, decision.reason)
        left[own[part.left]] = True
    for row, judgement in _judge_left(bound, rows, votes, frames, np.flatnonzero(left)):
        ruled[row] = Ruled(None, None) if judgement is None else Ruled(judgement.verdict.value, judgement.reason)
    return ruled


def _begin(verdicts: pa.Table, votes: pa.Table, bound: BoundPolicy) -> tuple[PartRows, _Frames, Flags]:
    """The rows and frames of a part, and bool [N], the items that columns cannot judge."""
    asks_facts = bool(bound.lists) or bound.by_attribute or bound.policy.goes_by_item
    rows = PartRows.of(verdicts, with_facts=asks_facts)
    frames = _Frames.of(votes, bound, rows.item_ids)
    left = np.array(rows.skipped, np.bool_) | np.array(rows.escalated, np.bool_) | (frames.run_of < 0)
    left |= _in_context(votes, frames)
    if bound.lists:
        left |= find_listed(bound, rows.facts, votes, frames.offsets, frames.run_of)
    return rows, frames, left


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frames:
    """The frames of a part, R runs of one item each. run_of: int64 [N], the run of an item, -1 where it has none."""

    scores: np.ndarray
    offsets: I64
    run_of: I64
    times_s: np.ndarray

    @staticmethod
    def of(votes: pa.Table, bound: BoundPolicy, item_ids: pa.Array) -> _Frames:
        owners = _one_chunk(votes["item_id"])
        codes = owners.dictionary_encode().indices.to_numpy()
        starts = np.flatnonzero(np.diff(codes, prepend=-1)) if len(codes) else np.empty(0, np.int64)
        runs = pc.index_in(item_ids, value_set=owners.take(pa.array(starts, pa.int64())))
        return _Frames(
            scores=score_matrix(votes, bound.labels),
            offsets=np.append(starts, len(codes)).astype(np.int64),
            run_of=np.asarray(pc.fill_null(runs, -1)).astype(np.int64),
            times_s=votes["time_s"].to_numpy(),
        )


def _in_context(votes: pa.Table, frames: _Frames) -> Flags:
    """bool [N]: items with a frame that is a part of another, or is put together from several."""
    if "role" not in votes.column_names or not len(votes):
        return np.zeros(len(frames.run_of), np.bool_)
    related = pc.or_(pc.fill_null(pc.not_equal(votes["role"], Role.FRAME), False), pc.is_valid(votes["parent"]))
    runs = np.logical_or.reduceat(np.asarray(related), frames.offsets[:-1])
    found: Flags = runs[frames.run_of] & (frames.run_of >= 0)
    return found


def _by_checks(bound: BoundPolicy, rows: PartRows, items: I64) -> Iterator[tuple[tuple[BoundCheck, ...], I64]]:
    """The items grouped by their checks: by kind, and by the thresholds that their attributes select."""
    groups: dict[int, tuple[tuple[BoundCheck, ...], list[int]]] = {}
    for item in items.tolist():
        checks = checks_for(bound, rows.seen[item], rows.facts[item])
        groups.setdefault(id(checks), (checks, []))[1].append(item)
    for checks, own in groups.values():
        by_kind: dict[Kind, list[int]] = {}
        for item in own:
            by_kind.setdefault(rows.seen[item].kind, []).append(item)
        for items_of_kind in by_kind.values():
            yield checks, np.array(items_of_kind, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Items that are judged by the same checks, and their votes."""

    votes: PartVotes
    items: PartItems


def _group_of(own: I64, rows: PartRows, frames: _Frames, bound: BoundPolicy) -> tuple[_Group, I64]:
    """Some items of a part, and int64 [f]: their frames' rows in it."""
    whole = PartVotes(labels=bound.labels, scores=frames.scores, offsets=frames.offsets)
    votes, places = whole.take(frames.run_of[own])
    items = PartItems(
        errors=[rows.errors[item] for item in own],
        seen=[rows.seen[item] for item in own],
        facts=[rows.facts[item] for item in own],
        times_s=frames.times_s[places],
    )
    return _Group(votes=votes, items=items), places


def _judge_left(
    bound: BoundPolicy, rows: PartRows, votes: pa.Table, frames: _Frames, left: I64
) -> Iterator[tuple[int, Judgement | None]]:
    """Judge the items that are left, one by one."""
    runs = frames.run_of[left]
    whole = PartVotes(labels=bound.labels, scores=frames.scores, offsets=frames.offsets)
    _, places = whole.take(runs[runs >= 0])
    own = dict(item_votes(votes.take(pa.array(places, pa.int64())), bound.labels)) if len(places) else {}
    for row in left.tolist():
        yield row, _judge_row(rows, row, own.get(rows.facts[row].item_id), bound)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined

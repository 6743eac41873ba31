"""Two runs side by side: shares, items whose verdict moved, what else is different. Reads both; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from moderation.errors import UsageError
from moderation.results.layout import VERDICTS
from moderation.results.reader import StoredRun, open_run
from moderation.results.report_before import EarlierRun, read_earlier
from moderation.types import Verdict

# Ids, verdicts and reasons of so many items take about 400 MB a run.
MAX_ITEMS: Final = 2_000_000
MAX_EXAMPLES: Final = 8  # of a move
_COLUMNS: Final = ("item_id", "uri", "verdict", "reason", "audit")
_VERDICTS: Final = tuple(str(verdict) for verdict in Verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Items whose verdict was `before` and is `after` (None: skipped). examples: uri, reason_before, reason_after."""

    before: str | None
    after: str | None
    items: int
    examples: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """first, second: with their summaries and scores. shared: items of both; first_only, second_only: of one.

    same: shared items with the same verdict. moves: the others, most to least dangerous. whole: whether all items were
    read. different: (what, first, second) of stack, policy and versions.
    """

    first: EarlierRun
    second: EarlierRun
    shared: int
    first_only: int
    second_only: int
    same: int
    moves: Sequence[Move]
    whole: bool
    different: Sequence[tuple[str, str, str]]


def compare_outputs(first: str, second: str) -> RunComparison:
    """Compare two runs, item by item. Raises UsageError where one is no run, has no summary, or both are one."""
    runs = [open_run(first.rstrip("/")), open_run(second.rstrip("/"))]
    if runs[0].out == runs[1].out:
        raise UsageError(f"{first}: one run twice; name two")
    earlier = [read_earlier(run.out) for run in runs]
    tables = [_read_verdicts(run) for run in runs]
    shared = tables[0].join(tables[1], "item_id", join_type="inner", left_suffix="_before", right_suffix="_after")
    verdicts = [pc.fill_null(shared[name], "") for name in ("verdict_before", "verdict_after")]
    moved = shared.filter(pc.not_equal(*verdicts))
    return RunComparison(
        first=earlier[0],
        second=earlier[1],
        shared=len(shared),
        first_only=len(tables[0]) - len(shared),
        second_only=len(tables[1]) - len(shared),
        same=len(shared) - len(moved),
        moves=_moves_of(moved),
        whole=all(len(table) < MAX_ITEMS for table in tables),
        different=_differences(earlier[0].summary, earlier[1].summary),
    )


def _read_verdicts(run: StoredRun) -> pa.Table:
    """Ids, verdicts and reasons of the items of a run, each id once; of the first parts, up to two million."""
    parts, items = [], 0
    for shard_id in run.shard_ids:
        part = run.read_present(VERDICTS, shard_id, _COLUMNS)
        if "audit" not in part.column_names:
            part = part.append_column("audit", pa.nulls(len(part), pa.bool_()))
        parts.append(part.select(_COLUMNS))
        items += len(part)
        if items >= MAX_ITEMS:
            break
    return pa.concat_tables(parts).combine_chunks()


def _moves_of(moved: pa.Table) -> list[Move]:
    counts = moved.group_by(["verdict_before", "verdict_after"]).aggregate([("item_id", "count")]).to_pylist()
    moves = [
        Move(
            before=row["verdict_before"],
            after=row["verdict_after"],
            items=row["item_id_count"],
            examples=_examples(moved, row["verdict_before"], row["verdict_after"]),
        )
        for row in counts
    ]
    return sorted(moves, key=lambda move: (_danger(move), -move.items, str(move.before), str(move.after)))


def _danger(move: Move) -> int:
    """What is let through now comes first, then what is blocked now; the rest is a person's work more or less."""
    return 0 if move.after == Verdict.PASS else 1 if move.after == Verdict.BLOCK else 2


def _examples(moved: pa.Table, before: str | None, after: str | None) -> list[Mapping[str, Any]]:
    mask = pc.and_(_is(moved["verdict_before"], before), _is(moved["verdict_after"], after))
    # Nobody is to see the verdict of an item of the audit before it is labelled.
    audit = pc.or_kleene(pc.fill_null(moved["audit_before"], False), pc.fill_null(moved["audit_after"], False))
    rows = moved.filter(pc.and_(mask, pc.invert(audit))).sort_by("item_id").slice(0, MAX_EXAMPLES).to_pylist()
    return [
        {"uri": row["uri_after"], "reason_before": row["reason_before"], "reason_after": row["reason_after"]}
        for row in rows
    ]


def _is(column: pa.ChunkedArray, value: str | None) -> pa.ChunkedArray:
    return pc.is_null(column) if value is None else pc.fill_null(pc.equal(column, value), False)


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    names = (("source", "source"), ("stack", "stack_fingerprint"), ("policy", "policy_hash"))
    told = [(what, str(first.get(name) or "–"), str(second.get(name) or "–")) for what, name in names]
    versions = [summary.get("versions") or {} for summary in (first, second)]
    told += [(name, str(versions[0].get(name, "–")), str(versions[1].get(name, "–"))) for name in _names(versions)]
    return [entry for entry in told if entry[1] != entry[2]]


def _names(versions: Sequence[Mapping[str, str]]) -> list[str]:
    return sorted({name for each in versions for name in each})

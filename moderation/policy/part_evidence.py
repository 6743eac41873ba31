"""The votes that verdicts rest on, of the items of a part; pure. The twin of `evidence.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moderation.policy.bind import BoundPolicy
from moderation.policy.evidence import MAX_EVIDENCE, cells_of_check
from moderation.policy.part_rules import NO_CHECK
from moderation.policy.part_scores import I64, PartScores
from moderation.policy.scores import CheckScore

_NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEvidence:
    """Cells of the votes, the weightiest first. rows, columns: int64 [I,5], -1 behind the last one."""

    rows: I64
    columns: I64


def gather_part_evidence(bound: BoundPolicy, scores: PartScores, decided: I64) -> PartEvidence:
    """At most 5 cells per item. decided: int64 [I], the place of the check that decided; NO_CHECK for a default."""
    count = len(scores)
    cells = PartEvidence(
        rows=np.full((count, MAX_EVIDENCE), _NONE, np.int64), columns=np.full((count, MAX_EVIDENCE), _NONE, np.int64)
    )
    strongest = _strongest_negative(bound, scores)
    for k in np.unique(decided).tolist():
        items = np.flatnonzero(decided == k)
        if k == NO_CHECK:
            cells.rows[items], cells.columns[items] = strongest.rows[items], strongest.columns[items]
        elif scores.checks[k].side == "negative":
            _fill_negative(cells, scores, k, items)
        else:
            _fill_cells(cells, scores, k, items, _frame_of(scores, k, items, weakest=True), -1.0, MAX_EVIDENCE - 1)
            _append(cells, strongest, items)
    return cells


def has_twin_columns(bound: BoundPolicy) -> bool:
    """Whether one negative check takes a vote as it is and another one inverts it."""
    columns = [column for column, _ in bound.negative_columns]
    return len(set(columns)) < len(columns)


def _strongest_negative(bound: BoundPolicy, scores: PartScores) -> PartEvidence:
    """Each item's strongest vote in every negative column, the strongest columns first."""
    count, starts = len(scores), scores.offsets[:-1]
    places = np.array([column for column, _ in bound.negative_columns], np.int64)
    values, rows = np.empty((count, len(places))), np.empty((count, len(places)), np.int64)
    for at, (column, inverted) in enumerate(bound.negative_columns):
        keys = scores.votes[:, column] if inverted else -scores.votes[:, column]
        keys = np.where(np.isnan(keys), np.inf, keys)
        values[:, at] = np.minimum.reduceat(keys, starts)
        rows[:, at] = _first_rows(keys, values[:, at], scores.offsets)
    order = np.lexsort((np.broadcast_to(places, values.shape), rows, values), axis=-1)[:, :MAX_EVIDENCE]
    missing = np.isinf(np.take_along_axis(values, order, axis=1))
    chosen = np.where(missing, _NONE, np.take_along_axis(rows, order, axis=1))
    columns = np.where(missing, _NONE, places[order])
    return PartEvidence(rows=_widen(chosen), columns=_widen(columns))


def _widen(cells: I64) -> I64:
    """[I,n] padded to [I,5]."""
    return np.pad(cells, ((0, 0), (0, MAX_EVIDENCE - cells.shape[1])), constant_values=_NONE)


def _first_rows(keys: np.ndarray, values: np.ndarray, offsets: I64) -> I64:
    """int64 [I]: the first row of each item whose key is the item's value."""
    starts = offsets[:-1]
    if len(keys) == len(starts):
        return starts.astype(np.int64)
    places = np.arange(len(keys))
    found = np.where(keys == np.repeat(values, np.diff(offsets)), places, len(keys))
    return np.minimum.reduceat(found, starts).astype(np.int64)


def _fill_negative(cells: PartEvidence, scores: PartScores, k: int, items: I64) -> None:
    counts = np.diff(scores.offsets)[items]
    single = items[counts == 1]
    _fill_cells(cells, scores, k, single, scores.offsets[single], 1.0, MAX_EVIDENCE)
    for item in items[counts > 1].tolist():
        start, stop = int(scores.offsets[item]), int(scores.offsets[item + 1])
        decided = CheckScore(scores.checks[k], scores.frames_of(item, k), None, False, None)
        own = cells_of_check(decided, scores.votes[start:stop].tolist(), 1.0, MAX_EVIDENCE)[:MAX_EVIDENCE]
        for nth, (row, column) in enumerate(own):
            cells.rows[item, nth], cells.columns[item, nth] = start + row, column


def _frame_of(scores: PartScores, k: int, items: I64, *, weakest: bool) -> I64:
    """int64 [n]: the row of each item with a check's lowest score, or its highest."""
    keys = np.where(np.isnan(scores.fused[k]), np.inf, scores.fused[k] if weakest else -scores.fused[k])
    lowest = np.minimum.reduceat(keys, scores.offsets[:-1])
    return _first_rows(keys, lowest, scores.offsets)[items]


def _fill_cells(cells: PartEvidence, scores: PartScores, k: int, items: I64, rows: I64, sign: float, most: int) -> None:
    """Fill in a check's votes on one row of each item, weightiest first. sign: 1 highest first, -1 lowest first."""
    check = scores.checks[k]
    columns = np.array(check.columns, np.int64)
    if check.invert:
        sign = -sign
    votes = scores.votes[np.ix_(rows, columns)] if len(rows) else np.empty((0, len(columns)))
    nulls = np.isnan(votes) | np.isnan(scores.fused[k][rows])[:, None]
    keys = np.where(nulls, np.inf, -sign * votes)
    order = np.lexsort((np.broadcast_to(columns, keys.shape), keys), axis=-1)[:, :most]
    absent = np.take_along_axis(nulls, order, axis=1)
    width = order.shape[1]
    cells.rows[items, :width] = np.where(absent, _NONE, rows[:, None])
    cells.columns[items, :width] = np.where(absent, _NONE, columns[order])


def _append(cells: PartEvidence, strongest: PartEvidence, items: I64) -> None:
    """Append the strongest vote of any negative check, unless it is there already."""
    rows, columns = cells.rows[items], cells.columns[items]
    row, column = strongest.rows[items, 0], strongest.columns[items, 0]
    there = ((rows == row[:, None]) & (columns == column[:, None])).any(axis=1)
    add = ~there & (row != _NONE)
    at = (rows != _NONE).sum(axis=1)
    cells.rows[items[add], at[add]] = row[add]
    cells.columns[items[add], at[add]] = column[add]

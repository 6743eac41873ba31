"""The votes that a verdict rests on."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from moderation.policy import aggregate
from moderation.policy.aggregate import is_null
from moderation.policy.bind import BoundPolicy
from moderation.policy.scores import CheckScore
from moderation.types import Evidence, ItemVotes, Role

MAX_EVIDENCE = 5  # a reviewer reads the first two; more only widens the table


def gather_evidence(
    decided: CheckScore | None,
    shown: Sequence[int],
    bound: BoundPolicy,
    votes: ItemVotes,
    rows: Sequence[Sequence[float]],
) -> tuple[Evidence, ...]:
    """At most 5 votes, the weightiest first.

    decided: the check that decided; None for a default. shown: rows to take evidence from; empty: all.
    rows: the votes as floats, NaN = null.
    """
    if decided is None:
        cells = _strongest_negative(bound, rows)  # (row, column), strongest first
    elif shown:
        frames = [f if row in shown else aggregate.NULL for row, f in enumerate(decided.frames)]
        cells = cells_of_check(decided._replace(frames=frames), rows, 1.0, MAX_EVIDENCE)
    elif decided.check.side == "negative":
        cells = cells_of_check(decided, rows, 1.0, MAX_EVIDENCE)
    else:
        cells = cells_of_check(decided, rows, -1.0, 1)[: MAX_EVIDENCE - 1] + _strongest_negative(bound, rows)[:1]
    return tuple([_as_evidence(votes, rows, *cell) for cell in list(dict.fromkeys(cells))[:MAX_EVIDENCE]])


def cells_of_check(
    scored: CheckScore, rows: Sequence[Sequence[float]], sign: float, count: int
) -> list[tuple[int, int]]:
    """A check's votes as (row, column), on `count` frames. sign: 1 highest frames first, -1 lowest first."""
    frames, columns = scored.frames, scored.check.columns
    indices = [index for index, score in enumerate(frames) if not is_null(score)]
    if len(indices) > 1:
        indices = heapq.nsmallest(count, indices, key=lambda index: (-sign * frames[index], index))
    if scored.check.invert:
        sign = -sign
    cells = []
    for index in indices:
        row = rows[index]
        cells += [(index, c) for _, c in sorted([(-sign * row[c], c) for c in columns if not is_null(row[c])])]
    return cells


def _strongest_negative(bound: BoundPolicy, rows: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    strongest = []
    for column, inverted in bound.negative_columns:
        sign = 1.0 if inverted else -1.0
        present = [(sign * row[column], index, column) for index, row in enumerate(rows) if not is_null(row[column])]
        if present:
            strongest.append(min(present))
    return [(index, column) for _, index, column in sorted(strongest)]


def _as_evidence(votes: ItemVotes, rows: Sequence[Sequence[float]], index: int, column: int) -> Evidence:
    detector, _, label = votes.labels[column].partition(".")
    regions = votes.regions[index] if index < len(votes.regions) else ()
    region = None
    if regions:
        matching = (r for r in regions if r.detector == detector and r.label == label)
        region = max(matching, key=lambda r: r.score, default=None)
    return Evidence(
        detector=detector,
        label=label,
        score=rows[index][column],
        frame=votes.frames[index],
        time_s=votes.times_s[index],
        box=_place(votes, index, (region.x0, region.y0, region.x1, region.y1) if region else None),
    )


def _place(
    votes: ItemVotes, index: int, box: tuple[float, float, float, float] | None
) -> tuple[float, float, float, float] | None:
    # A reviewer sees the picture, not the tile: its regions are placed in the picture.
    tile = votes.boxes[index] if votes.boxes and votes.roles[index] == Role.TILE else None
    if tile is None or box is None:
        return box or tile
    x0, y0, x1, y1 = tile
    wide, high = x1 - x0, y1 - y0
    return x0 + box[0] * wide, y0 + box[1] * high, x0 + box[2] * wide, y0 + box[3] * high

"""Frames that are parts of others: what a check makes of a tile, and of the picture that it was cut from; pure.

A part alone can look like what it is not: a nose, a fold of cloth, a square of sand. So a part never blocks by itself:
its block counts only where the picture around it reaches the review threshold of the same check. A picture put together
from parts (`whole`) is judged like any picture.

Three kinds of rows, by `Frame.role` and `Frame.parent`:

    roots      no parent: ordinary frames, wholes, backdrops and variants (the frame as other viewers show it).
               All that positive checks are asked of.
    own        the ordinary frames among the roots: pooled as usual
    families   rows that share a parent: pooled by the check's own pool, each family by itself

A check's score is the highest of these: its own frames' score, each whole's and backdrop's, each family's. `blocking`,
the score by which it may block, leaves out each family whose parent scores under the check's `review` (its `block`
where it has none) or has no score. Both rise with every vote, so verdicts stay monotone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moderation.policy.aggregate import NULL, is_null
from moderation.types import ItemVotes, Role

_NOT_THERE = -1  # the row of a parent that was not scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinship:
    """An item's rows by how they relate to each other. families: row of the parent -> rows of its parts."""

    roots: tuple[int, ...]
    own: tuple[int, ...]
    wholes: tuple[int, ...]
    frames: tuple[int, ...]
    families: tuple[tuple[int, tuple[int, ...]], ...]


Pool = Callable[[Sequence[float]], float]


def find_kinship(votes: ItemVotes) -> Kinship | None:
    """Which rows belong to which; None where every frame stands for itself, as nearly always."""
    if all(parent is None for parent in votes.parents) and all(role == Role.FRAME for role in votes.roles):
        return None
    roles = votes.roles or (Role.FRAME,) * len(votes.frames)
    parents = votes.parents or (None,) * len(votes.frames)
    frames, roots = _rows_with(roles, Role.FRAME), _rows_with(parents, None)
    return Kinship(
        roots=roots,
        own=tuple(row for row in roots if row in frames),
        wholes=tuple(row for row in roots if row not in frames),
        frames=frames,
        families=_group_by_parent(votes.frames, parents),
    )


def _rows_with(values: Sequence[object], wanted: object) -> tuple[int, ...]:
    return tuple(row for row, value in enumerate(values) if value == wanted)


def _group_by_parent(frames: Sequence[int], parents: Sequence[int | None]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    row_of = {frame: row for row, frame in enumerate(frames)}
    families: dict[int, list[int]] = {}
    for row, parent in enumerate(parents):
        if parent is not None:
            families.setdefault(row_of.get(parent, _NOT_THERE), []).append(row)
    return tuple((row, tuple(rows)) for row, rows in families.items())


def pool_roots(fused: Sequence[float], kinship: Kinship, pool: Pool) -> float:
    """A positive check's score: pooled over the roots."""
    return pool([fused[row] for row in kinship.roots])


def pool_frames(fused: Sequence[float], kinship: Kinship, pool: Pool) -> float:
    """An attribute's score: pooled over the item's own frames alone."""
    return pool([fused[row] for row in kinship.frames])


def pool_in_context(
    fused: Sequence[float], kinship: Kinship, pool: Pool, agrees_at: float | None
) -> tuple[float, float]:
    """A negative check's (score, blocking); NaN = null.

    fused: [F], its score of each row. agrees_at: the score from which on a parent agrees with its parts.
    """
    sure = [pool([fused[row] for row in kinship.own]), *(fused[row] for row in kinship.wholes)]
    unsure: list[float] = []
    for parent, rows in kinship.families:
        around = fused[parent] if parent != _NOT_THERE else NULL
        agreed = agrees_at is not None and around >= agrees_at  # NaN compares false
        (sure if agreed else unsure).append(pool([fused[row] for row in rows]))
    blocking = _largest(sure)
    return _largest([blocking, *unsure]), blocking


def keep_roots(fused: Sequence[float], kinship: Kinship) -> list[float]:
    """The scores of the roots, null for every part."""
    kept = frozenset(kinship.roots)
    return [score if row in kept else NULL for row, score in enumerate(fused)]


def strongest_part(fused: Sequence[float], kinship: Kinship) -> tuple[int, ...]:
    """The row of the part that scores highest, and of its parent where that was scored: what a verdict shows."""
    parts = [(fused[row], -row, at) for at, rows in kinship.families for row in rows if not is_null(fused[row])]
    if not parts:
        return ()
    _, row, parent = max(parts)
    return (-row,) if parent == _NOT_THERE else (-row, parent)


def _largest(scores: Sequence[float]) -> float:
    return max((s for s in scores if not is_null(s)), default=NULL)

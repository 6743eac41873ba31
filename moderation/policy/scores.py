"""The score of every check on one item: fused over detectors, pooled over frames; and where a cascade ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moderation.policy import aggregate, context
from moderation.policy.aggregate import is_null
from moderation.policy.bind import BoundCheck
from moderation.policy.thresholds import as_float32


class CheckScore(NamedTuple):
    """One check's score on one item. Not a dataclass: ten are made per item, and a tuple takes half the time.

    frames: fused, per row of the votes, NaN = null. score: pooled over the frames that have one, float32.
    complete: there are frames, and each has a score. blocking: the score by which it may block, without parts that
    the picture around them does not agree with.
    """

    check: BoundCheck
    frames: list[float]
    score: float | None
    complete: bool
    blocking: float | None

    def highest(self) -> float | None:
        """The highest score of a frame, float32; None where none has one."""
        return as_float32(max((f for f in self.frames if not is_null(f)), default=None))


def score_checks(
    checks: Sequence[BoundCheck], rows: Sequence[Sequence[float]], kinship: context.Kinship | None
) -> tuple[dict[str, float | None], list[CheckScore]]:
    """(every check's score by name, the scores that rules read, with their frames).

    rows: votes per frame, NaN = null. kinship: where some rows are parts of others.
    """
    return _score_frames(checks, rows) if kinship is None else _score_kin(checks, rows, kinship)


def _score_frames(
    checks: Sequence[BoundCheck], rows: Sequence[Sequence[float]]
) -> tuple[dict[str, float | None], list[CheckScore]]:
    # Every frame stands for itself: nearly always.
    fused = [_fuse_frames(check, rows) for check in checks]
    pooled = [f[0] if len(f) == 1 else c.pool(f) for c, f in zip(checks, fused, strict=True)]
    rounded: list[float] = np.asarray(pooled, np.float32).tolist()  # one call takes 3 us, one call per score 5 us
    scores: dict[str, float | None] = {}
    scored: list[CheckScore] = []
    for check, frames, number in zip(checks, fused, rounded, strict=True):
        computed = not math.isnan(number)
        score = scores[check.name] = number if computed else None
        if check.side != "attribute" or check.watched:
            complete = computed and (len(frames) == 1 or not any(map(is_null, frames)))
            scored.append(CheckScore(check, frames, score, complete, score))
    return scores, scored


def _score_kin(
    checks: Sequence[BoundCheck], rows: Sequence[Sequence[float]], kinship: context.Kinship
) -> tuple[dict[str, float | None], list[CheckScore]]:
    scores: dict[str, float | None] = {}
    deciding: list[CheckScore] = []
    for check in checks:
        score = _score_check_kin(check, _fuse_frames(check, rows), kinship)
        scores[check.name] = score.score
        if check.side != "attribute" or check.watched:
            deciding.append(score)
    return scores, deciding


def _score_check_kin(check: BoundCheck, fused: list[float], kinship: context.Kinship) -> CheckScore:
    asked: Sequence[int] = range(len(fused))
    if check.side == "negative":
        agrees_at = check.block if check.review is None else check.review
        number, blocking_number = context.pool_in_context(fused, kinship, check.pool, agrees_at)
    elif check.side == "positive":
        asked, fused = kinship.roots, context.keep_roots(fused, kinship)
        number = blocking_number = context.pool_roots(fused, kinship, check.pool)
    else:
        number = blocking_number = context.pool_frames(fused, kinship, check.pool)
    score, blocking = _as_score(number), _as_score(blocking_number)
    complete = score is not None and not any(is_null(fused[row]) for row in asked)
    return CheckScore(check, fused, score, complete, blocking)


def _as_score(number: float) -> float | None:
    return None if is_null(number) else as_float32(number)


def end_cascade(checks: Sequence[BoundCheck], scores: dict[str, float | None], deciding: list[CheckScore]) -> None:
    """Remove the scores of the checks after the first one that stops the cascade (in place).

    They were computed all the same: that costs nothing beside the votes.
    """
    last = min((s.check.order for s in deciding if s.check.order is not None and _stops(s)), default=None)
    if last is None:
        return
    unasked = {check.name for check in checks if check.order is not None and check.order > last}
    scores.update(dict.fromkeys(unasked))
    for index, s in enumerate(deciding):
        if s.check.name in unasked:
            deciding[index] = CheckScore(s.check, [aggregate.NULL] * len(s.frames), None, False, None)


def _stops(score: CheckScore) -> bool:
    reached = score.blocking if score.check.stops_by_block else score.score
    return score.check.stops_at is not None and reached is not None and reached >= score.check.stops_at


def _fuse_frames(check: BoundCheck, rows: Sequence[Sequence[float]]) -> list[float]:
    if check.fuse is None:
        column = check.columns[0]
        return [1.0 - row[column] for row in rows] if check.invert else [row[column] for row in rows]
    if check.invert:
        return [check.fuse([1.0 - row[c] for c in check.columns]) for row in rows]
    return [check.fuse([row[c] for c in check.columns]) for row in rows]

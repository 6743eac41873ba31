"""An item's votes -> its judgement, by the rules of a policy; pure: no clock, no file, no state.

    negative checks   any over `block`                        -> block   negative:<check>:block
                      else any over `block` by a part alone   -> review  context:<check>:review
                      else any over `review`                  -> review  negative:<check>:review
    nulls             else any with `null: review` and a null -> review  null:<check>:review
    positive checks   else any over `pass`                    -> pass    positive:<check>:pass
    default           else                                    -> default:review or default:pass

A positive check is asked only where no negative one objects. Where several checks qualify, the one furthest over its
threshold (as a part of the way to 1) decides, then the first by name.

A part of a picture (a tile) blocks only where the picture around it agrees; see `context`.

A cascade: checks with an `order` are asked in that order, and one with `stop` that decides ends it. What was not asked
has no score; it could not have been harsher than the verdict that the stop leads to.

Scores and thresholds are compared as float32, the type of the tables, so that a rejudge decides alike. Verdicts are
monotone in the scores of the checks: up for a negative one is never milder, up for a positive one never harsher.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from moderation.errors import UsageError
from moderation.policy import aggregate, context
from moderation.policy.model import Check, Policy, Side, check_names, load_policy, policy_hash
from moderation.types import ErrorCode, Evidence, ItemVotes, Judgement, Role, Verdict

__all__ = ["BoundPolicy", "Policy", "bind", "check_names", "judge", "judge_item", "load_policy", "policy_hash"]

MAX_EVIDENCE = 5  # a reviewer reads the first two; more only widens the table


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCheck:
    """A check tied to the columns of a stack's votes; thresholds are float32 values."""

    name: str
    side: Side
    columns: tuple[int, ...]
    invert: bool
    fuse: Callable[[Sequence[float]], float] | None  # None: a single vote, taken as it is
    pool: Callable[[Sequence[float]], float]
    block: float | None
    review: float | None
    pass_: float | None
    null_is_review: bool
    order: int | None
    stops_at: float | None  # from this score on no check of a higher order is asked
    stops_by_block: bool  # a check of a higher order can block, so only a block may stop it


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPolicy:
    """A policy tied to the columns of a stack's votes, ready to judge; picklable."""

    policy: Policy
    labels: tuple[str, ...]
    checks: tuple[BoundCheck, ...]
    cascade: bool  # whether any check can stop it
    negative_columns: tuple[tuple[int, bool], ...]  # of every negative check's votes, each once; and if it inverts them


class _Scored(NamedTuple):  # not a dataclass: made ten times an item, and a tuple is made in half the time
    check: BoundCheck
    frames: list[float]  # fused, NaN = null
    score: float | None  # pooled over the frames that have one, float32
    complete: bool  # every frame has one, and there are frames
    blocking: float | None  # the score as far as it may block: without parts that their picture does not bear out


class _Hit(NamedTuple):
    excess: float
    scored: _Scored
    threshold: float
    shown: tuple[int, ...] = ()  # the rows that are its evidence; empty: the strongest


def bind(
    policy: Policy, labels: Sequence[str], *, gated: Collection[str] = (), disabled: Collection[str] = ()
) -> BoundPolicy:
    """Tie a policy to the votes that a stack casts.

    labels: columns of the votes, `detector.label`, in order.
    gated: those of them behind a `when:`. A check that decides by one must say what a null means, in so many words.
    disabled: labels that the stack has but this run leaves out (`stack.only`); their votes are null throughout.
    Raises UsageError naming the check, the vote and the nearest right one.
    """
    columns = {label: index for index, label in enumerate(labels)}
    for label in disabled:
        columns.setdefault(label, -1)  # `judge` appends a null to every row
    problems = [p for name, check in policy.checks.items() for p in _find_problems(name, check, columns, gated)]
    if problems:
        raise UsageError("\n".join(problems))
    checks = tuple(_bind_check(name, check, columns, policy) for name, check in policy.checks.items())
    negative = dict.fromkeys((c, check.invert) for check in checks if check.side == "negative" for c in check.columns)
    return BoundPolicy(
        policy=policy,
        labels=tuple(labels),
        checks=checks,
        cascade=any(check.stops_at is not None for check in checks),
        negative_columns=tuple(negative),
    )


def judge(bound: BoundPolicy, votes: ItemVotes) -> Judgement:
    """What the policy makes of one item's votes.

    scores: one a check, over the frames that have one; None where none has.

    confidence, 0..1, a distance from the nearest threshold that would have decided otherwise, not a probability:
    block and pass, the part of the way from the threshold to 1; review by a negative check, the distance to the nearer
    end of its band as a part of half the band; default, how far the closest call stayed below its threshold, as a part
    of it; None for nulls.

    evidence, at most 5: of a negative check its votes on its highest frames; of a positive one its votes on its weakest
    frame and the strongest vote of any negative check; of a default the strongest votes of the negative checks.

    Infinite votes count as null. An item with no frames, or none of whose deciding checks has a score, is never passed.
    Raises UsageError where the votes have other columns than the policy was bound to.
    """
    if votes.labels != bound.labels:
        raise UsageError(f"votes have the columns {votes.labels}, the policy was bound to {bound.labels}")
    numbers = votes.scores
    if np.isinf(numbers).any():
        numbers = np.where(np.isinf(numbers), np.float32(aggregate.NULL), numbers)  # an overflow is no score
    rows: list[list[float]] = numbers.tolist()
    for row in rows:
        row.append(aggregate.NULL)
    kinship = context.find_kinship(votes)
    scores, scored = _score(bound.checks, rows) if kinship is None else _score_kin(bound.checks, rows, kinship)
    if bound.cascade:
        _end_cascade(bound.checks, scores, scored)

    def decide(verdict: Verdict, reason: str, hit: _Hit | None, confidence: float | None) -> Judgement:
        return Judgement(
            verdict=verdict,
            reason=reason,
            check=hit.scored.check.name if hit else None,
            score=hit.scored.score if hit else None,
            confidence=confidence,
            evidence=_gather_evidence(hit, bound, votes, rows),
            scores=scores,
        )

    if hit := _furthest((s, s.blocking, s.check.block) for s in scored):
        return decide(Verdict.BLOCK, f"negative:{hit.scored.check.name}:block", hit, hit.excess)
    if kinship is not None and (hit := _furthest((s, s.score, s.check.block) for s in scored)):
        hit = hit._replace(shown=context.strongest_part(hit.scored.frames, kinship))
        return decide(Verdict.REVIEW, f"context:{hit.scored.check.name}:review", hit, hit.excess)
    if hit := _furthest((s, s.score, s.check.review) for s in scored):
        return decide(Verdict.REVIEW, f"negative:{hit.scored.check.name}:review", hit, _band_confidence(hit))
    for s in scored:
        if s.check.null_is_review and not s.complete:
            return decide(Verdict.REVIEW, f"null:{s.check.name}:review", _Hit(0.0, s, 1.0), None)
    if hit := _furthest((s, s.score, s.check.pass_) for s in scored if s.complete):
        return decide(Verdict.PASS, f"positive:{hit.scored.check.name}:pass", hit, hit.excess)
    if bound.policy.default == "pass":
        if not any(_was_asked(s, kinship) for s in scored):
            return decide(Verdict.REVIEW, "null:all:review", None, None)
        return decide(Verdict.PASS, "default:pass", None, _closest_call(scored, Verdict.PASS))
    return decide(Verdict.REVIEW, "default:review", None, _closest_call(scored, Verdict.REVIEW))


def judge_item(votes: ItemVotes | None, code: ErrorCode | None, bound: BoundPolicy) -> Judgement:
    """The policy's judgement; an item with an error is never passed, but what was scored of it may block it."""
    if votes is None:
        return Judgement(
            verdict=Verdict.REVIEW, reason=f"error:{code}", check=None, score=None, confidence=None, scores={}
        )
    judged = judge(bound, votes)
    if code is None or judged.verdict is Verdict.BLOCK:
        return judged
    return Judgement(
        verdict=Verdict.REVIEW,
        reason=judged.reason if judged.verdict is Verdict.REVIEW else f"error:{code}",
        check=judged.check if judged.verdict is Verdict.REVIEW else None,
        score=judged.score if judged.verdict is Verdict.REVIEW else None,
        confidence=judged.confidence if judged.verdict is Verdict.REVIEW else None,
        evidence=judged.evidence,
        scores=judged.scores,
    )


def _was_asked(scored: _Scored, kinship: context.Kinship | None) -> bool:
    # Of the item itself: what is known of its parts alone does not let it pass.
    if scored.score is None or kinship is None:
        return scored.score is not None
    return any(scored.frames[row] == scored.frames[row] for row in kinship.roots)


def _find_problems(name: str, check: Check, columns: Collection[str], gated: Collection[str]) -> Iterable[str]:
    for label in check.votes:
        if label not in columns:
            close = difflib.get_close_matches(label, list(columns), n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"it casts: {', '.join(columns) or 'none'}"
            yield f"check {name!r}: the stack casts no vote {label!r}; {hint}"
        elif label in gated and check.side != "attribute" and "null" not in check.model_fields_set:
            yield f"check {name!r}: {label!r} has a `when:`, so say what a null means: `null: review` or `null: ignore`"


def _bind_check(name: str, check: Check, columns: dict[str, int], policy: Policy) -> BoundCheck:
    pooling = check.pooling
    order = check.order
    later = [c for c in policy.checks.values() if order is not None and c.order is not None and c.order > order]
    fuse = partial(
        aggregate.fuse,
        method=check.fuse.method,
        weights=tuple(check.votes.values()),
        k=check.fuse.k or 1,
        missing=check.fuse.missing,
    )
    return BoundCheck(
        name=name,
        side=check.side,
        columns=tuple(columns[label] for label in check.votes),
        invert=check.invert,
        fuse=fuse if len(check.votes) > 1 else None,
        pool=partial(
            aggregate.pool,
            method=pooling.method,
            k=pooling.k or 1,
            length=pooling.length or 1,
            gap=pooling.gap or 0,
        ),
        block=_as_float32(check.block),
        review=_as_float32(check.review),
        pass_=_as_float32(check.pass_),
        null_is_review=check.side != "attribute" and check.null == "review",
        order=check.order,
        stops_at=_as_float32(policy.stops_at(name)),
        stops_by_block=any(c.block is not None for c in later),
    )


def _as_float32(number: float | None) -> float | None:
    return None if number is None else float(np.float32(number))


def _score(
    checks: Sequence[BoundCheck], rows: Sequence[Sequence[float]]
) -> tuple[dict[str, float | None], list[_Scored]]:
    # The score of every check, and what the deciding ones rest on.
    fused = [_fuse_frames(check, rows) for check in checks]
    pooled = [f[0] if len(f) == 1 else c.pool(f) for c, f in zip(checks, fused, strict=True)]
    rounded: list[float] = np.asarray(pooled, np.float32).tolist()  # in one call: 3 us, one by one 5
    scores: dict[str, float | None] = {}
    scored: list[_Scored] = []
    for check, frames, number in zip(checks, fused, rounded, strict=True):
        computed = number == number
        score = scores[check.name] = number if computed else None
        if check.side != "attribute":
            complete = computed and (len(frames) == 1 or not any(f != f for f in frames))
            scored.append(_Scored(check, frames, score, complete, score))
    return scores, scored


def _score_kin(
    checks: Sequence[BoundCheck], rows: Sequence[Sequence[float]], kinship: context.Kinship
) -> tuple[dict[str, float | None], list[_Scored]]:
    # As `_score`, where some rows are parts of others.
    scores: dict[str, float | None] = {}
    scored: list[_Scored] = []
    for check in checks:
        fused = _fuse_frames(check, rows)
        if check.side == "negative":
            agrees_at = check.block if check.review is None else check.review
            pair = context.pool_in_context(fused, kinship, check.pool, agrees_at)
        elif check.side == "positive":
            fused = context.keep_roots(fused, kinship)
            pair = (context.pool_roots(fused, kinship, check.pool),) * 2
        else:
            pair = (context.pool_frames(fused, kinship, check.pool),) * 2
        score, blocking = (_as_float32(number) if number == number else None for number in pair)
        scores[check.name] = score
        if check.side != "attribute":
            asked = kinship.roots if check.side == "positive" else range(len(fused))
            complete = score is not None and not any(fused[row] != fused[row] for row in asked)
            scored.append(_Scored(check, fused, score, complete, blocking))
    return scores, scored


def _end_cascade(checks: Sequence[BoundCheck], scores: dict[str, float | None], scored: list[_Scored]) -> None:
    # Scores are there already (they cost nothing against the votes); those behind the first stop are taken back.
    def stops(s: _Scored) -> bool:
        score = s.blocking if s.check.stops_by_block else s.score
        return s.check.stops_at is not None and score is not None and score >= s.check.stops_at

    last = min((s.check.order for s in scored if s.check.order is not None and stops(s)), default=None)
    if last is None:
        return
    for check in checks:
        if check.order is not None and check.order > last:
            scores[check.name] = None
    for index, s in enumerate(scored):
        if s.check.order is not None and s.check.order > last:
            unasked = [aggregate.NULL] * len(s.frames)
            scored[index] = _Scored(s.check, unasked, None, False, None)


def _fuse_frames(check: BoundCheck, rows: Sequence[Sequence[float]]) -> list[float]:
    if check.fuse is None:
        column = check.columns[0]
        return [1.0 - row[column] for row in rows] if check.invert else [row[column] for row in rows]
    if check.invert:
        return [check.fuse([1.0 - row[c] for c in check.columns]) for row in rows]
    return [check.fuse([row[c] for c in check.columns]) for row in rows]


def _furthest(candidates: Iterable[tuple[_Scored, float | None, float | None]]) -> _Hit | None:
    best: _Hit | None = None
    for scored, score, threshold in candidates:
        if threshold is None or score is None or score < threshold:
            continue
        room = 1.0 - threshold
        excess = min(1.0, (score - threshold) / room) if room > 0 else 1.0
        if best is None or excess > best.excess:
            best = _Hit(excess, scored, threshold)
    return best


def _band_confidence(hit: _Hit) -> float:
    top = hit.scored.check.block
    if top is None or top <= hit.threshold or hit.scored.score is None:
        return hit.excess
    nearer = min(hit.scored.score - hit.threshold, top - hit.scored.score)
    return min(1.0, 2.0 * nearer / (top - hit.threshold))


def _closest_call(scored: Iterable[_Scored], verdict: Verdict) -> float | None:
    # What could have decided otherwise: a negative check against a pass, a positive one against a review.
    margins = []
    for s in scored:
        passing = (s.check.pass_,) if s.complete else ()
        thresholds = (s.check.review, s.check.block) if verdict is Verdict.PASS else passing
        margins += [(t - s.score) / t for t in thresholds if s.score is not None and t]
    return max(0.0, min(1.0, *margins)) if margins else None


def _gather_evidence(
    hit: _Hit | None, bound: BoundPolicy, votes: ItemVotes, rows: Sequence[Sequence[float]]
) -> tuple[Evidence, ...]:
    if hit is None:
        cells = _strongest_negative(bound, rows)  # (row, column), strongest first
    elif hit.shown:
        frames = [f if row in hit.shown else aggregate.NULL for row, f in enumerate(hit.scored.frames)]
        cells = _cells_of_check(hit.scored._replace(frames=frames), rows, 1.0, MAX_EVIDENCE)
    elif hit.scored.check.side == "negative":
        cells = _cells_of_check(hit.scored, rows, 1.0, MAX_EVIDENCE)
    else:
        cells = _cells_of_check(hit.scored, rows, -1.0, 1)[: MAX_EVIDENCE - 1] + _strongest_negative(bound, rows)[:1]
    return tuple([_as_evidence(votes, rows, *cell) for cell in list(dict.fromkeys(cells))[:MAX_EVIDENCE]])


def _cells_of_check(scored: _Scored, rows: Sequence[Sequence[float]], sign: float, count: int) -> list[tuple[int, int]]:
    frames, columns = scored.frames, scored.check.columns
    indices = [index for index, score in enumerate(frames) if score == score]
    if len(indices) > 1:
        indices = heapq.nsmallest(count, indices, key=lambda index: (-sign * frames[index], index))
    if scored.check.invert:
        sign = -sign
    cells = []
    for index in indices:
        row = rows[index]
        cells += [(index, c) for _, c in sorted([(-sign * row[c], c) for c in columns if row[c] == row[c]])]
    return cells


def _strongest_negative(bound: BoundPolicy, rows: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    found = []
    for column, inverted in bound.negative_columns:
        sign = 1.0 if inverted else -1.0
        present = [(sign * row[column], index, column) for index, row in enumerate(rows) if row[column] == row[column]]
        if present:
            found.append(min(present))
    return [(index, column) for _, index, column in sorted(found)]


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
    # Nobody has a tile at hand: what is in it is shown where it lies in the picture.
    tile = votes.boxes[index] if votes.boxes and votes.roles[index] == Role.TILE else None
    if tile is None or box is None:
        return box or tile
    x0, y0, x1, y1 = tile
    wide, high = x1 - x0, y1 - y0
    return x0 + box[0] * wide, y0 + box[1] * high, x0 + box[2] * wide, y0 + box[3] * high

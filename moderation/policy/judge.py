"""An item's votes -> its judgement, by the rules of a policy; pure: no clock, no file, no state.

`rules` has the order of the rules. A positive check is asked only where no negative one objects. A part of a picture (a
tile) blocks only where the picture around it agrees; see `context`.

A cascade: checks with an `order` are asked in that order, and one with `stop` that decides ends it. A check that was
not asked has no score; it could not have been harsher than the verdict that the stop leads to.

Scores and thresholds are compared as float32, the type of the tables, so that a rejudge decides alike. Verdicts are
monotone in the scores of the checks: raising a negative one never makes them milder, raising a positive one never
harsher. One exception: an allow-list passes over every check that is not severe, however high; see docs/policy.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moderation.errors import UsageError
from moderation.policy import aggregate, context
from moderation.policy.audit import is_drawn
from moderation.policy.bind import BoundPolicy
from moderation.policy.case import Case, CaseDecision
from moderation.policy.evidence import gather_evidence
from moderation.policy.explain import explain
from moderation.policy.list_rules import block_by_list
from moderation.policy.review_rank import Reviewed, review_rank, votes_of
from moderation.policy.rules import decide, withhold
from moderation.policy.scores import end_cascade, score_checks
from moderation.policy.segments import find_segments
from moderation.policy.variants import checks_for
from moderation.types import ErrorCode, Evidence, ItemFacts, ItemVotes, Judgement, Seen, Verdict


def judge(
    bound: BoundPolicy,
    votes: ItemVotes,
    error: ErrorCode | None = None,
    seen: Seen | None = None,
    facts: ItemFacts | None = None,
) -> Judgement:
    """What the policy makes of one item's votes.

    error: why the item could not be judged whole; then it is never passed.
    seen: its kind, by which checks may pool, and how much of it was looked at, which may withhold a pass; None: an
    image, looked at whole.
    facts: what else is known of it, for lists, thresholds by attribute and the audit; None: nothing.

    scores: one per check, over the frames that have one; None where none has.

    confidence, 0..1, is the distance from the nearest threshold that would have decided otherwise, not a probability.
    block and pass: the fraction of the way from the threshold to 1. Review by a negative check: the distance to the
    nearer end of its band, over half the band. Default: how far the closest check stayed below its threshold, as a
    fraction of it. None for nulls and errors.

    evidence, at most 5 votes. Of a negative check: its votes on its highest frames. Of a positive one: its votes on its
    weakest frame and the strongest vote of any negative check. Of a default: the negative checks' strongest votes.

    Infinite votes count as null. An item with no frames, or none of whose deciding checks has a score, is never passed.
    Raises UsageError where the votes have other columns than the policy was bound to.
    """
    if votes.labels != bound.labels:
        raise UsageError(f"votes have the columns {votes.labels}, the policy was bound to {bound.labels}")
    rows = _rows_of(votes)
    kinship = context.find_kinship(votes)
    checks = checks_for(bound, seen, facts)
    scores, deciding = score_checks(checks, rows, kinship)
    if bound.cascade:
        end_cascade(checks, scores, deciding)
    case = Case(
        bound=bound,
        scores=deciding,
        kinship=kinship,
        error=error,
        seen=seen,
        facts=facts,
        votes=votes,
        rows=rows,
    )
    decision = decide(case)
    # Gathered before a pass is withheld: a reviewer sees what the checks relied on.
    evidence = gather_evidence(decision.by, decision.shown, bound, votes, rows)
    return _judgement(withhold(case, decision), case, evidence, scores)


def judge_item(
    votes: ItemVotes | None,
    error: ErrorCode | None,
    bound: BoundPolicy,
    seen: Seen | None = None,
    facts: ItemFacts | None = None,
) -> Judgement:
    """Like `judge`; votes None: nothing of the item was scored, so it goes to review unless a deny-list blocks it."""
    if votes is not None:
        return judge(bound, votes, error, seen, facts)
    case = Case(bound=bound, scores=(), error=error, seen=seen, facts=facts)
    denied = block_by_list(case) or CaseDecision(Verdict.REVIEW, f"error:{error}")
    return _judgement(denied, case, (), {})


def _judgement(
    decision: CaseDecision, case: Case, evidence: tuple[Evidence, ...], scores: Mapping[str, float | None]
) -> Judgement:
    bound, by = case.bound, decision.by
    against = by.check if by is not None and by.check.side == "negative" else None
    severity = against.severity if against else decision.severity
    segments = find_segments(case.scores, case.votes) if case.votes is not None else ()
    return Judgement(
        verdict=decision.verdict,
        reason=decision.reason,
        check=None if by is None else by.check.name,
        score=None if by is None else by.score,
        confidence=decision.confidence,
        evidence=evidence,
        scores=scores,
        threshold=decision.threshold,
        severity=severity,
        label=against.label if against else None,
        reason_text=explain(decision, bound.texts, segments),
        segments=segments,
        audit=is_drawn(bound.policy.audit, bound.audit, case.facts, scores),
        review_rank=review_rank(
            bound.review_order,
            bound.policy.severities,
            decision.verdict,
            Reviewed(decision.reason, decision.confidence, severity, against is not None, votes_of(evidence)),
            case.facts,
            bound.as_of,
        ),
    )


def _rows_of(votes: ItemVotes) -> list[list[float]]:
    """The votes per frame as floats, NaN = null, and a null at the end for labels that this run leaves out."""
    numbers = votes.scores
    if np.isinf(numbers).any():
        numbers = np.where(np.isinf(numbers), np.float32(aggregate.NULL), numbers)  # an overflow is no score
    rows: list[list[float]] = numbers.tolist()
    for row in rows:
        row.append(aggregate.NULL)
    return rows

"""The rules of a policy, in order: each looks at an item's scores and decides or says nothing. The first that decides
counts.

    block_by_list        on a deny-list that blocks                             block   list:<list>:block
    allow_by_list        on an allow-list; on no deny-list, nothing severe      pass    list:<list>:pass
    block_by_negative    any negative check over `block`                        block   negative:<check>:block
    review_by_list       on a deny-list that asks for a person                  review  list:<list>:review
    review_in_context    any over `block` only by a part of a picture           review  context:<check>:review
    review_isolated      any over `block` on a frame, but not pooled            review  isolated:<check>:review
    review_by_negative   any over `review`                                      review  negative:<check>:review
    review_nulls         any with `null: review` and a null                     review  null:<check>:review
    pass_by_positive     any positive check over `pass`, with no null           pass    positive:<check>:pass
    pass_by_vouch        all that a positive rule asks holds                    pass    vouch:<rule>:pass
    review_unasked       `default: pass`, and no check has a score              review  null:all:review
    by_default           otherwise                                              default:review or default:pass

Then `WITHHOLDING`: what may turn a pass into a review, whatever the checks say.

    withhold_errors      an item with an error code                             review  error:<code>
                         an album with one, in place of any other review        review  error:<code>
    withhold_unseen      a track or a picture of it was not looked at           review  unseen:track, unseen:...
                         two scored frames are further apart than may be        review  unseen:gap

Where several checks qualify for one rule, the one furthest over its threshold (as a fraction of the way to 1) decides,
then the first by name. A new rule is a function and a place in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from moderation.policy import context
from moderation.policy.aggregate import is_null
from moderation.policy.case import Case, CaseDecision, Exceeding, decide_by_check, furthest
from moderation.policy.list_rules import allow_by_list, block_by_list, review_by_list
from moderation.policy.scores import CheckScore
from moderation.policy.vouch_rule import pass_by_vouch
from moderation.types import Kind, Verdict


def block_by_negative(case: Case) -> CaseDecision | None:
    """A negative check is over its `block`."""
    top = furthest((s, s.blocking, s.check.block) for s in case.scores)
    return top and decide_by_check(Verdict.BLOCK, "negative", top, top.excess)


def review_in_context(case: Case) -> CaseDecision | None:
    """Only a part of a picture is over `block`; the picture around it does not agree."""
    if case.kinship is None:
        return None
    top = furthest((s, s.score, s.check.block) for s in case.scores)
    if top is None:
        return None
    shown = context.strongest_part(top.score.frames, case.kinship)
    return decide_by_check(Verdict.REVIEW, "context", top, top.excess)._replace(shown=shown)


def review_isolated(case: Case) -> CaseDecision | None:
    """A frame is over `block`, but the pooled score is not."""
    top = furthest((s, s.highest(), s.check.block) for s in case.scores if s.check.isolated)
    return top and decide_by_check(Verdict.REVIEW, "isolated", top, top.excess)


def review_by_negative(case: Case) -> CaseDecision | None:
    """A negative check is over its `review`."""
    top = furthest((s, s.score, s.check.review) for s in case.scores)
    return top and decide_by_check(Verdict.REVIEW, "negative", top, _band_confidence(top))


def review_nulls(case: Case) -> CaseDecision | None:
    """A check that says `null: review` has no score of some frame."""
    for score in case.scores:
        if score.check.null_is_review and not score.complete:
            return CaseDecision(Verdict.REVIEW, f"null:{score.check.name}:review", score)
    return None


def pass_by_positive(case: Case) -> CaseDecision | None:
    """A positive check with a score of every frame is over its `pass`."""
    top = furthest((s, s.score, s.check.pass_) for s in case.scores if s.complete)
    return top and decide_by_check(Verdict.PASS, "positive", top, top.excess)


def review_unasked(case: Case) -> CaseDecision | None:
    """`default: pass` does not pass an item of which nothing was asked."""
    if case.bound.policy.default != "pass" or any(
        _was_asked(s, case.kinship) for s in case.scores if s.check.side != "attribute"
    ):
        return None
    return CaseDecision(Verdict.REVIEW, "null:all:review")


def by_default(case: Case) -> CaseDecision:
    """No check decided."""
    verdict = Verdict(case.bound.policy.default)
    return CaseDecision(verdict, f"default:{verdict}", confidence=_closest_call(case.scores, verdict))


def withhold_errors(case: Case, decision: CaseDecision) -> CaseDecision:
    """An item with an error is never passed; what was scored of it may still block it."""
    if case.error is None or not (decision.verdict is Verdict.PASS or _is_in_album(case, decision)):
        return decision
    return CaseDecision(Verdict.REVIEW, f"error:{case.error}")


def _is_in_album(case: Case, decision: CaseDecision) -> bool:
    # An album's verdict is the first of block, error, review, pass: a picture that could not be read is named before
    # one that is unsure.
    return decision.verdict is Verdict.REVIEW and case.seen is not None and case.seen.kind is Kind.ALBUM


def withhold_unseen(case: Case, decision: CaseDecision) -> CaseDecision:
    """A pass claims that all that a viewer can be shown was looked at; where it was not, a person looks."""
    if case.seen is None or decision.verdict is not Verdict.PASS:
        return decision
    if case.seen.unseen:
        return CaseDecision(Verdict.REVIEW, f"unseen:{case.seen.unseen[0]}")
    allowed_s = case.bound.policy.unseen.allowed_gap_s(case.seen.duration_s)
    gap_s = case.seen.widest_gap_s
    if allowed_s is not None and gap_s is not None and gap_s > allowed_s:
        return CaseDecision(Verdict.REVIEW, "unseen:gap")
    return decision


Rule = Callable[[Case], CaseDecision | None]
RULES: tuple[Rule, ...] = (
    block_by_list,
    allow_by_list,
    block_by_negative,
    review_by_list,
    review_in_context,
    review_isolated,
    review_by_negative,
    review_nulls,
    pass_by_positive,
    pass_by_vouch,
    review_unasked,
)
WITHHOLDING: tuple[Callable[[Case, CaseDecision], CaseDecision], ...] = (withhold_errors, withhold_unseen)


def decide(case: Case) -> CaseDecision:
    """The decision of the first rule that decides, else the default."""
    for rule in RULES:
        decision = rule(case)
        if decision is not None:
            return decision
    return by_default(case)


def withhold(case: Case, decision: CaseDecision) -> CaseDecision:
    """The decision, or the review that it becomes where a pass is not warranted."""
    for rule in WITHHOLDING:
        decision = rule(case, decision)
    return decision


def _band_confidence(top: Exceeding) -> float:
    # Distance to the nearer end of the band between `review` and `block`, over half the band.
    score, end = top.score.score, top.score.check.block
    if end is None or end <= top.threshold or score is None:
        return top.excess
    nearer = min(score - top.threshold, end - score)
    return min(1.0, 2.0 * nearer / (end - top.threshold))


def _closest_call(scores: Iterable[CheckScore], verdict: Verdict) -> float | None:
    # What could have decided otherwise: a negative check against a pass, a positive one against a review.
    margins: list[float] = []
    for s in scores:
        if s.score is not None:
            score = s.score
            margins += [(threshold - score) / threshold for threshold in _thresholds_against(s, verdict) if threshold]
    return max(0.0, min(1.0, *margins)) if margins else None


def _thresholds_against(score: CheckScore, verdict: Verdict) -> tuple[float | None, ...]:
    if verdict is Verdict.PASS:
        return score.check.review, score.check.block
    return (score.check.pass_,) if score.complete else ()


def _was_asked(score: CheckScore, kinship: context.Kinship | None) -> bool:
    # Scores of the item's own pictures: those of its parts alone let nothing pass.
    if score.score is None or kinship is None:
        return score.score is not None
    return not all(is_null(score.frames[row]) for row in kinship.roots)

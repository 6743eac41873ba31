"""Many items of one kind at once -> what `judge` says of each; pure. For stored votes, which are judged by the million.

`part_scores`, `part_rules` and `part_evidence` compute in columns what `scores`, `rules` and `evidence` compute for one
item. What they do not cover is left to `judge_item`: items on a list, with parts of pictures, behind a stop of a
cascade, or passed by a rule with `declared`. The code for one item is the readable definition of a policy;
tests/unit/results/test_judged.py draws policies, votes and facts, and compares both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from moderation.policy.aggregate import is_null
from moderation.policy.audit import is_drawn
from moderation.policy.bind import BoundCheck, BoundPolicy
from moderation.policy.case import Case, CaseDecision
from moderation.policy.explain import explain
from moderation.policy.part_evidence import PartEvidence, gather_part_evidence, has_twin_columns
from moderation.policy.part_rules import NO_CHECK, PartCase, PartRuling, rulings
from moderation.policy.part_scores import F64, I64, Flags, PartScores, PartVotes, score_part
from moderation.policy.review_rank import Reviewed, review_rank
from moderation.policy.rules import withhold
from moderation.policy.scores import CheckScore
from moderation.policy.segments import SEGMENT_ROUNDING, find_segments
from moderation.types import ErrorCode, ItemFacts, ItemVotes, Kind, Seen, Segment, Verdict

_NO_SEGMENTS: Final[tuple[Segment, ...]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartItems:
    """What is known of I items besides their votes. times_s: of their F frames, NaN = none. facts: where needed."""

    errors: Sequence[ErrorCode | None]
    seen: Sequence[Seen]
    facts: Sequence[ItemFacts]
    times_s: F64


@dataclass(frozen=True, slots=True, kw_only=True)
class PartJudgement:
    """What `Judgement` holds, for I items. left: items that are left to `judge_item`.

    scores: float64 [I,K], NaN = null. evidence: cells of the votes.
    """

    checks: tuple[BoundCheck, ...]
    left: Flags
    decisions: Sequence[CaseDecision]
    scores: F64
    evidence: PartEvidence
    reason_texts: Sequence[str]
    segments: Sequence[tuple[Segment, ...]]
    audit: Sequence[bool]
    review_ranks: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDecisions:
    """What is decided of I items, and by what. left: items that are left to `judge_item`.

    decided: int64 [I], place of the check that decided, NO_CHECK where none did.
    """

    scores: PartScores
    left: Flags
    decisions: Sequence[CaseDecision]
    decided: I64


def decide_part(
    bound: BoundPolicy, votes: PartVotes, checks: tuple[BoundCheck, ...], kind: Kind, items: PartItems
) -> PartDecisions:
    """Decide items of one kind, without what explains it. checks: by `variants.checks_for`, the same for all."""
    scores = score_part(votes, checks, bound.policy.checks, kind)
    case = PartCase(bound=bound, scores=scores)
    place, ruling_list, unsure = _decide(case)
    left = unsure | _stopped(bound, scores)
    if has_twin_columns(bound):
        left = np.ones(len(votes), np.bool_)
    decided = np.full(len(votes), NO_CHECK, np.int64)
    for nth, ruling in enumerate(ruling_list):
        own = place == nth
        decided[own] = ruling.check[own]
    decisions = _withheld(bound, _decisions(case, place, ruling_list), items)
    return PartDecisions(scores=scores, left=left, decisions=decisions, decided=decided)


def judge_part(
    bound: BoundPolicy, votes: PartVotes, checks: tuple[BoundCheck, ...], kind: Kind, items: PartItems
) -> PartJudgement:
    """Judge items of one kind. checks: by `variants.checks_for`, the same for all of them."""
    part = decide_part(bound, votes, checks, kind, items)
    scores, decisions = part.scores, part.decisions
    evidence = gather_part_evidence(bound, scores, part.decided)
    segments = _find_segments(scores, items.times_s)
    texts = [
        explain(decision, bound.texts, segments.get(item, _NO_SEGMENTS)) for item, decision in enumerate(decisions)
    ]
    return PartJudgement(
        checks=checks,
        left=part.left,
        decisions=decisions,
        scores=scores.scores,
        evidence=evidence,
        reason_texts=texts,
        segments=[segments.get(item, _NO_SEGMENTS) for item in range(len(votes))],
        audit=_draw(bound, scores, items.facts),
        review_ranks=_rank(bound, scores, decisions, evidence, items.facts),
    )


def _decide(case: PartCase) -> tuple[I64, list[PartRuling], Flags]:
    """(index of the ruling that decides each item, the rulings, items for which columns cannot tell)."""
    count = len(case.scores)
    place, asked = np.full(count, -1, np.int64), list[PartRuling]()
    unsure = np.zeros(count, np.bool_)
    for rule in rulings(case):
        open_ = place < 0
        if not open_.any():
            break
        ruling = rule()
        if ruling.unsure is not None:
            unsure |= ruling.unsure & open_
        place[open_ & ruling.holds] = len(asked)
        asked.append(ruling)
    return place, asked, unsure


def _stopped(bound: BoundPolicy, scores: PartScores) -> Flags:
    """Items for which a check ends the cascade."""
    stopped = np.zeros(len(scores), np.bool_)
    for k, check in enumerate(scores.checks):
        if bound.cascade and check.stops_at is not None and check.side != "attribute":
            stopped |= scores.scores[:, k] >= check.stops_at
    return stopped


def _decisions(case: PartCase, place: I64, asked: Sequence[PartRuling]) -> list[CaseDecision]:
    scores = case.scores
    numbers: list[list[float]] = scores.scores.tolist()
    confidences = [_or_none(ruling.confidence) for ruling in asked]
    thresholds = [_or_none(ruling.threshold) for ruling in asked]
    checks: list[list[int]] = [ruling.check.tolist() for ruling in asked]
    decisions = []
    for item, nth in enumerate(place.tolist()):
        ruling, k = asked[nth], checks[nth][item]
        confidence, threshold = confidences[nth][item], thresholds[nth][item]
        if k == NO_CHECK:
            decisions.append(CaseDecision(ruling.verdict, ruling.reason, None, confidence, (), threshold))
            continue
        check, number = scores.checks[k], numbers[item][k]
        score = None if is_null(number) else number
        by = CheckScore(check, [], score, True, score)
        reason = f"{ruling.reason}:{check.name}:{ruling.verdict}"
        decisions.append(CaseDecision(ruling.verdict, reason, by, confidence, (), threshold))
    return decisions


def _or_none(numbers: F64) -> list[float | None]:
    shown = numbers.astype(object)  # Python's floats
    shown[np.isnan(numbers)] = None
    listed: list[float | None] = shown.tolist()
    return listed


def _withheld(bound: BoundPolicy, decisions: Sequence[CaseDecision], items: PartItems) -> list[CaseDecision]:
    kept = []
    for decision, error, seen in zip(decisions, items.errors, items.seen, strict=True):
        if error is None and seen.widest_gap_s is None and not seen.unseen:
            kept.append(decision)  # nothing to withhold a pass for
        else:
            kept.append(withhold(Case(bound=bound, scores=(), error=error, seen=seen), decision))
    return kept


def _find_segments(scores: PartScores, times_s: F64) -> dict[int, tuple[Segment, ...]]:
    """The segments of the items that have any; only checks with a frame near their threshold are searched."""
    timed = np.logical_or.reduceat(~np.isnan(times_s), scores.offsets[:-1])
    if not timed.any():
        return {}
    hits: dict[int, list[int]] = {}
    for k, check in enumerate(scores.checks):
        threshold = check.block if check.review is None else check.review
        if check.side == "negative" and threshold is not None:
            near = np.logical_or.reduceat(scores.fused[k] >= threshold - SEGMENT_ROUNDING, scores.offsets[:-1])
            for item in np.flatnonzero(near & timed).tolist():
                hits.setdefault(item, []).append(k)
    return {item: _segments_of(scores, item, checks, times_s) for item, checks in hits.items()}


def _segments_of(scores: PartScores, item: int, checks: Sequence[int], times_s: F64) -> tuple[Segment, ...]:
    rows = slice(int(scores.offsets[item]), int(scores.offsets[item + 1]))
    times = tuple(_or_none(times_s[rows]))
    found = [CheckScore(scores.checks[k], scores.frames_of(item, k), None, False, None) for k in checks]
    votes = ItemVotes(labels=(), frames=(), times_s=times, scores=np.empty((0, 0), np.float32))
    return find_segments(found, votes)


def _rank(
    bound: BoundPolicy,
    scores: PartScores,
    decisions: Sequence[CaseDecision],
    evidence: PartEvidence,
    facts: Sequence[ItemFacts],
) -> list[float | None]:
    levels = bound.policy.severities
    ranks: list[float | None] = []
    for item, decision in enumerate(decisions):
        if decision.verdict is not Verdict.REVIEW:
            ranks.append(None)
            continue
        check = decision.by.check if decision.by is not None and decision.by.check.side == "negative" else None
        votes = () if check is None else _votes_of(scores, evidence, item)
        severity = check.severity if check is not None else decision.severity
        reviewed = Reviewed(decision.reason, decision.confidence, severity, check is not None, votes)
        ranks.append(review_rank(bound.review_order, levels, decision.verdict, reviewed, facts[item], bound.as_of))
    return ranks


def _votes_of(scores: PartScores, evidence: PartEvidence, item: int) -> list[tuple[int | None, float]]:
    """The votes of an item's evidence; a row of the part stands for the frame."""
    cells = zip(evidence.rows[item].tolist(), evidence.columns[item].tolist(), strict=True)
    return [(row, float(scores.votes[row, column])) for row, column in cells if row >= 0]


def _draw(bound: BoundPolicy, scores: PartScores, facts: Sequence[ItemFacts]) -> list[bool]:
    if bound.policy.audit is None:
        return [False] * len(scores)
    names = [check.name for check in scores.checks]
    asked = sorted({names.index(side.check) for side in bound.audit})
    numbers = {names[k]: _or_none(scores.scores[:, k]) for k in asked}
    return [
        is_drawn(bound.policy.audit, bound.audit, own, {name: column[item] for name, column in numbers.items()})
        for item, own in enumerate(facts)
    ]

"""Why an item has its verdict: its row, its votes, the policy that decided, and what would have changed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moderation.analysis.what_if import WhatIf, find_changes, thresholds_of
from moderation.policy.bind import BoundPolicy
from moderation.policy.model import Policy
from moderation.results.advice import ADVICE
from moderation.results.find_item import find_item
from moderation.results.judged import judge_row
from moderation.results.reader import load_policy_of_run, open_run
from moderation.results.votes import disabled_votes, item_votes, policy_votes, read_bound_shard
from moderation.types import ErrorCode, ItemVotes, Judgement

_MAX_CHANGES = 3
_MAX_VOTES = 1000  # of an item's frames by labels, in the JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedCheck:
    """A check for this item. score: None where it was not computed. thresholds: `block`, `review`, `pass`."""

    name: str
    side: str
    score: float | None
    thresholds: Mapping[str, float]
    votes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameVote:
    """One vote on one frame; score None: not asked."""

    label: str
    frame: int
    time_s: float | None
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemExplanation:
    """Why an item has its verdict.

    verdict, reason, check, score, confidence, evidence: as stored. threshold: the one that decided, None where none
    did. sentence: the rule in words. judged_again: verdict and reason by the votes and the policy that OUT keeps;
    empty where there is nothing to judge. changes: those that would change the verdict, the nearest first.
    """

    item_id: str
    uri: str
    kind: str
    status: str
    verdict: str | None
    reason: str | None
    check: str | None
    score: float | None
    threshold: float | None
    confidence: float | None
    sentence: str
    error_code: str | None
    error_detail: str | None
    frames_scored: int
    frames_total: int
    checks: tuple[ExplainedCheck, ...]
    evidence: tuple[Mapping[str, Any], ...]
    votes: tuple[FrameVote, ...]
    judged_again: tuple[str, str] | None
    changes: tuple[WhatIf, ...]

    @property
    def differs(self) -> bool:
        """Whether judging again leads to another verdict than the stored one."""
        return self.judged_again is not None and self.judged_again[0] != self.verdict


def explain_item(out: str, wanted: str) -> ItemExplanation:
    """Why an item of OUT has its verdict. wanted: its id, the start of its id, its URI, or the end of its URI.

    Raises UsageError where there is no run, or not exactly one such item.
    """
    run = open_run(out)
    place = find_item(run, wanted)
    policy = load_policy_of_run(run)
    part = read_bound_shard(run, policy, place.shard_id)
    rows = run.read_verdicts(place.shard_id).to_pylist()
    row = next(row for row in rows if row["item_id"] == place.item_id)
    votes = dict(item_votes(part.votes, part.policy.labels)).get(place.item_id)
    judgement = judge_row(row, votes, part.policy)
    changes: list[WhatIf] = []
    if judgement is not None:
        disabled = disabled_votes(run.load_config(), policy_votes(policy))
        changes = find_changes(judgement, part.policy, lambda other: judge_row(row, votes, other), disabled=disabled)
    return _explain(row, votes, part.policy, judgement, changes)


def _explain(
    row: Mapping[str, Any],
    votes: ItemVotes | None,
    bound: BoundPolicy,
    judgement: Judgement | None,
    changes: Sequence[WhatIf],
) -> ItemExplanation:
    threshold = row.get("threshold")  # the one for this item; tables before version 4 have none
    if threshold is None:
        threshold = threshold_of(row["reason"], row["check"], bound.policy)
    return ItemExplanation(
        **{name: row[name] for name in ("item_id", "uri", "kind", "status", "verdict", "reason", "check", "score")},
        **{name: row[name] for name in ("confidence", "error_code", "error_detail", "frames_scored", "frames_total")},
        threshold=threshold,
        sentence=describe_rule(row, threshold, bound.policy),
        checks=_checks(row, judgement, bound.policy),
        evidence=tuple(row["evidence"] or ()),
        votes=_frame_votes(votes),
        judged_again=None if judgement is None else (str(judgement.verdict), judgement.reason),
        changes=tuple(changes[:_MAX_CHANGES]),
    )


def threshold_of(reason: str | None, check: str | None, policy: Policy) -> float | None:
    """The threshold that decided, by the reason `<stage>:<check>:<action>`; None where none did."""
    stage, _, action = (reason or "").partition(":")[0], "", (reason or "").rpartition(":")[2]
    if stage not in ("negative", "positive", "context") or check not in policy.checks:
        return None
    # Only a part of a picture is over `block`, which sends the item to review.
    name = "block" if stage == "context" else action
    return next((value for of, n, value in thresholds_of(policy) if (of, n) == (check, name)), None)


def describe_rule(row: Mapping[str, Any], threshold: float | None, policy: Policy) -> str:
    """The rule that decided, in words. row: of the verdicts."""
    if row["verdict"] is None:
        return "It was skipped: surely no picture and no video, so there is nothing to judge."
    reason = str(row["reason"] or "")
    stage, _, rest = reason.partition(":")
    describe = _SENTENCES.get(stage)
    if describe is not None:
        return describe(row, rest, threshold, policy)
    # A reason of a later version stands as it is.
    return str(row.get("reason_text") or f"Decided by the rule {reason}.")


def _by_threshold(row: Mapping[str, Any], rest: str, threshold: float | None, _: Policy) -> str:
    action = rest.rpartition(":")[2]
    over = "" if threshold is None else f" of {threshold:.4g}"
    return f"The check `{row['check']}` scored {_number(row['score'])}: at or over its `{action}`{over}."


def _by_context(row: Mapping[str, Any], _: str, threshold: float | None, __: Policy) -> str:
    over = "" if threshold is None else f" of {threshold:.4g}"
    return (
        f"A part of the picture alone scored {_number(row['score'])} on `{row['check']}`, over its `block`{over}; the"
        " picture around it does not agree, so a person looks."
    )


def _by_null(_: Mapping[str, Any], rest: str, __: float | None, ___: Policy) -> str:
    check = rest.partition(":")[0]
    if check == "all":
        return "No check has a score of it, and what nobody looked at does not pass."
    return f"The check `{check}` has no score on some frame, and its policy says that a person then looks."


def _by_default(row: Mapping[str, Any], _: str, __: float | None, policy: Policy) -> str:
    return f"No check decided, and the policy's `default` is {policy.default}."


def _by_error(row: Mapping[str, Any], rest: str, _: float | None, __: Policy) -> str:
    meaning = ADVICE[ErrorCode(rest)].meaning if rest in set(ErrorCode) else "It could not be judged whole."
    return f"{meaning} An item with an error is never passed."


def _by_unseen(row: Mapping[str, Any], rest: str, _: float | None, policy: Policy) -> str:
    if rest == "gap" and row.get("widest_gap_s") is not None:
        allowed_s = policy.unseen.allowed_gap_s(row.get("duration_s"))
        limit = "" if allowed_s is None else f", more than the {allowed_s:g} s that may go unseen"
        return f"Two scored frames are {row['widest_gap_s']:.1f} s apart{limit}; so it does not pass."
    return f"A viewer can be shown something of it that was not looked at ({rest}), so it does not pass."


def _by_copy(_: Mapping[str, Any], rest: str, __: float | None, ___: Policy) -> str:
    return f"It took over the verdict of {rest}, which has the same content."


_SENTENCES = {
    "negative": _by_threshold,
    "positive": _by_threshold,
    "context": _by_context,
    "null": _by_null,
    "default": _by_default,
    "error": _by_error,
    "unseen": _by_unseen,
    "same_content": _by_copy,
}


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def _checks(row: Mapping[str, Any], judgement: Judgement | None, policy: Policy) -> tuple[ExplainedCheck, ...]:
    """The check that decided comes first, then those with a threshold, by falling score."""
    scores = judgement.scores if judgement is not None else {}
    limits: dict[str, dict[str, float]] = {name: {} for name in policy.checks}
    for name, which, value in thresholds_of(policy):
        limits[name][which] = value
    explained = [
        ExplainedCheck(
            name=name, side=check.side, score=scores.get(name), thresholds=limits[name], votes=tuple(check.votes)
        )
        for name, check in policy.checks.items()
    ]
    return tuple(sorted(explained, key=lambda c: (c.name != row["check"], not c.thresholds, -(c.score or 0.0))))


def _frame_votes(votes: ItemVotes | None) -> tuple[FrameVote, ...]:
    if votes is None:
        return ()
    rows = zip(votes.frames, votes.times_s, votes.scores.tolist(), strict=True)
    cells = [
        FrameVote(label=label, frame=frame, time_s=time_s, score=None if score != score else score)
        for frame, time_s, scores in rows
        for label, score in zip(votes.labels, scores, strict=True)
    ]
    return tuple(cells[:_MAX_VOTES])

"""What the reviewers' page shows of an item: its row of the verdicts in words. Pure.

Of an audit item, which must be answered before the machine is heard, nothing is shown that tells the verdict: neither
scores nor reason, evidence, check, deciding frame, overlay or error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from moderation.pages.text import plain
from moderation.policy.definitions import ClassDefinition
from moderation.policy.model import Policy
from moderation.results.advice import ADVICE
from moderation.review.items import QueueItem
from moderation.types import ErrorCode, Evidence, Kind, Segment

_MAX_ATTRIBUTES: Final = 24
_MAX_EVIDENCE: Final = 8
_MAX_SEGMENTS: Final = 24
SEVERAL: Final = frozenset({Kind.VIDEO, Kind.ANIMATION, Kind.KEYFRAMES, Kind.ALBUM})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCheck:
    """A check's score beside its thresholds, for a bar. decides: it is the check of the verdict."""

    name: str
    side: str
    score: float
    thresholds: tuple[tuple[str, float], ...]
    decides: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedBox:
    """A region that a vote points at: 0..1 of the frame with this index (None: of any)."""

    frame: int | None
    x: float
    y: float
    width: float
    height: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFacts:
    """An item on the page; see the module for what is empty where it is `blind`.

    reason: in words. several: it has more than one picture to see, so that a strip is fetched. boxes: of the evidence.
    problem, advice: where it could not be judged.
    """

    item_id: str
    uri: str
    kind: str
    blind: bool
    several: bool
    severe: bool
    verdict: str | None = None
    reason: str = ""
    check: str | None = None
    severity: str | None = None
    confidence: float | None = None
    checks: tuple[ScoredCheck, ...] = ()
    evidence: tuple[str, ...] = ()
    boxes: tuple[MarkedBox, ...] = ()
    segments: tuple[str, ...] = ()
    problem: str = ""
    advice: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()


def describe_item(item: QueueItem, policy: Policy, *, severe: bool) -> ShownFacts:
    """What is shown of an item as the queue hands it out. severe: a level at which a block is never relaxed."""
    problem, advice = _problem(item)
    shown: dict[str, Any] = {
        "item_id": item.item_id,
        "uri": item.uri,
        "kind": item.kind,
        "blind": item.blind,
        "several": item.kind in SEVERAL,
        "severe": severe and not item.blind,
        "problem": problem,
        "advice": advice,
        "facts": tuple(_facts(item)),
        "attributes": tuple((plain(k), plain(v)) for k, v in list(item.attributes.items())[:_MAX_ATTRIBUTES]),
    }
    if not item.blind:
        shown |= _machine(item, policy)
    return ShownFacts(**shown)


def _machine(item: QueueItem, policy: Policy) -> dict[str, Any]:
    """What the machine says of it."""
    evidence = item.evidence[:_MAX_EVIDENCE]
    return {
        "verdict": item.verdict,
        "reason": item.reason_text or item.reason or "",
        "check": item.check,
        "severity": item.severity,
        "confidence": item.confidence,
        "checks": _scored_checks(item, policy),
        "evidence": tuple(map(_vote, evidence)),
        "boxes": tuple(_box(vote, vote.box) for vote in evidence if vote.box is not None),
        "segments": tuple(map(_segment, item.segments[:_MAX_SEGMENTS])),
    }


def _scored_checks(item: QueueItem, policy: Policy) -> tuple[ScoredCheck, ...]:
    """The checks that decide, the deciding one first, then by score."""
    scored = []
    for name, check in policy.checks.items():
        limits = {"block": check.block, "review": check.review, "pass": check.pass_}
        thresholds = tuple((action, value) for action, value in limits.items() if value is not None)
        if name in item.scores and thresholds:
            scored.append(
                ScoredCheck(
                    name=name,
                    side=check.side,
                    score=item.scores[name],
                    thresholds=thresholds,
                    decides=name == item.check,
                )
            )
    return tuple(sorted(scored, key=lambda check: (not check.decides, -check.score, check.name)))


def _vote(vote: Evidence) -> str:
    where = "" if vote.frame is None else f", picture {vote.frame}"
    when = "" if vote.time_s is None else f" at {clock(vote.time_s)}"
    score = "not asked" if math.isnan(vote.score) else f"{vote.score:.2f}"
    return f"{vote.detector}.{vote.label} {score}{where}{when}"


def _box(vote: Evidence, box: tuple[float, float, float, float]) -> MarkedBox:
    x0, y0, x1, y1 = box
    return MarkedBox(frame=vote.frame, x=x0, y=y0, width=max(0.0, x1 - x0), height=max(0.0, y1 - y0), name=vote.label)


def _segment(segment: Segment) -> str:
    return f"{segment.check} {clock(segment.start_s)} to {clock(segment.end_s)}: {segment.score:.2f}"


def _problem(item: QueueItem) -> tuple[str, str]:
    code = item.error_code
    if code is None:
        return "", ""
    known = ADVICE.get(ErrorCode(code)) if code in set(ErrorCode) else None
    text = f"{code}: {item.error_detail}" if item.error_detail else code
    return plain(text), "" if known is None else known.meaning


def _facts(item: QueueItem) -> list[tuple[str, str]]:
    facts = [("kind", item.kind)]
    if item.width and item.height:
        facts.append(("size", f"{item.width:,} × {item.height:,} px"))
    if item.duration_s:
        facts.append(("length", clock(item.duration_s)))
    if (item.frames_total or 0) > 1:
        facts.append(("pictures", f"{item.frames_total:,}"))
    return facts


def clock(time_s: float) -> str:
    """A place in a video: 75.5 is `1:15.5`."""
    minutes, seconds = divmod(max(0.0, float(time_s)), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


def choose_definitions(
    shown: Sequence[str], definitions: Mapping[str, ClassDefinition], check: str | None
) -> tuple[str, ...]:
    """The names of the checks whose definitions are beside an item: the deciding one alone, or all of `shown`."""
    if check is not None and check in definitions:
        return (check,)
    return tuple(name for name in shown if name in definitions)

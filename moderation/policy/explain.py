"""Why an item was decided as it was, in words that a reviewer understands; pure."""

from __future__ import annotations

from collections.abc import Sequence

from moderation.policy.case import CaseDecision
from moderation.policy.texts import ReasonTexts
from moderation.types import Segment


def explain(decision: CaseDecision, texts: ReasonTexts, segments: Sequence[Segment] = ()) -> str:
    """The reason of a decision as a sentence. segments: of the item; the highest of the deciding check is named."""
    stage, *middle = decision.reason.split(":")
    action = middle[-1]
    if stage in ("error", "unseen"):
        words = texts.errors if stage == "error" else texts.unseen
        return texts.reasons[stage].format(what=words.get(action, action.replace("_", " ")))
    name = middle[0] if len(middle) > 1 else ""
    nothing = stage == "null" and decision.by is None
    return texts.reasons[f"{stage}_all_{action}" if nothing else f"{stage}_{action}"].format(
        check=texts.checks.get(name, name.replace("_", " ")),
        rule=name,
        score=_number(decision.by.score if decision.by else None),
        threshold=_number(decision.threshold),
        note=texts.note.format(note=decision.note) if decision.note else "",
        where=_where(name, segments, texts),
    )


def _where(check: str, segments: Sequence[Segment], texts: ReasonTexts) -> str:
    own = [segment for segment in segments if segment.check == check]
    if not own:
        return ""
    highest = max(own, key=lambda segment: segment.score)
    return texts.where.format(start=f"{highest.start_s:.1f}", end=f"{highest.end_s:.1f}")


def _number(score: float | None) -> str:
    # Rounded down, so that a score under a threshold never reads as one that reached it.
    return "–" if score is None else f"{int(score * 1000 + 1e-4) / 1000:.3f}"

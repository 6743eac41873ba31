"""What a session answers: which decisions were taken, which were refused and why, and how far a review is. Frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from moderation.labels.decisions import Decision
from moderation.review.items import Stage

PACE_S: Final = 600.0


class Refusal(StrEnum):
    """Why a decision was not taken."""

    INVALID = "invalid"  # a field that cannot be kept
    UNKNOWN_ITEM = "unknown_item"  # not in this queue
    CONFLICT = "conflict"  # its id is there with another answer
    CLAIM_UNKNOWN = "claim_unknown"  # never made, or ended long ago
    CLAIM_OF_ANOTHER = "claim_of_another"  # somebody else's
    CLAIM_TAKEN = "claim_taken"  # it ended, and somebody else has the item; or it was decided by this claim already
    NOT_YOURS = "not_yours"  # undoes what is not there, not the reviewer's, or undone


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedDecision:
    """A decision that was not taken, and why, as a code and as a sentence."""

    decision_id: str
    code: Refusal
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideOutcome:
    """What became of a batch. taken: ids that are on disk now; repeated: ids that were there already."""

    taken: tuple[str, ...]
    repeated: tuple[str, ...]
    refused: tuple[RefusedDecision, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewerProgress:
    """What one reviewer has done. decided: all that stands; per_minute: of the last ten minutes, None without two."""

    reviewer: str
    decided: int
    per_minute: float | None
    holding: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewProgress:
    """How far a review is. total: chosen items; by_stage: what they wait for; appeals: undecided ones."""

    total: int
    by_stage: Mapping[Stage, int]
    appeals: int
    reviewers: tuple[ReviewerProgress, ...]

    @property
    def left(self) -> int:
        """Items that wait for somebody."""
        return self.total - self.by_stage.get(Stage.SETTLED, 0)


def pace_per_minute(decisions: Iterable[Decision], now_s: float) -> float | None:
    """Decisions a minute over those of the last PACE_S seconds, from the first to the last of them."""
    times = [t for decision in decisions if now_s - PACE_S <= (t := decision.decided_at.timestamp()) <= now_s]
    span_s = max(times, default=0.0) - min(times, default=0.0)
    return (len(times) - 1) / span_s * 60 if span_s > 0 else None

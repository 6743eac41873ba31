"""A run to review, as it lies in OUT, and decisions on it; no pictures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from moderation.labels.decisions import Answer, Decision
from moderation.review.items import Offer
from tests.finished_run import Made, write_run

LABELS = ("a.weapon", "a.gore")
POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.5, severity: medium}
  gore: {side: negative, votes: [a.gore], review: 0.5, block: 0.95, severity: critical}
audit: {salt: s, pass: {check: weapon, to: 0.2, rate: 1.0}}
review_order: {severity: 0}
"""
NOON_S = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()


class SetClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


def made(name: str, weapon: float = 0.1, gore: float = 0.1, **more: object) -> Made:
    return Made(name=name, votes=[(weapon, gore)], **more)  # type: ignore[arg-type] # keywords of the item


def write_reviewed(folder: Path, items: Sequence[Made], policy: str = POLICY) -> str:
    """The OUT of a run over these items."""
    return write_run(folder, LABELS, items, policy)


def answer(offer: Offer, reviewer: str, choice: Answer = Answer.PASS, number: int = 0, **more: object) -> Decision:
    """A decision of what was offered, as a page would send it."""
    values = {"decided_at": datetime.fromtimestamp(NOON_S + number, UTC), "claim": offer.claim, **more}
    decision_id = values.pop("decision_id", f"{reviewer}:{offer.item.item_id}:{number}")
    return Decision(decision_id=decision_id, item_id=offer.item.item_id, decision=choice, reviewer=reviewer, **values)  # type: ignore[arg-type] # keywords of the row

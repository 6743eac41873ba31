"""What a run restricts in the end: by the machine, or by people; each with how it came about. Reads no picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from moderation.labels.decided_labels import DecidedLabel, label_on
from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, standing_decisions
from moderation.results.escalations import is_escalated
from moderation.results.layout import VERDICTS
from moderation.results.reader import StoredRun
from moderation.review.agreement import group_by_item
from moderation.types import Verdict

_COLUMNS: Final = (
    "item_id", "uri", "content_hash", "kind", "verdict", "status", "reason", "reason_text", "check", "attributes",
)  # fmt: skip


class Automation(StrEnum):
    """How much of a decision was the machine's, in the words of the database."""

    FULLY = "AUTOMATED_DECISION_FULLY"
    PARTIALLY = "AUTOMATED_DECISION_PARTIALLY"
    NOT = "AUTOMATED_DECISION_NOT_AUTOMATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalVerdict:
    """A row with what holds of it in the end. by_people: the label that reviewers gave, None where nobody looked.

    decided_at: of the reviewer's answer, else of the run; None where the run does not tell.
    as_copy_of: where it is a copy of what a person decided, what that was called; empty where it got no name.
    """

    row: Mapping[str, Any]
    verdict: str | None
    by_people: DecidedLabel | None
    decided_at: datetime | None
    escalated: bool
    as_copy_of: tuple[str, ...] | None = None

    @property
    def is_restricted(self) -> bool:
        """Whether it is blocked."""
        return self.verdict == Verdict.BLOCK

    @property
    def words(self) -> tuple[str, ...]:
        """What reviewers called it: names of checks, or words of their own."""
        return (self.as_copy_of or ()) if self.by_people is None else self.by_people.holds.labels

    @property
    def is_detected(self) -> bool:
        """Whether the machine found it: it blocked it, or a check of its own sent it to people."""
        return self.row["verdict"] == Verdict.BLOCK or (
            self.row["verdict"] == Verdict.REVIEW and self.row.get("check") is not None
        )

    @property
    def automation(self) -> Automation:
        """How much of the decision was the machine's."""
        if self.by_people is None:
            return Automation.FULLY if self.as_copy_of is None else Automation.PARTIALLY
        return Automation.PARTIALLY if self.is_detected else Automation.NOT


def run_time(run: StoredRun) -> datetime | None:
    """When a run was last written to, from its record."""
    try:
        moment = datetime.fromisoformat(str(run.record.get("updated_at")))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def read_final_verdicts(run: StoredRun) -> Iterator[FinalVerdict]:
    """Every row of a run with what holds of it in the end. Raises DamagedDecisionsError, StorageError."""
    decided = DecidedRun(run)
    for shard_id in run.shard_ids:
        yield from decided.verdicts_of(shard_id)


class DecidedRun:
    """A run with what its reviewers have decided. Raises DamagedDecisionsError, StorageError."""

    def __init__(self, run: StoredRun) -> None:
        self.run = run
        self._judged_at = run_time(run)
        by_item = group_by_item(read_decisions(run.out))
        self._standing = {item_id: standing_decisions(own) for item_id, own in by_item.items()}

    def verdicts_of(self, shard_id: str) -> Iterator[FinalVerdict]:
        """The rows of a part with what holds of them. Raises PartMissingError, PartChangedError, StorageError."""
        for row in self.run.read_present(VERDICTS, shard_id, _COLUMNS).to_pylist():
            yield self._final(row)

    def _final(self, row: Mapping[str, Any]) -> FinalVerdict:
        escalated = is_escalated(row)
        # What is on an illegal list, no reviewer sees and none takes back.
        label = None if escalated else self._label_of(row)
        given = None if label is None else label.holds.decision
        verdict = {Answer.BLOCK: "block", Answer.PASS: "pass"}.get(given) if given is not None else row["verdict"]
        return FinalVerdict(
            row=row,
            verdict=verdict,
            by_people=label,
            decided_at=self._judged_at if label is None else label.holds.decided_at,
            escalated=escalated,
        )

    def _label_of(self, row: Mapping[str, Any]) -> DecidedLabel | None:
        standing = self._standing.get(row["item_id"])
        return None if standing is None else label_on(standing, row["item_id"], row.get("content_hash"))

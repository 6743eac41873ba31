"""What a sweep restricts: items of older runs that it blocks, and that their own run does not. Reads no picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from moderation import storage
from moderation.errors import UsageError
from moderation.labels.decision_store import read_decisions
from moderation.results.reader import open_run
from moderation.results.swept import SweptRecord, read_changed_rows, read_escalated
from moderation.review.restrictions import DecidedRun, FinalVerdict
from moderation.types import Verdict

_COLUMNS: Final = (
    "item_id", "uri", "run", "part", "new_verdict", "cause", "cause_entry", "relation", "new_reason", "content_hash",
)  # fmt: skip
_PLACE: Final = itemgetter("run", "part")
_BY_PEOPLE: Final = ("decision", "appeal")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptVerdict:
    """A row that a sweep blocks. run_id: of the run that has it. basis: what blocks it, the same in every sweep.

    final: what holds of it, with the reason of the sweep; a text where that is not known: what is missing.
    """

    item_id: str
    uri: str
    run_id: str
    basis: str
    final: FinalVerdict | str


def read_swept_verdicts(home: str, swept: SweptRecord) -> Iterator[SweptVerdict]:
    """What a sweep blocks, without what is blocked in its own run: that is told of the run.

    What people have decided by now holds. Matches with an illegal list are marked `escalated`.
    Raises UsageError where a part of the sweep is damaged, DamagedDecisionsError, StorageError.
    """
    escalated = read_escalated(swept)
    called = _names_of_decisions(swept.runs)
    # A run may have thousands of parts: its receipts and decisions are read once.
    open_decided = cache(lambda out: DecidedRun(open_run(out)))
    for rows in read_changed_rows(home, _COLUMNS):
        blocked = sorted((row for row in rows if row["new_verdict"] == Verdict.BLOCK), key=_PLACE)
        for (out, part), changes in groupby(blocked, _PLACE):
            listed = list(changes)
            try:
                decided = open_decided(out)
                stored = {final.row["item_id"]: final for final in decided.verdicts_of(part)}
            except UsageError:  # also of a part
                yield from (_swept(change, "", "its run, or its part, is gone or was changed") for change in listed)
                continue
            for change in listed:
                final = _final_of(change, stored.get(change["item_id"]), swept, called)
                if isinstance(final, FinalVerdict) and (change["content_hash"] or change["uri"]) in escalated:
                    final = replace(final, escalated=True)
                if final is not None:
                    yield _swept(change, decided.run.run_id, final)


def _swept(change: Mapping[str, Any], run_id: str, final: FinalVerdict | str) -> SweptVerdict:
    # Not the entry of a list: it holds a note, which may be edited.
    entry = change["new_reason"] if change["cause"] == "list" else change["cause_entry"]
    basis = f"{change['cause']}:{entry}"
    return SweptVerdict(item_id=change["item_id"], uri=change["uri"], run_id=run_id, basis=basis, final=final)


def _final_of(
    change: Mapping[str, Any], stored: FinalVerdict | None, swept: SweptRecord, called: Mapping[str, tuple[str, ...]]
) -> FinalVerdict | str | None:
    """The stored row with what the sweep makes of it; None where people passed it since, or its run blocks it."""
    if stored is None or stored.row.get("content_hash") != change["content_hash"]:
        return "its run has another content for it by now"
    if stored.is_restricted:
        return None
    people = stored.by_people
    # What they decided while it ran it did not know either.
    if people is not None and (swept.began_at is None or people.holds.decided_at > swept.began_at):
        return None
    reason = str(change["new_reason"] or "")
    kind, _, rest = reason.partition(":")
    row = {
        **stored.row,
        "reason": reason,
        "reason_text": _sentence(kind, rest),
        "check": rest.partition(":")[0] if kind in ("negative", "positive", "context", "null") else None,
        "verdict": Verdict.BLOCK,
    }
    by_decision = change["cause"] in _BY_PEOPLE
    return FinalVerdict(
        row=row,
        verdict=Verdict.BLOCK,
        by_people=None,
        decided_at=swept.ended_at,
        escalated=stored.escalated,
        as_copy_of=called.get(change["cause_entry"], ()) if by_decision else None,
    )


def _sentence(kind: str, rest: str) -> str:
    if kind in _BY_PEOPLE:
        relation = rest.partition(":")[0]
        return "What a person blocked." if relation == "self" else "A copy of what a person blocked."
    return f"Blocked by the check {rest.partition(':')[0]}." if kind == "negative" else ""


def _names_of_decisions(outs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Id of a decision -> what the reviewer called the item, of all swept runs that are still there."""
    there = [out for out in outs if storage.is_folder(out)]
    return {one.decision_id: tuple(one.labels) for out in there for one in read_decisions(out)}

"""A sweep by lists: which stored items are on them, and what that makes of their verdicts.

A deny-list that blocks overrides everything, and one that asks for a person takes a pass away: no votes are judged for
that. An item on an allow-list is judged again by its run's own policy with the list, because severe checks, errors and
what was not seen still object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np

from moderation.analysis.sweep_changes import HeldVerdict, ProposedVerdict
from moderation.analysis.sweep_judging import OwnJudges
from moderation.analysis.sweep_tables import FACTS, ROW, StoredPart
from moderation.hashes.nearest import KnownHashes
from moderation.policy.entries import ListEntry, ListRule
from moderation.policy.matching import BoundList, bind_list, match_list
from moderation.results.judged import PartRows
from moderation.results.votes import OF_FRAMES, item_votes


class Listed(NamedTuple):
    """An item on a list. relation: exact, pdq (of a picture), frame (of several), listed (by another value)."""

    row: int
    entry: ListEntry
    relation: str
    distance: float | None


class ListSweep:
    """Proposes changes by lists, by name."""

    def __init__(self, rules: Mapping[str, ListRule], as_of: date | None) -> None:
        self._bound = [bind_list(name, rule, as_of) for name, rule in rules.items()]
        self._known = {
            bound.name: KnownHashes(bound.rows) for bound in self._bound if bound.rows is not None and len(bound.rows)
        }
        allowing = {name: rule for name, rule in rules.items() if rule.action == "allow"}
        self._judges = OwnJudges(as_of, allowing, lambda rule: ())
        by_hash = all(rule.by in ("content_hash", "pdq") for rule in rules.values())
        self.columns: tuple[str, ...] = ROW if by_hash and not allowing else FACTS

    def changes(
        self, part: StoredPart, old: Sequence[str | None], held: Mapping[str, HeldVerdict]
    ) -> Iterator[ProposedVerdict]:
        """What the lists make of the rows of a part. old: the present verdicts."""
        denied = self._denied(part, old)
        yield from denied.values()
        for bound in self._bound:
            if bound.action == "allow":
                free = [m for m in self._match(bound, part) if m.row not in denied and old[m.row] is not None]
                yield from self._allowed(bound, part, free)

    def _denied(self, part: StoredPart, old: Sequence[str | None]) -> dict[int, ProposedVerdict]:
        """What deny-lists say, by row; those that block come first."""
        denied: dict[int, ProposedVerdict] = {}
        denying = [bound for bound in self._bound if bound.action == "deny"]
        for bound in sorted(denying, key=lambda bound: bound.verdict):
            for match in self._match(bound, part):
                present = old[match.row]
                if present is not None:
                    verdict = bound.verdict if bound.verdict == "block" or present == "pass" else present
                    denied.setdefault(match.row, _change(bound, match, verdict))
        return denied

    def _allowed(self, bound: BoundList, part: StoredPart, listed: Sequence[Listed]) -> Iterator[ProposedVerdict]:
        if not listed:
            return
        ids = part.item_ids
        ruled = self._judges.judge(part, [ids[match.row].as_py() for match in listed])
        for match in listed:
            verdict, reason = ruled[ids[match.row].as_py()]
            if verdict is not None and reason is not None and reason.startswith(f"list:{bound.name}:"):
                yield _change(bound, match, verdict)

    def _match(self, bound: BoundList, part: StoredPart) -> Iterator[Listed]:
        if bound.by == "content_hash":
            for row, value in enumerate(part.contents):
                entry = bound.entries.get(value) if value is not None else None
                if entry is not None:
                    yield Listed(row, entry, "exact", 0.0)
        elif bound.by == "pdq":
            yield from self._near(bound, part)
        else:
            yield from _by_facts(bound, part)

    def _near(self, bound: BoundList, part: StoredPart) -> Iterator[Listed]:
        known = self._known.get(bound.name)
        if known is None:
            return
        frames = part.frames
        usable = np.flatnonzero(frames.quality >= round(bound.quality * 100))
        entry, bits = known.nearest(frames.hashes[usable], bound.distance)
        best: dict[int, tuple[int, int]] = {}
        for at in np.flatnonzero(entry >= 0).tolist():
            row = int(frames.item[usable[at]])
            best[row] = min(best.get(row, (257, 0)), (int(bits[at]), int(entry[at])))
        for row, (distance, place) in sorted(best.items()):
            relation = "pdq" if frames.counts[row] == 1 else "frame"
            yield Listed(row, bound.entries[bound.hashes[place]], relation, float(distance))


def _by_facts(bound: BoundList, part: StoredPart) -> Iterator[Listed]:
    """Items on a list by an attribute, or by who is in them."""
    facts = PartRows.of(part.verdicts).facts
    votes = {}
    if bound.by == "person":
        votes = dict(item_votes(part.votes(OF_FRAMES), ()))
    for row, own in enumerate(facts):
        entry = match_list(bound, own, votes.get(own.item_id))
        if entry is not None:
            yield Listed(row, entry, "listed", None)


def _change(bound: BoundList, match: Listed, verdict: str) -> ProposedVerdict:
    reason = f"list:{bound.name}:{verdict}"
    entry = match.entry.value if not match.entry.reason else f"{match.entry.value} ({match.entry.reason})"
    return ProposedVerdict(match.row, verdict, reason, "list", entry, match.relation, match.distance)

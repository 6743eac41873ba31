"""A sweep by decisions of people: the decided items, their copies, and what that makes of their verdicts.

block  the item, the same bytes, near copies within `block_distance`, and videos that hold most of it are blocked;
       what is less near (up to `distance`, by embedding, a frame of a video) goes to review where it passed
pass   the item and the same bytes are judged again by their run's own policy, with the content allowed and the
       item's entries taken out of deny-lists; what a list or an earlier sweep did to near copies because of it is
       taken back. A near copy itself gets nothing from a pass: it may have been altered
held   blocked by an earlier sweep, and still: its copies stay blocked, or in review, when another block is taken back
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from moderation.analysis.sweep_changes import HeldVerdict, ProposedVerdict
from moderation.analysis.sweep_copies import Copy, CopyFinder
from moderation.analysis.sweep_judging import OwnJudges
from moderation.analysis.sweep_tables import FACTS, ROW, StoredPart
from moderation.analysis.sweep_targets import SweepTarget
from moderation.errors import UsageError
from moderation.hashes.search import MAX_DISTANCE
from moderation.policy.entries import ListEntry, ListRule

# A video that holds so much of a blocked one is blocked, too.
_MOST_OF_IT: Final = 0.8
_ALLOWED: Final = "decision"
_SAME: Final = ("self", "exact")
HELD: Final = "held"  # as the verdict of a target


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimits:
    """What counts as a copy. distance, block_distance: bits of 256. quality: of a hash, from which it says something.

    similarity: least cosine of embeddings; confirm: bits in which the hashes of such a pair may differ.
    """

    distance: int = 31
    block_distance: int = 15
    quality: int = 50
    similarity: float = 0.85
    confirm: int = 90

    def __post_init__(self) -> None:
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise UsageError(f"--distance {self.distance}: must be 0 to {MAX_DISTANCE} bits")
        if not 0 <= self.block_distance <= self.distance:
            raise UsageError(f"--block-distance {self.block_distance}: must be 0 to {self.distance}, as --distance")
        if not 0 < self.similarity <= 1:
            raise UsageError(f"--similarity {self.similarity}: must be over 0, and 1 at most")


class DecisionSweep:
    """Proposes changes by decided items."""

    def __init__(self, targets: Sequence[SweepTarget], limits: CopyLimits, as_of: date | None) -> None:
        self._limits = limits
        self._blocking = CopyFinder([t for t in targets if t.verdict == "block"], limits)
        self._held = CopyFinder([t for t in targets if t.verdict == HELD], limits)
        passed = [t for t in targets if t.verdict not in ("block", HELD)]
        self._passing = CopyFinder(passed, limits)
        self._passed = {(t.item_id, content): t for t in passed for content in (t.content_hash, None)}
        self._judges = _judges(passed, as_of)
        self.columns: tuple[str, ...] = FACTS if passed else ROW

    def changes(
        self, part: StoredPart, old: Sequence[str | None], held: Mapping[str, HeldVerdict]
    ) -> Iterator[ProposedVerdict]:
        """What the decisions make of the rows of a part. old: the present verdicts. held: of earlier sweeps, by id."""
        passing = {copy.row: copy for copy in self._passing.find(part)}
        # What somebody has seen and passed is no near copy of what was blocked.
        seen = {row for row, copy in passing.items() if copy.target.verdict == "pass" and copy.relation in _SAME}
        near_held = {copy.row: copy for copy in self._held.find(part) if copy.row not in seen}
        blocked = {row for row, copy in near_held.items() if self._is_sure(copy)}
        for copy in self._blocking.find(part):
            present = old[copy.row]
            if present is not None and (copy.relation in _SAME or copy.row not in seen):
                blocked.add(copy.row)
                verdict = "block" if self._is_sure(copy) or present == "block" else "review"
                yield _blocking(copy, verdict)
        if self._passed:
            for change in self._passes(part, old, held, blocked, passing):
                is_near = change.verdict == "pass" and change.row in near_held
                yield _blocking(near_held[change.row], "review") if is_near else change

    def _is_sure(self, copy: Copy) -> bool:
        if copy.relation in _SAME:
            return True
        if copy.relation == "video":
            return copy.share_of_target >= _MOST_OF_IT
        return copy.relation == "pdq" and copy.distance is not None and copy.distance <= self._limits.block_distance

    def _passes(
        self,
        part: StoredPart,
        old: Sequence[str | None],
        held: Mapping[str, HeldVerdict],
        blocked: Collection[int],
        passing: Mapping[int, Copy],
    ) -> Iterator[ProposedVerdict]:
        ids: list[str] = part.item_ids.to_pylist()
        reasons = part.column("reason")
        copies = self._copies_of_passed(passing, ids, held)
        chosen = [c for row, c in copies.items() if row not in blocked and self._concerns(c, ids, reasons, held)]
        ruled = self._judges.judge(part, [ids[copy.row] for copy in chosen]) if chosen else {}
        for copy in chosen:
            verdict, reason = ruled[ids[copy.row]]
            if verdict is not None and reason is not None and old[copy.row] is not None:
                yield _change(copy, verdict, reason)

    def _copies_of_passed(
        self, passing: Mapping[int, Copy], ids: Sequence[str], held: Mapping[str, HeldVerdict]
    ) -> dict[int, Copy]:
        """Copies of what was passed, and what an earlier sweep did because of it, by row."""
        copies = dict(passing)
        for row, item_id in enumerate(ids) if held else ():
            earlier = held.get(item_id)
            # By its content: what lies now at the place of what was blocked is another picture.
            passed = None if earlier is None else self._passed.get((str(earlier.origin), earlier.origin_content))
            if row not in copies and passed is not None:
                copies[row] = Copy(row, passed, "undone", None)
        return copies

    def _concerns(
        self, copy: Copy, ids: Sequence[str], reasons: Sequence[str | None], held: Mapping[str, HeldVerdict]
    ) -> bool:
        """Whether a pass acts on a copy: the same bytes, or what a list or a sweep did to a near one."""
        if copy.relation in ("self", "exact", "undone"):
            return True
        earlier = held.get(ids[copy.row])
        if earlier is not None:
            return earlier.is_because_of(copy.target.item_id, copy.target.content_hash)
        return (reasons[copy.row] or "").startswith("list:")


def _judges(passed: Sequence[SweepTarget], as_of: date | None) -> OwnJudges:
    """Judges by the runs' own policies: contents that were passed are allowed, their entries denied no more."""
    contents = [ListEntry(t.content_hash, t.entry) for t in passed if t.content_hash and t.verdict == "pass"]
    allowed = {_ALLOWED: ListRule(action="allow", by="content_hash", entries=tuple(contents))} if contents else {}
    hashes = {value for t in passed for value in (t.content_hash, *t.hashes) if value}
    return OwnJudges(as_of, allowed, lambda rule: hashes if rule.by in ("content_hash", "pdq") else frozenset())


def _blocking(copy: Copy, verdict: str) -> ProposedVerdict:
    return _change(copy, verdict, f"{copy.target.cause}:{copy.relation}:{verdict}")


def _change(copy: Copy, verdict: str, reason: str) -> ProposedVerdict:
    target, distance = copy.target, copy.distance
    shown = None if distance is None or np.isnan(distance) else float(distance)
    return ProposedVerdict(
        copy.row, verdict, reason, target.cause, target.entry, copy.relation, shown, target.item_id, target.content_hash
    )

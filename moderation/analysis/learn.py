"""Lists that learn: what reviewers have decided becomes allow- and deny-lists, for the next night and all after it.

    block  denies the same bytes, and pictures within a few bits of its hash
    pass   allows the same bytes; severe checks still object. A near copy may have been altered, so it is judged like
           any other picture, unless the caller says otherwise

What holds for a content is told by `labels.effective`: a ruling (of an expert, or of an appeal) before two that
agree before the latest. A decision that was taken back or overturned leaves no entry. A hash is not denied within reach
of a picture that somebody passed: the bytes alone are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Final

import numpy as np

from moderation.analysis.learned_items import LearnedItem, find_learned_items
from moderation.analysis.sweep_sources import runs_with_decisions
from moderation.errors import UsageError
from moderation.hashes.nearest import KnownHashes
from moderation.hashes.search import MAX_DISTANCE
from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, ContentKey, Decision
from moderation.labels.effective import hold_by
from moderation.lists.learned import LearnedEntry, check_learned_name, read_learned, write_learned
from moderation.policy.entries import MAX_ENTRIES
from moderation.types import U8

NEAR: Final = 15  # bits: tighter than the 31 of a copy, because nobody looks at what is blocked by it
_Entries = Mapping[tuple[str, str, str], LearnedEntry]
DAYS: Final = 365
MAX_DAYS: Final = 36_500


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnRules:
    """How decisions become entries.

    near, near_pass: bits of 256 in which a copy of what was blocked, or passed, may differ; None: the same bytes alone.
    days: how long an entry counts, from the decision on; None: it has no end. quality: least of a hash, 0..100.
    """

    near: int | None = NEAR
    near_pass: int | None = None
    days: int | None = DAYS
    quality: int = 50

    def __post_init__(self) -> None:
        for name, bits in (("--near", self.near), ("--near-pass", self.near_pass)):
            if bits is not None and not 0 <= bits <= MAX_DISTANCE:
                raise UsageError(f"{name} {bits}: must be 0 to {MAX_DISTANCE} bits")
        if self.days is not None and not 1 <= self.days <= MAX_DAYS:
            raise UsageError(f"--days {self.days}: must be 1 to {MAX_DAYS:,}; 0 is without an end")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedLists:
    """What was learned. listed: the entries that count. counts: `deny by content_hash` -> entries.

    added, removed: against the file that was there.

    changed: the items of what was added or removed, with what holds of them now. holding: by content, the item with
    what holds of it. items: all that was ever decided, by id and content. ended: entries whose time is over.
    close: hashes of blocked pictures that are not denied, because a picture within reach was passed. unknown: decided
    items whose content nobody knows any more.
    """

    to: str
    listed: tuple[LearnedEntry, ...]
    counts: dict[str, int]
    added: tuple[LearnedEntry, ...]
    removed: tuple[LearnedEntry, ...]
    changed: tuple[LearnedItem, ...]
    holding: Mapping[str, LearnedItem]
    items: Mapping[ContentKey, LearnedItem]
    ended: int
    close: int
    unknown: int

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return len(self.listed)


def learn_lists(outs: Sequence[str], to: str, rules: LearnRules, *, today: date, write: bool = True) -> LearnedLists:
    """Turn the decisions of runs (or of all nights of a folder) into the lists in the file `to`.

    today: entries that ended before it are left out. write: False: the caller does, by `listed`.
    Raises UsageError where `to` holds something else or a chain of decisions is damaged, StorageError.
    """
    check_learned_name(to)
    before = {entry.key: entry for entry in read_learned(to) or ()}
    decisions = _read_all(outs)
    settled, items = find_learned_items(decisions)
    holding = hold_by(settled, content_name)
    entries, close = _entries(holding, items, rules)
    counting = {entry.key: entry for entry in entries if entry.counts_on(today)}
    if len(counting) > MAX_ENTRIES:
        raise UsageError(f"{to}: {len(counting):,} entries, {MAX_ENTRIES:,} at most; --days ends them sooner")
    if write:
        write_learned(to, list(counting.values()))
    difference = _Difference.between(before, counting, today)
    return LearnedLists(
        to=to,
        listed=tuple(counting.values()),
        counts=_counts(counting.values()),
        added=difference.added,
        removed=difference.removed,
        changed=_changed([*difference.added, *difference.taken_out], settled, holding, items),
        holding={name: _item_of(decision, items).with_decision(decision) for name, decision in holding.items()},
        items=items,
        ended=len(entries) - len(counting),
        close=close,
        unknown=sum(decision.content_hash is None for decision in holding.values()),
    )


def _counts(entries: Iterable[LearnedEntry]) -> dict[str, int]:
    return dict(sorted(Counter(f"{entry.action} by {entry.by}" for entry in entries).items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """added, removed: against the file before. taken_out: of the removed, those whose time is not over."""

    added: tuple[LearnedEntry, ...]
    removed: tuple[LearnedEntry, ...]
    taken_out: tuple[LearnedEntry, ...]

    @staticmethod
    def between(before: _Entries, after: _Entries, today: date) -> _Difference:
        removed = tuple(entry for key, entry in sorted(before.items()) if key not in after)
        return _Difference(
            added=tuple(entry for key, entry in sorted(after.items()) if key not in before),
            removed=removed,
            taken_out=tuple(entry for entry in removed if entry.counts_on(today)),
        )


def _read_all(outs: Sequence[str]) -> dict[str, list[Decision]]:
    """OUT -> its decisions, of those that have any."""
    decisions = {out: read_decisions(out) for out in runs_with_decisions(outs)}
    return {out: said for out, said in decisions.items() if said}


def content_name(about: Decision | LearnedItem) -> str:
    """The content, or the id where that is unknown."""
    return about.content_hash or f"item:{about.item_id}"


def _item_of(decision: Decision, items: Mapping[ContentKey, LearnedItem]) -> LearnedItem:
    return items[decision.item_id, decision.content_hash]


def _entries(
    holding: Mapping[str, Decision], items: Mapping[ContentKey, LearnedItem], rules: LearnRules
) -> tuple[list[LearnedEntry], int]:
    """The entries, also those that have ended; and how many hashes are not denied because of a pass."""
    passed = _hashes([_item_of(d, items) for d in holding.values() if d.decision is Answer.PASS], rules.quality)
    entries: list[LearnedEntry] = []
    close = 0
    for decision in holding.values():
        item = _item_of(decision, items)
        is_block = decision.decision is Answer.BLOCK
        action, reach = ("deny", rules.near) if is_block else ("allow", rules.near_pass)
        if item.content_hash is not None:
            entries.append(_entry(decision, item, rules, action, "content_hash", item.content_hash, None))
        hash_ = item.hash_of_picture(rules.quality)
        if reach is None or hash_ is None:
            continue
        if is_block and _is_near(passed, hash_, reach):
            close += 1
            continue
        entries.append(_entry(decision, item, rules, action, "pdq", hash_, reach))
    return entries, close


def _hashes(items: Sequence[LearnedItem], quality: int) -> KnownHashes:
    known = [h for item in items if (h := item.hash_of_picture(quality)) is not None]
    return KnownHashes(_rows(known))


def _is_near(known: KnownHashes, hash_: str, reach: int) -> bool:
    return bool((known.nearest(_rows([hash_]), reach)[0] >= 0).any())


def _rows(hashes: Sequence[str]) -> U8:
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32)


def _entry(
    decision: Decision, item: LearnedItem, rules: LearnRules, action: str, by: str, value: str, distance: int | None
) -> LearnedEntry:
    day = decision.decided_at.astimezone(UTC).date()
    words = ", ".join(filter(None, (decision.reason, *decision.labels)))
    said = f"{decision.source.value} {decision.decision_id} by {decision.reviewer}"
    return LearnedEntry(
        value=value,
        reason=f"{words} ({said})" if words else said,
        until=None if rules.days is None else day + timedelta(days=rules.days),
        action=action,
        by=by,
        distance=distance,
        reviewer=decision.reviewer,
        decision_id=decision.decision_id,
        decided_at=decision.decided_at,
        item_id=decision.item_id,
        uri=decision.uri or item.uri,
        run=item.run,
    )


def _changed(
    entries: Sequence[LearnedEntry],
    settled: Sequence[Decision],
    holding: Mapping[str, Decision],
    items: Mapping[ContentKey, LearnedItem],
) -> tuple[LearnedItem, ...]:
    """The items of these entries, with what holds of each now; those that no run has any more are left out."""
    contents = {decision.decision_id: decision.content_hash for decision in settled}
    keys = [
        (entry.item_id, entry.value if entry.by == "content_hash" else contents.get(entry.decision_id))
        for entry in entries
    ]
    found = [items[key] for key in dict.fromkeys(keys) if key in items]
    return tuple(item.with_decision(holding.get(content_name(item))) for item in found if item.shard_id is not None)

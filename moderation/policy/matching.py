"""Whether an item is on a list: its values, and the entries bound to them; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

import numpy as np

from moderation.hashes.search import HashIndex
from moderation.policy.entries import By, ListEntry, ListRule
from moderation.types import U8, ItemFacts, ItemVotes, Role

HASHES: Final = "pdq.hash"  # one value per frame
_FEW: Final = 20_000  # up to so many hashes comparing each is faster than an index: 0.5 ms per item
QUALITY: Final = "pdq.quality"  # of that hash, 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundList:
    """A list with the entries that count on the day of the run, ready for look-ups.

    entries: by value; of several with one value the one that ends last. hashes, rows, index: the hashes of a list by
    PDQ as text, as uint8 [N,32], and, where they are many, as a search index.
    """

    name: str
    action: Literal["deny", "allow"]
    verdict: Literal["block", "review"]
    severity: str | None
    by: By
    attribute: str | None
    detector: str
    distance: int
    quality: float
    entries: Mapping[str, ListEntry]
    rows: U8 | None
    index: HashIndex | None
    hashes: tuple[str, ...]


def bind_list(name: str, rule: ListRule, as_of: date | None) -> BoundList:
    """A list with the entries that count on a day. as_of: None means that the day is unknown, and errs towards review:
    entries with an end still deny, but do not allow."""
    # Entries are sorted by their ends: of several with one value the one that ends last is kept.
    entries = {entry.value: entry for entry in _counting(rule, as_of)}
    hashes = tuple(entries) if rule.by == "pdq" else ()
    rows = _as_rows([bytes.fromhex(h) for h in hashes]) if hashes else None
    return BoundList(
        name=name,
        action=rule.action,
        verdict=rule.verdict or "block",
        severity=rule.severity,
        by=rule.by,
        attribute=rule.matched_attribute,
        detector=rule.detector,
        distance=rule.distance or 0,
        quality=rule.quality / 100,
        entries=entries,
        rows=rows,
        index=None if rows is None or len(rows) <= _FEW else HashIndex(rows),
        hashes=hashes,
    )


def _counting(rule: ListRule, as_of: date | None) -> Iterator[ListEntry]:
    for entry in rule.entries or ():
        without_day = as_of is None and rule.action == "deny"
        if entry.until is None or without_day or (as_of is not None and as_of <= entry.until):
            yield entry


def match_list(bound: BoundList, facts: ItemFacts, votes: ItemVotes | None) -> ListEntry | None:
    """The entry by which an item is on a list; None where it is not on it.

    deny: one of its values is on the list. allow: it has a value and all are on the list; by PDQ, every frame is.
    """
    found = _match_hashes(bound, facts, votes) if bound.by == "pdq" else _match_values(bound, facts, votes)
    matched = [entry for entry in found if entry is not None]
    if bound.action == "allow" and len(matched) < len(found):
        return None
    return matched[0] if matched else None


def is_named(bound: BoundList, facts: ItemFacts) -> bool:
    """Whether any value in the item's facts is on the list; values found in its frames are not looked at."""
    return any(entry is not None for entry in _match_values(bound, facts, None))


def _match_values(bound: BoundList, facts: ItemFacts, votes: ItemVotes | None) -> list[ListEntry | None]:
    if bound.by == "content_hash":
        values: Sequence[str] = (facts.content_hash,) if facts.content_hash else ()
    else:
        values = attribute_values(facts.attributes.get(bound.attribute or ""))
        if bound.by == "person" and votes is not None:
            values = [*values, *_people(votes, bound.detector)]
    return [bound.entries.get(value) for value in values]


def _people(votes: ItemVotes, detector: str) -> list[str]:
    named = (region.label for regions in votes.regions for region in regions if region.detector == detector)
    return list(dict.fromkeys(named))


def attribute_values(value: str | None) -> Sequence[str]:
    """The values of an attribute: one, or several where the rows of an album differ (a JSON list)."""
    if not value:
        return ()
    if value.startswith("["):
        try:
            values = json.loads(value)
        except (ValueError, RecursionError):
            return (value,)
        if isinstance(values, list):
            # A row without a value is on no list.
            return tuple(dict.fromkeys("" if v is None else str(v).strip() for v in values))
    return (value.strip(),)


def _match_hashes(bound: BoundList, facts: ItemFacts, votes: ItemVotes | None) -> list[ListEntry | None]:
    """The entry of each frame's hash; a frame without a hash, or with one of low quality, is on no list."""
    if bound.rows is None:
        return [None]
    hashes = _hashes_of(bound, facts, votes)
    present = [h for h in hashes if h is not None]
    if not present:
        return [None]
    nearest = nearest_hashes(bound, _as_rows(present))
    entries = iter(bound.entries[bound.hashes[at]] if at >= 0 else None for at in nearest)
    return [None if h is None else next(entries) for h in hashes]


def nearest_hashes(bound: BoundList, queries: U8) -> list[int]:
    """Index of the list's hash nearest to each of uint8 [Q,32], the first of equals; -1 where none is near enough."""
    assert bound.rows is not None
    if bound.index is not None:
        found: list[int] = bound.index.nearest(queries, bound.distance)[0].tolist()
        return found
    words, places = bound.rows.view(np.uint64), []
    for query in queries.view(np.uint64):
        bits = np.bitwise_count(words ^ query).sum(axis=1, dtype=np.int16)
        place = int(bits.argmin())
        places.append(place if bits[place] <= bound.distance else -1)
    return places


def _hashes_of(bound: BoundList, facts: ItemFacts, votes: ItemVotes | None) -> list[bytes | None]:
    blobs = votes.blobs.get(HASHES) if votes is not None else None
    if votes is None or blobs is None:
        return [bytes.fromhex(facts.pdq)] if facts.pdq else []
    sure = [True] * len(blobs)
    if QUALITY in votes.labels:
        sure = (votes.scores[:, votes.labels.index(QUALITY)] >= bound.quality).tolist()  # NaN compares false
    return [blobs[row] if sure[row] else None for row in _asked_rows(bound, votes)]


def _asked_rows(bound: BoundList, votes: ItemVotes) -> Sequence[int]:
    rows = range(len(votes.frames))
    if bound.action == "deny" or not votes.roles:
        return rows
    # An allow-list looks at the item's own frames alone; their tiles show nothing new.
    return [row for row in rows if votes.roles[row] == Role.FRAME]


def _as_rows(hashes: Sequence[bytes]) -> U8:
    """Hashes as uint8 [N,32]."""
    rows: U8 = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)
    return rows

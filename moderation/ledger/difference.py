"""Which listed items have to be judged tonight: an anti-join of the streamed listing with the ledger.

New and changed items go into the plan. Items whose content is judged already, or will be tonight, are set aside
(`SetAside`); so are keys that have gone or come back. The files of `SetAside` are complete before the plan is, so a
finished plan never lacks them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from moderation.ledger.index import DELETED, OLDER, RETRY, ContentSet, LedgerIndex, Positions, Provenance, locate
from moderation.ledger.rows import (
    KEY_BYTES,
    U64,
    UNKNOWN,
    attributes_key,
    content_id,
    content_key,
    item_key,
    item_version,
    row_contents,
    split_keys,
    table_keys,
    tonight_key,
)
from moderation.ledger.store import Log, find_rows
from moderation.results.receipts import committed_ids
from moderation.types import Item, Status

Flags = npt.NDArray[np.bool_]

_BATCH_ITEMS = 4096  # listed items per lookup, which costs the same for one as for thousands
# Copies that wait until their origin is looked up, which scans one column of the ledger.
_MAX_WAITING = 20_000
_MAX_RUNS = 64  # runs whose receipts are listed and remembered

MARKS_SCHEMA = pa.schema([("key", pa.binary(KEY_BYTES)), ("deleted", pa.bool_())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the verdict lies that a copy takes over; `run_out` is empty for an item judged tonight.

    judge: the verdict is the item's own, and its votes are judged again: its attributes have changed.
    """

    run_out: str
    part: str
    format: str
    item_id: str
    judge: bool = False


TONIGHT = Origin(run_out="", part="", format="", item_id="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a night does beyond new and changed items.

    rejudge_older: judge again what another stack or policy judged. judge_copies: also judge items whose content is
    judged already; None: not chosen (as false here; the nightly job decides by the kind of its source).
    keep_missing: SOURCE lists only new items, so nothing counts as gone.
    """

    rejudge_older: bool = False
    judge_copies: bool | None = None
    keep_missing: bool = False


class SetAside(Protocol):
    """Keeps what a listing yields besides items to judge."""

    def copies(self, copies: list[tuple[Item, Origin]]) -> None:
        """Keep items that take over a verdict."""

    def close(self, counts: Counter[str], marks: pa.Table) -> None:
        """End: the listing is complete. marks: `MARKS_SCHEMA`."""


def difference(
    listing: Iterable[Item], index: LedgerIndex, log: Log, provenance: Provenance, choice: Choice, aside: SetAside
) -> Iterator[Item]:
    """The items to judge, in the order of the listing (a copy whose origin is unreadable comes later).

    Counts: looked_at = unchanged + returned + reattributed + new + changed + retried + rejudged; of the last four,
    `same_content` take over a verdict. reattributed: only attributes that the policy reads have changed, so the stored
    votes are judged again. older: unchanged items that another stack or policy judged. unversioned: items of unknown
    version, unchanged by name alone. Raises what the listing raises; `aside` is not closed then.
    """
    tonight = _ListingDifference(index=index, log=log, provenance=provenance, choice=choice, aside=aside)
    items = iter(listing)
    while batch := list(islice(items, _BATCH_ITEMS)):
        wanted = tonight.select_to_judge(batch)
        yield from tonight.select_first_of_content(tonight.select_unknown_content(wanted))
        if len(tonight.waiting) >= _MAX_WAITING:
            yield from tonight.settle_copies()
        if len(tonight.reattributed) >= _MAX_WAITING:
            yield from tonight.settle_reattributed()
    yield from tonight.settle_copies()
    yield from tonight.settle_reattributed()
    tonight.close()


@dataclass(slots=True, kw_only=True)
class _ListingDifference:
    """The state of one pass over a listing.

    waiting: items whose content the index seems to have. reattributed: items with other
    attributes. judged: content keys of items judged tonight. returned:
    positions in the index. receipts: run -> its committed shards.
    """

    index: LedgerIndex
    log: Log
    provenance: Provenance
    choice: Choice
    aside: SetAside
    counts: Counter[str] = field(default_factory=Counter)
    waiting: list[Item] = field(default_factory=list)
    reattributed: list[Item] = field(default_factory=list)
    retried: frozenset[str] = frozenset()  # ids of this batch
    judged: ContentSet = field(default_factory=ContentSet)
    returned: list[U64] = field(default_factory=list)
    receipts: Callable[[str], frozenset[str]] = field(default_factory=lambda: lru_cache(_MAX_RUNS)(_receipts))

    def select_to_judge(self, batch: list[Item]) -> list[Item]:
        """The items that need a verdict tonight; all items are counted."""
        at = self.index.find(*split_keys([item_key(item) for item in batch]))
        versions = np.array([item_version(item) for item in batch], np.uint64)
        listed_errors = np.array([item.error is not None for item in batch])
        there = at >= 0
        self.index.seen[at[there]] = True
        before, flags = self._known_of(at)
        changed = there & (versions != before) & (versions != 0) & (before != 0)
        retried = there & ~changed & (flags & RETRY > 0) & ~listed_errors
        older = there & ~changed & ~retried & (flags & OLDER > 0)
        other = self._have_other_attributes(batch, at)
        # Votes of another stack do not fit, so it is looked at. By another policy, the key may be of other attributes.
        rejudged = older & (self.choice.rejudge_older | (other & self.index.are_of_this_policy(at)))
        judged = ~there | changed | retried | rejudged
        reattributed = there & ~judged & ~older & other
        self.reattributed += [item for item, other in zip(batch, reattributed.tolist(), strict=True) if other]
        returned = ~judged & ~reattributed & (flags & DELETED > 0)
        self.retried = frozenset(item.item_id for item, again in zip(batch, retried.tolist(), strict=True) if again)
        self.returned.append(at[returned].astype(np.uint64))
        self.counts.update(
            looked_at=len(batch),
            new=int((~there).sum()),
            changed=int(changed.sum()),
            retried=int(retried.sum()),
            rejudged=int(rejudged.sum()),
            returned=int(returned.sum()),
            reattributed=int(reattributed.sum()),
            unchanged=int((~judged & ~returned & ~reattributed).sum()),
            older=int((older & ~rejudged).sum()),
            unversioned=int((~judged & ~reattributed & (versions == 0)).sum()),
        )
        return [item for item, wanted in zip(batch, judged.tolist(), strict=True) if wanted]

    def _known_of(self, at: Positions) -> tuple[U64, npt.NDArray[np.uint8]]:
        """(version, flags) of rows of the ledger; zeros where it is empty."""
        if len(self.index):
            return self.index.version[at], self.index.flags[at]
        return np.zeros(len(at), np.uint64), np.zeros(len(at), np.uint8)

    def _have_other_attributes(self, batch: list[Item], at: Positions) -> Flags:
        """bool [N]: items of which attributes that the policy reads are not those of the ledger's row."""
        names = self.provenance.attributes
        if not names or not len(self.index):
            return np.zeros(len(batch), np.bool_)
        now = np.array([attributes_key(item, names) for item in batch], np.uint64)
        before = self.index.attributes[at]
        # A row of an older version does not say which attributes it had.
        other: Flags = (now != before) & (before != UNKNOWN)
        return other

    def settle_reattributed(self) -> list[Item]:
        """Set aside the items with other attributes, whose votes are judged again; return those that have none left."""
        items, self.reattributed = self.reattributed, []
        if not items:
            return []
        origins = self._find_own({item_key(item) for item in items})
        settled = [(item, origins.get(item_key(item))) for item in items]
        kept = [(item, origin) for item, origin in settled if origin is not None]
        if kept:
            self.aside.copies(kept)
        lost = [item for item, origin in settled if origin is None]
        self.counts.update(reattributed=-len(lost), changed=len(lost))
        return lost

    def _find_own(self, wanted: set[bytes]) -> dict[bytes, Origin]:
        """Key -> where the newest row of that item lies, if it is still there."""
        high, low = split_keys(sorted(wanted))
        rows: dict[bytes, Mapping[str, Any]] = {}
        # Newest files come first, and so does the newest row of a key.
        for table in find_rows(self.log, "key", lambda t: locate(high, low, *table_keys(t))[1]):
            for row in table.to_pylist():
                rows.setdefault(row["key"], row)
        return {
            key: replace(_origin_of(row), judge=True)
            for key, row in rows.items()
            if row["part"] in self.receipts(row["run_out"])
        }

    def select_unknown_content(self, items: list[Item]) -> list[Item]:
        """The items whose content the ledger does not have; the others wait to be looked up.

        Retried items are judged: their error may be that an origin's tables are damaged.
        """
        if self.choice.judge_copies or not items:
            return items
        keys = np.array([content_key(content_id(item)) for item in items], np.uint64)
        is_known = self.index.has_content(keys).tolist()
        copies = [is_copy and item.item_id not in self.retried for item, is_copy in zip(items, is_known, strict=True)]
        self.waiting += [item for item, is_copy in zip(items, copies, strict=True) if is_copy]
        return [item for item, is_copy in zip(items, copies, strict=True) if not is_copy]

    def select_first_of_content(self, items: list[Item]) -> list[Item]:
        """The items whose content is not judged tonight under another name; the others are set aside."""
        if self.choice.judge_copies or not items:
            return items
        keys = np.array([tonight_key(item) for item in items], np.uint64)
        repeated = self.judged.contains(keys)
        first = np.zeros(len(items), dtype=bool)
        first[np.unique(keys, return_index=True)[1]] = True
        repeated |= ~first & (keys != 0)
        self.judged.add(keys[~repeated & (keys != 0)])
        self._set_aside([(item, TONIGHT) for item, copy in zip(items, repeated.tolist(), strict=True) if copy])
        return [item for item, copy in zip(items, repeated.tolist(), strict=True) if not copy]

    def settle_copies(self) -> list[Item]:
        """Set aside the waiting items whose origin's rows are readable; return the others, to be judged after all."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return []
        origins = self._find_origins({i for item in waiting if (i := content_id(item)) is not None})
        settled = [(item, origins.get(content_id(item) or "")) for item in waiting]
        self._set_aside([(item, origin) for item, origin in settled if origin is not None])
        return self.select_first_of_content([item for item, origin in settled if origin is None])

    def _set_aside(self, copies: list[tuple[Item, Origin]]) -> None:
        self.counts["same_content"] += len(copies)
        if copies:
            self.aside.copies(copies)

    def _find_origins(self, wanted: set[str]) -> dict[str, Origin]:
        """Content id -> where the newest usable verdict of that content lies."""
        keys = np.array(sorted(content_key(i) for i in wanted), np.uint64)
        origins: dict[str, Origin] = {}
        for table in find_rows(self.log, "content_key", lambda t: np.isin(t["content_key"].to_numpy(), keys)):
            for row in filter(self._may_be_taken_over, table.to_pylist()):
                missing = [i for i in row_contents(row) if i in wanted and i not in origins]
                if missing and row["part"] in self.receipts(row["run_out"]):
                    origins.update(dict.fromkeys(missing, _origin_of(row)))
        return origins

    def _may_be_taken_over(self, row: Mapping[str, Any]) -> bool:
        """Whether this row was judged without an error by tonight's stack and policy."""
        judged_by = (row["stack_fingerprint"], row["policy_hash"])
        tonight = (self.provenance.stack_fingerprint, self.provenance.policy_hash)
        return bool(row["status"] == Status.OK) and judged_by == tonight

    def close(self) -> None:
        """Report which items have gone and which have come back."""
        high, low = self.index.select_missed() if not self.choice.keep_missing else (np.empty(0, np.uint64),) * 2
        back = np.concatenate(self.returned) if self.returned else np.empty(0, np.uint64)
        self.counts["deleted"] = len(high)
        keys = _key_bytes(np.concatenate([high, self.index.high[back]]), np.concatenate([low, self.index.low[back]]))
        deleted = np.arange(len(keys)) < len(high)
        self.aside.close(self.counts, pa.table([keys, pa.array(deleted)], schema=MARKS_SCHEMA))


def _origin_of(row: Mapping[str, Any]) -> Origin:
    return Origin(run_out=row["run_out"], part=row["part"], format=row["format"], item_id=row["item_id"])


def _key_bytes(high: U64, low: U64) -> pa.Array:
    pairs = np.stack([high, low], axis=1).astype(">u8")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(pairs), [None, pa.py_buffer(pairs.tobytes())])


def _receipts(run_out: str) -> frozenset[str]:
    return frozenset(committed_ids(run_out))

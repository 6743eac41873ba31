"""How far a run is, from its output alone: plan, states and receipts. The cluster is not asked.

Exact: shards and items planned and done, and the state of each slice (a listing of names, and one column of the plan).
From the receipts: verdicts, errors and times. Up to MOST_READ of them are all read; of more, a sample of that size,
which is uniform, as shard ids are hashes: shares of what is done are then right within about 1 % for whole verdicts,
and the newest time is a little too old (10 hours, 40,000 receipts, 1,000 read: half a minute).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

from moderation import storage
from moderation.errors import UsageError
from moderation.planning.plan import chunk_uri, plan_uri, read_shard_sizes
from moderation.planning.slices import Listing, find_slices, read_listing, slice_home
from moderation.results.receipts import Receipt, committed_ids, read_receipts

# A receipt takes an object store 30 ms, and 32 are read at once: two seconds.
MOST_READ = 2000
# The rate is that of the last so many receipts that were read: of the hour, not of the week.
RATE_RECEIPTS = 200
# Shards take seconds to minutes; their watchdog gives them five minutes at least before it kills a worker, and then
# they are tried again.
STUCK_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    """One slice, or the whole of an unsliced run. `slice` is "3/8"; state None: nothing was written yet."""

    slice: str | None
    state: str | None
    error: str | None
    listing_ended: bool
    shards: int  # planned so far
    shards_done: int
    items: int
    items_done: int
    updated_at: float | None  # Unix seconds of the last change of state


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a run is. Totals are None while nobody has come to the end of the listing.

    items_per_s, left_s: by the newest receipts; None where it is not known, left_s also when nothing runs.
    receipts_read: how many receipts `verdicts` and `errors` are of; they are `exact` when that is all of them, else
    scaled up. items_copied: rows of a night that took over the verdict of the same content; in no other figure here.
    seems_stuck: running by its state, but without a commit for 15 minutes.
    """

    out: str
    run_id: str | None
    state: str
    merged: bool
    parts: tuple[PartStatus, ...]
    slices_missing: tuple[str, ...]
    shards_total: int | None
    shards_done: int
    items_total: int | None
    items_done: int
    items_copied: int
    items_per_s: float | None
    left_s: float | None
    last_receipt_age_s: float | None
    seems_stuck: bool
    exact: bool
    receipts_read: int
    verdicts: Mapping[str, int]
    errors: Mapping[str, int]


def read_status(out: str, *, now_s: float, most_read: int = MOST_READ) -> RunStatus:
    """How far the run in OUT is at `now_s` (Unix seconds). Reads only; safe beside a run, its listing too.

    Raises UsageError when there is no run in OUT, StorageError.
    """
    out = storage.canonical(out).rstrip("/")
    committed = committed_ids(out)
    found = find_slices(out)
    homes = [(None, out), *((part, slice_home(out, part)) for part in found)]
    sizes: dict[str, int] = {}
    parts: list[PartStatus] = []
    states: list[dict[str, Any]] = []
    listings: list[Listing] = []
    for part, home in homes:
        state = _read_state(home)
        planned, ended = _read_plan(home)
        if part is None and state is None and not planned:
            continue  # nothing of the whole, only slices
        states.append(state or {})
        listing = read_listing(home) if part is not None else None
        if listing is not None:
            listings.append(listing)
        parts.append(_part_status(str(part) if part else None, state, planned, ended, committed))
        sizes.update(planned)
    if not parts:
        raise UsageError(f"{out}: no run there")
    # Read before the plan, which is written before its shards are judged: what it does not have was not judged.
    copied = committed - sizes.keys()
    committed = committed & sizes.keys()
    whole = next((p for p in parts if p.slice is None), None)
    total = _total(whole, listings)
    running = [p for p in parts if p.state == "running"]
    receipts = list(read_receipts(out, _sample(committed, most_read)))
    since = min((p.updated_at for p in running if p.updated_at is not None), default=None)
    times = _Times.of(receipts, sizes, len(committed), now_s if running else None, since)
    last = max([*times.newest, *(p.updated_at for p in running if p.updated_at is not None)], default=None)
    done = sum(sizes.get(shard_id, 0) for shard_id in committed)
    age_s = None if not times.newest else max(0.0, now_s - times.newest[0])
    rate = times.items_per_s
    return RunStatus(
        out=out,
        run_id=next((s["run_id"] for s in states if s.get("run_id")), None),
        state=_state(parts, whole),
        merged=whole is not None and whole.state == "done" and len(parts) > 1,
        parts=tuple(parts),
        slices_missing=_missing(found),
        shards_total=total[0] if total else None,
        shards_done=sum(shard_id in committed for shard_id in sizes),
        items_total=total[1] if total else None,
        items_done=done,
        items_copied=_rows(out, copied, most_read),
        items_per_s=None if rate is None else round(rate, 3),
        left_s=round((total[1] - done) / rate, 1) if total and rate and running else None,
        last_receipt_age_s=None if age_s is None else round(age_s, 1),
        seems_stuck=bool(running) and last is not None and now_s - last > STUCK_S,
        exact=len(receipts) == len(committed),
        receipts_read=len(receipts),
        verdicts=_scaled(receipts, "verdict:", len(committed)),
        errors=_scaled(receipts, "error:", len(committed)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """When the receipts that were read were written. newest: the last of them, or empty."""

    newest: tuple[float, ...]
    items_per_s: float | None

    @staticmethod
    def of(
        receipts: list[Receipt], sizes: Mapping[str, int], committed: int, now_s: float | None, since_s: float | None
    ) -> _Times:
        """now_s: of a run that goes on: the time since its last receipt counts. since_s: when this call began."""
        dated = sorted((r for r in receipts if r.committed_at), key=lambda r: r.committed_at)
        if not dated:
            return _Times(newest=(), items_per_s=None)
        last_s = dated[-1].committed_at
        if since_s is not None:
            # Between two calls lies a pause that says nothing of the rate.
            dated = [r for r in dated if r.committed_at >= since_s]
        # As many of a sample: a longer stretch of time, for fewer would be noise (of 20 a fifth, of 200 a fifteenth).
        weight = committed / len(receipts)
        recent = dated[-RATE_RECEIPTS:]
        if not recent:
            return _Times(newest=(last_s,), items_per_s=None)
        begin_s = since_s if since_s is not None and len(recent) == len(dated) else recent[0].committed_at
        counted = recent if begin_s == since_s else recent[1:]
        span_s = max(last_s, now_s or 0.0) - begin_s
        items = weight * sum(sizes.get(r.shard_id, r.rows_in) for r in counted)
        return _Times(newest=(last_s,), items_per_s=items / span_s if span_s > 0 and counted else None)


def _read_state(home: str) -> dict[str, Any] | None:
    data = storage.read_optional(storage.join(home, "run.json"))
    if data is None:
        return None
    try:
        record = json.loads(data)
    except ValueError as error:
        raise UsageError(f"{home}/run.json: not readable") from error
    if not isinstance(record, dict):
        raise UsageError(f"{home}/run.json: not that of a run")
    return record


def _read_plan(home: str) -> tuple[dict[str, int], bool]:
    """Items by shard, as far as planned, and whether that is all."""
    planned: dict[str, int] = {}
    for index in count():
        chunk = read_shard_sizes(chunk_uri(home, index))
        if chunk is None:
            break
        planned.update(chunk)
    # After the chunks: they are deleted once the whole plan is there, perhaps just now.
    whole = read_shard_sizes(plan_uri(home))
    return (planned, False) if whole is None else (whole, True)


def _part_status(
    name: str | None, state: Mapping[str, Any] | None, planned: Mapping[str, int], ended: bool, committed: set[str]
) -> PartStatus:
    done = [shard_id for shard_id in planned if shard_id in committed]
    return PartStatus(
        slice=name,
        state=state.get("state") if state is not None else None,
        error=state.get("error") if state is not None else None,
        listing_ended=ended,
        shards=len(planned),
        shards_done=len(done),
        items=sum(planned.values()),
        items_done=sum(planned[shard_id] for shard_id in done),
        updated_at=_unix_s(state.get("updated_at")) if state is not None else None,
    )


def _unix_s(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _total(whole: PartStatus | None, listings: list[Listing]) -> tuple[int, int] | None:
    """Shards and items of the whole run, once a listing has ended: every slice's listing sees the whole source."""
    if whole is not None and whole.listing_ended:
        return whole.shards, whole.items
    return max(((found.shards, found.items) for found in listings), default=None)


def _missing(found: list[Any]) -> tuple[str, ...]:
    """Slices that have not begun, of each number of slices that was used."""
    there = {str(part) for part in found}
    wanted = [f"{i}/{n}" for n in sorted({part.count for part in found}) for i in range(1, n + 1)]
    return tuple(name for name in wanted if name not in there)


def _state(parts: list[PartStatus], whole: PartStatus | None) -> str:
    """running where anything runs, then what needs someone: failed, partial; done only when all is."""
    known = [whole.state] if whole is not None and whole.state == "done" else [p.state for p in parts]
    for state in ("running", "failed", "partial", None):
        if state in known:
            return state or "not begun"
    return "done"


def _rows(out: str, ids: set[str], most_read: int) -> int:
    rows = [receipt.rows_in for receipt in read_receipts(out, _sample(ids, most_read))]
    return round(sum(rows) * len(ids) / len(rows)) if rows else 0


def _sample(ids: set[str], most: int) -> set[str]:
    return ids if len(ids) <= most else set(sorted(ids)[:most])


def _scaled(receipts: list[Receipt], prefix: str, committed: int) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for receipt in receipts:
        counts.update({k.removeprefix(prefix): n for k, n in receipt.counts.items() if k.startswith(prefix)})
    weight = committed / len(receipts) if receipts else 0.0
    return {name: round(n * weight) for name, n in sorted(counts.items())}

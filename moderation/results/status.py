"""How far a run is, from its output alone: plan, states and receipts. The cluster is not asked.

Exact: shards and items planned and done, and the state of each slice (a listing of names, and one column of the plan).
From the receipts: verdicts, errors and times. Up to MAX_READ receipts all are read; of more, a sample of that size. The
sample is uniform, because shard ids are hashes: the shares of the verdicts are right within about 1 %, and the newest
time is a little too old (by half a minute where 1,000 of 40,000 receipts from 10 hours are read).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from typing import Any, NamedTuple

from moderation import storage
from moderation.errors import UsageError
from moderation.planning.names import chunk_uri, plan_uri
from moderation.planning.plan import read_shard_sizes
from moderation.planning.slices import Slice, SliceListing, find_slices, read_listing, slice_home
from moderation.results.at_work import find_job
from moderation.results.joined import read_newest
from moderation.results.layout import extension_home
from moderation.results.pace import measure_pace
from moderation.results.receipts import Receipt, committed_ids, read_receipts
from moderation.results.record import extensions_of, read_record

# Two seconds: an object store takes 30 ms per receipt, and 32 are read at once.
MAX_READ = 2000
# Shards take seconds to minutes. The watchdog waits at least five minutes before it kills a worker, and then the shard
# is tried again.
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
    """How far a run is. Totals are None until a listing has ended.

    items_per_s, left_s: by the newest receipts; None where not known, left_s also when nothing runs.
    receipts_read: the number of receipts behind `verdicts` and `errors`, which are `exact` when all were read, else
    scaled up. extension: of detectors that are being added and do not count yet.
    items_copied: rows of a night that took over the verdict of the same content; no other figure counts
    them. seems_stuck: its state is running, but there was no commit for 15 minutes.
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
    extension: RunStatus | None = None
    job: str | None = None
    seems_dead: bool = False


def read_status(out: str, *, now_s: float, max_read: int = MAX_READ) -> RunStatus:
    """How far the run in OUT is at `now_s` (Unix seconds). Reads only; safe beside a run, its listing too.

    Raises UsageError when there is no run in OUT, StorageError.
    """
    out = storage.canonical(out).rstrip("/")
    # Listed before the plan is read: a shard is planned before it is judged, so the plan has all of these receipts.
    receipt_ids = committed_ids(out)
    slices = find_slices(out)
    folders = _read_folders(out, slices)
    if not folders:
        raise UsageError(f"{out}: no run there")
    sizes = dict(chain.from_iterable(folder.planned.items() for folder in folders))
    committed = receipt_ids & sizes.keys()
    parts = tuple(_part_status(folder, committed) for folder in folders)
    whole = parts[0] if parts[0].slice is None else None
    total = _total(whole, folders)
    receipts = list(read_receipts(out, _sample(committed, max_read)))
    done = sum(map(sizes.__getitem__, committed))
    signs = _read_signs(parts, receipts, sizes, len(committed), now_s)
    job, dead_after_s = find_job(out, [folder.record for folder in folders], running=signs.running)
    return RunStatus(
        out=out,
        run_id=_run_id(folders),
        state=_state(parts, whole),
        merged=whole is not None and whole.state == "done" and len(parts) > 1,
        parts=parts,
        slices_missing=_missing(slices),
        shards_total=total.shards,
        shards_done=len(committed),
        items_total=total.items,
        items_done=done,
        items_copied=_rows(out, receipt_ids - sizes.keys(), max_read),
        items_per_s=_rounded(signs.items_per_s, 3),
        left_s=_left_s(total, done, signs),
        last_receipt_age_s=_rounded(signs.last_receipt_age_s, 1),
        seems_stuck=signs.running and signs.silent_s > STUCK_S,
        exact=len(receipts) == len(committed),
        receipts_read=len(receipts),
        verdicts=_scaled(receipts, "verdict:", len(committed)),
        errors=_scaled(receipts, "error:", len(committed)),
        extension=_extension_status(out, now_s, max_read),
        job=job,
        seems_dead=signs.silent_s >= dead_after_s,
    )


def _extension_status(out: str, now_s: float, max_read: int) -> RunStatus | None:
    """How far the detectors are that are being added; None where there are none, or their votes count already."""
    name = read_newest(out)
    if name is None or name in extensions_of(read_record(out), out):
        return None
    try:
        return read_status(extension_home(out, name), now_s=now_s, max_read=max_read)
    except UsageError:
        return None  # only just begun


class _Total(NamedTuple):
    """Totals of the whole run; None until a listing has ended."""

    shards: int | None
    items: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signs:
    """Signs of life. silent_s: since the last commit, or since a running call began; 0 where neither is known."""

    running: bool
    items_per_s: float | None
    last_receipt_age_s: float | None
    silent_s: float


def _read_signs(
    parts: Sequence[PartStatus], receipts: Sequence[Receipt], sizes: Mapping[str, int], committed: int, now_s: float
) -> _Signs:
    running = [p for p in parts if p.state == "running"]
    begun_s = [p.updated_at for p in running if p.updated_at is not None]
    pace = measure_pace(
        receipts,
        sizes,
        committed=committed,
        now_s=now_s if running else None,
        since_s=min(begun_s, default=None),
    )
    commits_s = [] if pace.last_commit_s is None else [pace.last_commit_s]
    return _Signs(
        running=bool(running),
        items_per_s=pace.items_per_s,
        last_receipt_age_s=max(0.0, now_s - commits_s[0]) if commits_s else None,
        silent_s=now_s - max([*begun_s, *commits_s], default=now_s),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """What lies in the folder of a slice, or of the whole run (`part` None). planned: items by shard, so far."""

    part: Slice | None
    record: Mapping[str, Any] | None
    planned: Mapping[str, int]
    listing_ended: bool
    listing: SliceListing | None


def _read_folders(out: str, slices: Sequence[Slice]) -> list[_Folder]:
    """The folder of the whole run first, unless it is empty; then each slice's."""
    folders = [_read_folder(out, None), *(_read_folder(slice_home(out, part), part) for part in slices)]
    return [f for f in folders if f.part is not None or f.record is not None or f.planned]


def _read_folder(home: str, part: Slice | None) -> _Folder:
    record = read_record(home)
    planned, ended = _read_plan(home)
    listing = read_listing(home) if part is not None else None
    return _Folder(part=part, record=record, planned=planned, listing_ended=ended, listing=listing)


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


def _part_status(folder: _Folder, committed: set[str]) -> PartStatus:
    done = [shard_id for shard_id in folder.planned if shard_id in committed]
    record = folder.record or {}
    return PartStatus(
        slice=str(folder.part) if folder.part else None,
        state=record.get("state"),
        error=record.get("error"),
        listing_ended=folder.listing_ended,
        shards=len(folder.planned),
        shards_done=len(done),
        items=sum(folder.planned.values()),
        items_done=sum(folder.planned[shard_id] for shard_id in done),
        updated_at=_unix_s(record.get("updated_at")),
    )


def _left_s(total: _Total, done: int, signs: _Signs) -> float | None:
    if not signs.running or not signs.items_per_s or total.items is None:
        return None
    return round((total.items - done) / signs.items_per_s, 1)


def _run_id(folders: Sequence[_Folder]) -> str | None:
    return next((f.record["run_id"] for f in folders if f.record and f.record.get("run_id")), None)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _unix_s(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _total(whole: PartStatus | None, folders: Sequence[_Folder]) -> _Total:
    """Shards and items of the whole run, once a listing has ended: every slice's listing sees the whole source."""
    if whole is not None and whole.listing_ended:
        return _Total(whole.shards, whole.items)
    listings = [folder.listing for folder in folders if folder.listing is not None]
    return max((_Total(listing.shards, listing.items) for listing in listings), default=_Total(None, None))


def _missing(slices: Sequence[Slice]) -> tuple[str, ...]:
    """Slices that have not begun, for each N of `--slice I/N` that was used."""
    there = {str(part) for part in slices}
    wanted = [f"{i}/{n}" for n in sorted({part.count for part in slices}) for i in range(1, n + 1)]
    return tuple(name for name in wanted if name not in there)


def _state(parts: Sequence[PartStatus], whole: PartStatus | None) -> str:
    """running where anything runs; else failed or partial, which need attention; done only when all parts are."""
    states = [whole.state] if whole is not None and whole.state == "done" else [p.state for p in parts]
    for state in ("running", "failed", "partial", None):
        if state in states:
            return state or "not begun"
    return "done"


def _rows(out: str, ids: set[str], max_read: int) -> int:
    rows = [receipt.rows_in for receipt in read_receipts(out, _sample(ids, max_read))]
    return round(sum(rows) * len(ids) / len(rows)) if rows else 0


def _sample(ids: set[str], size: int) -> set[str]:
    return ids if len(ids) <= size else set(sorted(ids)[:size])


def _scaled(receipts: list[Receipt], prefix: str, committed: int) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for receipt in receipts:
        counts.update({k.removeprefix(prefix): n for k, n in receipt.counts.items() if k.startswith(prefix)})
    weight = committed / len(receipts) if receipts else 0.0
    return {name: round(n * weight) for name, n in sorted(counts.items())}

"""A sweep by what lists have learned or forgotten: the items of new entries, and of entries that are gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Final

import numpy as np

from moderation import storage
from moderation.analysis.learn import LearnedLists, content_name
from moderation.analysis.learned_items import LearnedItem, find_learned_items
from moderation.analysis.sweep import SweepChange, Swept, sweep
from moderation.analysis.sweep_by_decision import HELD, CopyLimits
from moderation.analysis.sweep_changes import read_sweep
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import FoundItem, SweepTarget, read_target
from moderation.errors import UsageError
from moderation.hashes.search import MAX_DISTANCE
from moderation.labels.decision_store import read_decisions
from moderation.labels.effective import hold_by
from moderation.results.reader import open_run
from moderation.results.sweep_layout import night_sweep, sweeps_folder, swept_decisions_uri
from moderation.types import U8

_REACH: Final = 2 * MAX_DISTANCE  # bits between two pictures that may have a copy in common
_UNSURE: Final = "unsure"  # in place of a verdict: a sweep by it has begun


def sweep_learned(
    items: Sequence[LearnedItem],
    uris: Sequence[str],
    to: str,
    *,
    near: int | None,
    as_of: date,
    earlier: Sequence[str] = (),
    holding: Iterable[LearnedItem] = (),
) -> Swept | None:
    """Apply what holds of these items to all that `uris` (runs, nights, ledgers) have judged; None without items.

    holding: all that holds, applied before or now: its blocks keep their copies blocked when others are taken back.
    near: bits up to which a copy of a blocked picture is blocked; copies further away, up to 31, go to review.
    Raises as `sweep`.
    """
    targets = [_target(item) for item in items if item.shard_id is not None]
    if not targets:
        return None
    targets += [_target(replace(item, verdict=HELD)) for item in _neighbours(items, holding)]
    limits = CopyLimits(block_distance=min(near or 0, 31))
    change = SweepChange(name="learned lists", targets=tuple(targets), limits=limits)
    # A run of long ago may lack its policy: the others are swept all the same, and the record names it.
    return sweep(find_sources(uris), change, to, as_of=as_of, earlier=earlier, leave_out=True)


def held_beside(targets: Sequence[SweepTarget], outs: Sequence[str], earlier: Sequence[str] = ()) -> list[SweepTarget]:
    """What is blocked and may have a copy in common with a target that is freed.

    outs: runs whose reviewers have blocked it. earlier: sweeps that have, also where their caller decided.
    Raises DamagedDecisionsError, StorageError, UsageError where a record is not readable.
    """
    freed = [
        LearnedItem(
            item_id=t.item_id, uri=t.uri, run=t.run, shard_id=None, content_hash=t.content_hash,
            hash=t.hashes[0] if t.frames == 1 and t.hashes else None, inner=_inner_of(t), verdict=t.verdict,
        )
        for t in targets
        if t.verdict != "block"
    ]  # fmt: skip
    if not freed:
        return []
    settled, items = find_learned_items({out: said for out in outs if (said := read_decisions(out))})
    holding = hold_by(settled, content_name).values()
    known = [items[said.item_id, said.content_hash].with_decision(said) for said in holding]
    held = [_target(replace(item, verdict=HELD)) for item in _neighbours(freed, known)]
    there = {(t.item_id, t.content_hash) for t in (*targets, *held)}
    return held + [t for t in _blocked_by(earlier) if (t.item_id, t.content_hash) not in there]


def _blocked_by(sweeps: Sequence[str]) -> list[SweepTarget]:
    """What these sweeps, the oldest first, have blocked and not freed again."""
    last: dict[tuple[str, str | None], SweepTarget] = {}
    for uri in sweeps:
        change = ((read_sweep(uri) or {}).get("identity") or {}).get("change") or {}
        said = [SweepTarget.from_json(record) for record in change.get("targets") or ()]
        last |= {(t.item_id, t.content_hash): t for t in said if t.verdict != HELD}
    return [replace(target, verdict=HELD) for target in last.values() if target.verdict == "block"]


def _neighbours(items: Sequence[LearnedItem], holding: Iterable[LearnedItem]) -> list[LearnedItem]:
    """The other blocked items that may have a copy in common with one whose block is taken back."""
    freed = [item for item in items if item.verdict != "block"]
    names = {content_name(item) for item in items}
    hashes = _hashes_of(freed)
    # Of videos and albums no single hash tells what they have in common.
    has_films = any(item.hash is None for item in freed)
    others = [
        item
        for item in (holding if freed else ())
        if item.verdict == "block" and item.shard_id is not None and content_name(item) not in names
    ]
    # A film may show a picture, within it or as one of its frames.
    return [item for item in others if has_films or item.hash is None or _are_close(_hashes_of([item]), hashes)]


def _inner_of(target: SweepTarget) -> str | None:
    inner = target.parts[0][:64] if target.frames == 1 and target.parts else ""
    return inner if inner.strip("0") else None


def _hashes_of(items: Iterable[LearnedItem]) -> U8:
    """uint8 [n,32]: with and without bars, as copies are looked for."""
    known = [bytes.fromhex(text) for item in items for text in (item.hash, item.inner) if text is not None]
    return np.frombuffer(b"".join(known), np.uint8).reshape(-1, 32)


def _are_close(own: U8, hashes: U8) -> bool:
    return bool((np.bitwise_count(own[:, None] ^ hashes[None]).sum(axis=2) <= _REACH).any())


def _target(item: LearnedItem) -> SweepTarget:
    place = FoundItem(run=0, shard_id=item.shard_id or "", item_id=item.item_id, uri=item.uri)
    return read_target(
        open_run(item.run), place, verdict=item.verdict, cause=item.cause, entry=item.entry or item.item_id,
        embedding=None,
    )  # fmt: skip


def sweep_night(
    learned: LearnedLists, home: str, ledger: str, night: str, *, near: int | None, as_of: date
) -> Swept | None:
    """Apply to a ledger what decisions say that no night before has applied; writes OUT/sweeps/<night>/.

    home: the folder of all nights. What is about to be applied is noted there as unsure, and as applied once that is
    done, so that a call that was killed loses none, nor what was taken back since. None: there was nothing to apply.
    Raises as `sweep`.
    """
    now = {key: [item.item_id, item.verdict, item.entry] for key, item in learned.holding.items()}
    before = _read_applied(home)
    gone: dict[str, set[str]] = {}
    for key, said in before.items():
        if key not in now:
            gone.setdefault(said[0], set()).add(key)
    items = [item for key, item in learned.holding.items() if before.get(key, [])[1:] != now[key][1:]]
    items += [item for item in learned.items.values() if content_name(item) in gone.get(item.item_id, ())]
    to = night_sweep(home, night)
    if items:
        unsure = {content_name(item): [item.item_id, _UNSURE, ""] for item in items}
        _note_applied(home, before | unsure)
    earlier = [uri for uri in _finished_sweeps(home) if uri != to]
    holding = learned.holding.values()
    swept = sweep_learned(items, [ledger], to, near=near, as_of=as_of, earlier=earlier, holding=holding)
    if now != before:
        _note_applied(home, now)
    return swept


def _note_applied(home: str, applied: Mapping[str, Sequence[str]]) -> None:
    storage.publish(swept_decisions_uri(home), json.dumps(applied, indent=0, sort_keys=True).encode())


def _read_applied(home: str) -> dict[str, list[str]]:
    """Content -> item, verdict and decision that the last night applied."""
    uri = swept_decisions_uri(home)
    data = storage.read_optional(uri)
    try:
        record = {} if data is None else json.loads(data)
    except ValueError as error:
        raise UsageError(f"{uri}: not readable; delete it to apply all decisions again") from error
    if not _is_applied(record):
        raise UsageError(f"{uri}: not what a night wrote; delete it to apply all decisions again")
    return dict(record)


def _is_applied(record: object) -> bool:
    if not isinstance(record, Mapping):
        return False
    return all(
        isinstance(said, list) and len(said) == 3 and all(isinstance(word, str) for word in said)
        for said in record.values()
    )


def _finished_sweeps(home: str) -> list[str]:
    folder = sweeps_folder(home)
    uris = [storage.join(folder, name) for name in storage.list_names(folder)]
    return [uri for uri in uris if (read_sweep(uri) or {}).get("state") == "done"]

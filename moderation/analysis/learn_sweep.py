"""A sweep by what lists have learned or forgotten: the items of new entries, and of entries that are gone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date

from moderation import storage
from moderation.analysis.learn import LearnedLists, content_name
from moderation.analysis.learned_items import LearnedItem
from moderation.analysis.sweep import SweepChange, Swept, sweep
from moderation.analysis.sweep_by_decision import CopyLimits
from moderation.analysis.sweep_changes import read_sweep
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import FoundItem, SweepTarget, read_target
from moderation.errors import UsageError
from moderation.results.reader import open_run
from moderation.results.sweep_layout import night_sweep, sweeps_folder, swept_decisions_uri


def sweep_learned(
    items: Sequence[LearnedItem],
    uris: Sequence[str],
    to: str,
    *,
    near: int | None,
    as_of: date,
    earlier: Sequence[str] = (),
) -> Swept | None:
    """Apply what holds of these items to all that `uris` (runs, nights, ledgers) have judged; None without items.

    near: bits up to which a copy of a blocked picture is blocked; copies further away, up to 31, go to review.
    Raises as `sweep`.
    """
    targets = [_target(item) for item in items if item.shard_id is not None]
    if not targets:
        return None
    limits = CopyLimits(block_distance=min(near or 0, 31))
    change = SweepChange(name="learned lists", targets=tuple(targets), limits=limits)
    # A run of long ago may lack its policy: the others are swept all the same, and the record names it.
    return sweep(find_sources(uris), change, to, as_of=as_of, earlier=earlier, leave_out=True)


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

    home: the folder of all nights. Which decisions were applied is noted there once that is done, so that a call that
    was killed loses none. None: there was nothing to apply. Raises as `sweep`.
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
    earlier = [uri for uri in _finished_sweeps(home) if uri != to]
    swept = sweep_learned(items, [ledger], to, near=near, as_of=as_of, earlier=earlier)
    if now != before:
        text = json.dumps(now, indent=0, sort_keys=True)
        storage.publish(swept_decisions_uri(home), text.encode())
    return swept


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

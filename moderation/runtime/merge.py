"""The slices of a run -> one dataset: what an unsliced run would have left beside the tables, which are there already.

No cluster and no weights: plans, states and receipts are read, nothing is judged.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moderation import storage
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.pipeline.shard import RunFacts
from moderation.planning.plan import decode_shards, encode_shards, plan_uri
from moderation.planning.slices import Listing, Slice, find_slices, read_listing, slice_home
from moderation.results.receipts import committed_ids, part_name
from moderation.runtime.run import Output, difference, finish_run, read_state, run_id_of
from moderation.types import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """A slice that has come to its end."""

    part: Slice
    home: str
    state: dict[str, Any]
    listing: Listing
    summary: dict[str, Any]
    plan: bytes

    def shards(self) -> Iterator[tuple[int, Shard]]:
        """Its shards, each with its place among all."""
        return zip(self.listing.positions, decode_shards(self.plan), strict=True)


def merge_slices(out: str, *, prune: bool = False) -> dict[str, Any]:
    """Write OUT's plan.parquet, run.json, summary.json, report.html and _SUCCESS from its slices; the summary.

    prune: delete parts and receipts of shards that no slice plans (a listing was interrupted, and the source changed
    before it began anew); without it they are a UsageError, for readers would count their rows.
    Raises UsageError when a slice is missing, not done, of another run, or listed another state of the source.
    """
    out = storage.canonical(out).rstrip("/")
    slices = _read_slices(out)
    first = slices[0]
    identity = first.state["identity"]
    run = Output(
        source=identity["source"],
        out=out,
        home=out,
        config=Config.model_validate(first.state["config"]),
        facts=RunFacts(run_id=run_id_of(identity), stack_fingerprint=identity["stack"], policy_hash=identity["policy"]),
        identity=identity,
    )
    before = read_state(out)
    if before is not None and before["identity"] != identity:
        raise UsageError(f"{out}: holds another run beside the slices: {difference(before['identity'], identity)}")
    ids: list[str] = []
    plan = encode_shards(_counted((shard for _, shard in heapq.merge(*(s.shards() for s in slices))), ids))
    _check_receipts(out, slices, ids, run.config.output.format, prune=prune)
    storage.publish(plan_uri(out), plan)
    return finish_run(run, ids, wall_s=None, partial=False, facts=_merged_facts(slices))


def _counted(shards: Iterator[Shard], ids: list[str]) -> Iterator[Shard]:
    for shard in shards:
        ids.append(shard.shard_id)
        yield shard


def _read_slices(out: str) -> list[_Done]:
    found = find_slices(out)
    if not found:
        raise UsageError(f"{out}: no slices there; `moderation backfill --slice 1/N` makes them")
    counts = sorted({part.count for part in found})
    complete = [n for n in counts if sum(part.count == n for part in found) == n]
    if not complete:
        # Of the number that is nearest to complete.
        count = max(counts, key=lambda n: sum(part.count == n for part in found) / n)
        there = {part.index for part in found if part.count == count}
        missing = [f"{i}/{count}" for i in range(1, count + 1) if i not in there]
        raise UsageError(f"{out}: {_some(missing)} not begun; run `moderation backfill --slice` for each")
    slices, unfinished = [], []
    for index in range(1, complete[-1] + 1):
        done = _read_slice(out, Slice(index=index, count=complete[-1]))
        if isinstance(done, str):
            unfinished.append(done)
        else:
            slices.append(done)
    if unfinished:
        raise UsageError(f"{out}: {_some(unfinished)}; the command of each goes on where it ended")
    first = slices[0]
    for other in slices[1:]:
        if other.state["identity"] != first.state["identity"]:
            what = difference(first.state["identity"], other.state["identity"])
            raise UsageError(f"{out}: slices {first.part} and {other.part} are of different runs: {what}")
        if other.listing.digest != first.listing.digest:
            raise UsageError(
                f"{out}: the source changed between the listings of slices {first.part} ({first.listing.items:,} items)"
                f" and {other.part} ({other.listing.items:,}), so an item may be in both or in neither;"
                " list a manifest instead of a prefix that grows, into a new OUT"
            )
    return slices


def _read_slice(out: str, part: Slice) -> _Done | str:
    """What a slice left, or what is not yet done of it."""
    home = slice_home(out, part)
    state, listing = read_state(home), read_listing(home)
    plan, summary = (storage.read_optional(u) for u in (plan_uri(home), storage.join(home, "summary.json")))
    if state is None or listing is None or plan is None or summary is None or state["state"] != "done":
        return f"{part} is {state['state'] if state else 'not begun'}"
    return _Done(part=part, home=home, state=state, listing=listing, summary=json.loads(summary), plan=plan)


def _check_receipts(out: str, slices: Sequence[_Done], ids: Sequence[str], format_: str, *, prune: bool) -> None:
    """Every planned shard has its receipt, and no other has one."""
    committed = committed_ids(out)
    gone = [shard_id for shard_id in ids if shard_id not in committed]
    if gone:
        where = sorted(s.part for s in slices if any(s.part.holds(shard_id) for shard_id in gone))
        raise UsageError(
            f"{out}: {len(gone):,} receipts are gone, of {_some([str(p) for p in where])};"
            " the command of each slice judges them again"
        )
    strange = sorted(committed.difference(ids))
    if strange and not prune:
        raise UsageError(
            f"{out}: {len(strange):,} committed shards are in no slice's plan (a listing was interrupted, and the"
            " source changed before it began anew); their rows would count twice. --prune deletes them"
        )
    for shard_id in strange:
        # The receipt first: without it the parts have not happened.
        storage.delete_tree(storage.join(out, "receipts", f"{shard_id}.json"))
        for table in ("verdicts", "votes"):
            storage.delete_tree(storage.join(out, table, part_name(shard_id, format_)))


def _merged_facts(slices: Sequence[_Done]) -> dict[str, Any]:
    retries: Counter[str] = Counter()
    for one in slices:
        retries.update(one.summary.get("retries") or {})
    return {
        "shards_before": 0,
        "retries": dict(sorted(retries.items())),
        "workers": [worker for one in slices for worker in one.summary.get("workers") or []],
        "worker_memory_beyond_models_bytes": max(
            one.summary.get("worker_memory_beyond_models_bytes") or 0 for one in slices
        ),
        "stopped_by": None,
        "slices": {
            str(one.part): {name: one.summary.get(name) for name in ("shards", "items", "wall_s", "items_per_s")}
            for one in slices
        },
    }


def _some(names: Sequence[str]) -> str:
    """The first few names, in words."""
    shown = ", ".join(names[:8])
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"slices {shown}{more}" if len(names) > 1 else f"slice {shown}"

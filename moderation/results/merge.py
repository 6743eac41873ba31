"""The slices of a run -> one dataset: writes what an unsliced run has beside the tables, which are there already.

Needs no cluster and no weights: reads plans, states and receipts, judges nothing.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.planning.names import plan_uri
from moderation.planning.plan import decode_shards, encode_shards
from moderation.planning.slices import Slice, SliceListing, find_slices, read_listing, slice_home
from moderation.results.cost import count_gpu_hours
from moderation.results.finish import finish_run
from moderation.results.layout import VERDICTS, VOTES, part_uri, receipt_uri, summary_uri
from moderation.results.output import read_identity
from moderation.results.receipts import committed_ids, readable_ids
from moderation.results.record import Output, RunFacts, day_of, describe_difference, read_record, run_id_of
from moderation.results.report import ReportExtras
from moderation.types import Shard

_MEMORY: Final = "worker_memory_beyond_models_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class _FinishedSlice:
    """A slice that has ended, and what it left."""

    part: Slice
    identity: Mapping[str, Any]
    config: Mapping[str, Any]
    listing: SliceListing
    summary: Mapping[str, Any]
    plan: bytes
    as_of: str | None
    detectors: Mapping[str, Any] | None

    def shards(self) -> Iterator[tuple[int, Shard]]:
        """The slice's shards, each with its place among all."""
        return zip(self.listing.positions, decode_shards(self.plan), strict=True)


def merge_slices(out: str, *, prune: bool = False, extras: ReportExtras | None = None) -> dict[str, Any]:
    """Write OUT's plan.parquet, run.json, summary.json, report.html and _SUCCESS; returns the summary.

    prune: delete parts and receipts of shards that no slice plans (a listing was interrupted, and the source changed
    before it began anew); without it they raise a UsageError, because readers would count their rows.
    extras: what other rooms lend to the page.
    Raises UsageError when a slice is missing, not done, of another run, or listed another state of the source.
    """
    out = storage.canonical(out).rstrip("/")
    slices = _read_slices(out)
    first = slices[0]
    identity = first.identity
    run = Output(
        source=identity["source"],
        out=out,
        home=out,
        config=Config.model_validate(first.config),
        facts=RunFacts(
            run_id=run_id_of(identity),
            stack_fingerprint=identity["stack"],
            policy_hash=identity["policy"],
            as_of=first.as_of,
        ),
        identity=identity,
        certification=first.summary.get("certificates"),
        detectors=first.detectors,
    )
    _check_whole(out, identity)
    ids: list[str] = []
    plan = encode_shards(_counted((shard for _, shard in heapq.merge(*(s.shards() for s in slices))), ids))
    unplanned = _check_receipts(out, slices, ids)
    if unplanned and not prune:
        raise UsageError(
            f"{out}: {len(unplanned):,} committed shards are in no slice's plan (a listing was interrupted, and the"
            " source changed before it began anew); their rows would count twice. --prune deletes them"
        )
    _delete_shards(out, unplanned, run.config.output.format)
    storage.publish(plan_uri(out), plan)
    return finish_run(run, ids, wall_s=None, partial=False, facts=_merged_facts(slices), extras=extras)


def _check_whole(out: str, identity: Mapping[str, Any]) -> None:
    """Raises UsageError where OUT holds another run than its slices."""
    before = read_identity(out)
    if before is None or before == identity:
        return
    if (read_record(out) or {}).get("extensions"):
        raise UsageError(f"{out}: is merged, and was extended since; there is nothing to merge")
    raise UsageError(f"{out}: holds another run beside the slices: {describe_difference(before, identity)}")


def _counted(shards: Iterator[Shard], ids: list[str]) -> Iterator[Shard]:
    for shard in shards:
        ids.append(shard.shard_id)
        yield shard


def _read_slices(out: str) -> list[_FinishedSlice]:
    """All slices: ended, of one run and one listing of the source. Raises UsageError."""
    slices, unfinished = [], []
    for part in _complete_slices(out):
        finished = _read_slice(out, part)
        if isinstance(finished, str):
            unfinished.append(finished)
        else:
            slices.append(finished)
    if unfinished:
        raise UsageError(f"{out}: {_some(unfinished)}; the command of each goes on where it ended")
    first, *others = slices
    for other in others:
        _check_same_run(out, first, other)
    return slices


def _complete_slices(out: str) -> list[Slice]:
    """1/N to N/N, of the largest N of which every slice has begun. Raises UsageError naming those that have not."""
    begun = find_slices(out)
    if not begun:
        raise UsageError(f"{out}: no slices there; `moderation backfill --slice 1/N` makes them")
    indices: dict[int, set[int]] = {}
    for part in begun:
        indices.setdefault(part.count, set()).add(part.index)
    complete = [n for n, there in indices.items() if len(there) == n]
    if complete:
        return [Slice(index=index, count=max(complete)) for index in range(1, max(complete) + 1)]
    # The N that is nearest to complete; of equal ones the smallest.
    count = max(sorted(indices), key=lambda n: len(indices[n]) / n)
    missing = [f"{i}/{count}" for i in range(1, count + 1) if i not in indices[count]]
    raise UsageError(f"{out}: {_some(missing)} not begun; run `moderation backfill --slice` for each")


def _check_same_run(out: str, first: _FinishedSlice, other: _FinishedSlice) -> None:
    if other.identity != first.identity:
        what = describe_difference(first.identity, other.identity)
        raise UsageError(f"{out}: slices {first.part} and {other.part} are of different runs: {what}")
    if other.listing.digest != first.listing.digest:
        raise UsageError(
            f"{out}: the source changed between the listings of slices {first.part} ({first.listing.items:,} items)"
            f" and {other.part} ({other.listing.items:,}), so an item may be in both or in neither;"
            " list a manifest instead of a prefix that grows, into a new OUT"
        )


def _read_slice(out: str, part: Slice) -> _FinishedSlice | str:
    """What a slice left, or why it is not done."""
    home = slice_home(out, part)
    identity, record, listing = read_identity(home), read_record(home), read_listing(home)
    if identity is None or record is None:
        return f"{part} is not begun"
    plan, summary = storage.read_optional(plan_uri(home)), storage.read_optional(summary_uri(home))
    if listing is None or plan is None or summary is None or record["state"] != "done":
        return f"{part} is {record['state']}"
    return _FinishedSlice(
        part=part,
        identity=identity,
        config=record["config"],
        listing=listing,
        summary=parse_json(summary),
        plan=plan,
        detectors=record.get("detectors"),
        as_of=None if (day := day_of(record, home)) is None else day.isoformat(),
    )


def _check_receipts(out: str, slices: Sequence[_FinishedSlice], ids: Sequence[str]) -> list[str]:
    """The committed shards that no slice plans. Raises UsageError where a planned shard has lost its receipt."""
    committed = readable_ids(out)
    gone = [shard_id for shard_id in ids if shard_id not in committed]
    if gone:
        affected = sorted(s.part for s in slices if any(map(s.part.holds, gone)))
        raise UsageError(
            f"{out}: {len(gone):,} receipts are gone, of {_some([str(p) for p in affected])}, or cannot be read;"
            " the command of each slice judges them again"
        )
    return sorted(committed_ids(out).difference(ids))


def _delete_shards(out: str, shard_ids: Sequence[str], format_: str) -> None:
    for shard_id in shard_ids:
        # The receipt first: without it the parts do not count.
        storage.delete_tree(receipt_uri(out, shard_id))
        for table in (VERDICTS, VOTES):
            storage.delete_tree(part_uri(out, table, shard_id, format_))


def _merged_facts(slices: Sequence[_FinishedSlice]) -> dict[str, Any]:
    summaries = [s.summary for s in slices]
    shown = ("shards", "items", "wall_s", "items_per_s")
    return {
        "shards_before": 0,
        "retries": _sum_retries(summaries),
        "workers": [worker for summary in summaries for worker in summary.get("workers") or []],
        _MEMORY: max(s.get(_MEMORY) or 0 for s in summaries),
        "stopped_by": None,
        **_merged_cost(summaries),
        "slices": {str(s.part): {name: s.summary.get(name) for name in shown} for s in slices},
    }


def _merged_cost(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """GPU hours of the slices' last calls, and the items of these; empty where one does not tell."""
    hours = [count_gpu_hours(summary) for summary in summaries]
    items = [summary.get("items_this_call") for summary in summaries]
    if any(value is None for value in (*hours, *items)):
        return {}
    return {"gpu_hours": sum(h for h in hours if h), "items_this_call": sum(n for n in items if n)}


def _sum_retries(summaries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    retries: Counter[str] = Counter()
    for summary in summaries:
        retries.update(summary.get("retries") or {})
    return dict(sorted(retries.items()))


def _some(names: Sequence[str]) -> str:
    """The first few names, in words."""
    shown = ", ".join(names[:8])
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"slices {shown}{more}" if len(names) > 1 else f"slice {shown}"

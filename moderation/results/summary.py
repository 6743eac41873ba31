"""What a run did: receipts and facts -> the numbers of `summary.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from moderation.results.bottleneck import nest_waits, tell_bottleneck
from moderation.results.receipt_sums import ReceiptSums, sum_receipts
from moderation.results.receipts import Receipt
from moderation.types import Kind, Status, Verdict

SUMMARY_VERSION = 1
STEPS = ("fetch", "decode", "score", "judge", "write")


def summarise(receipts: Iterable[Receipt] | ReceiptSums, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a run, ready for JSON: the sum of its receipts, beside the facts, which pass through.

    Read from the facts: `wall_s` (seconds of this call), `startup_s` (the part of it before the first worker was ready,
    which no rate counts), and for a resumed call `items_this_call` and `frames_this_call`, which its rates are of.
    A rate that is not known is None, never 0.
    `error_rate` is error rows over all rows; skipped files are no errors. Steps' seconds are busy time, summed over
    threads and workers; they overlap, so they may add up to more than the wall time. `waits` and `bottleneck`: see
    `bottleneck.py`.
    """
    sums = sum_receipts(receipts)
    counts, seconds, waits, items = sums.counts, sums.seconds, sums.waits, sums.items
    frames = counts["frames"]
    errors = counts[f"status:{Status.ERROR}"]
    wall_s = facts.get("wall_s")
    judging_s = None if wall_s is None else max(0.0, wall_s - (facts.get("startup_s") or 0.0))
    items_then = facts.get("items_this_call", items)
    frames_then = facts.get("frames_this_call", frames if items_then == items else None)
    return {
        **facts,
        "summary_version": SUMMARY_VERSION,
        "shards": len(sums.shard_ids),
        "items": items,
        "frames": frames,
        "verdicts": _by_name(counts, "verdict", Verdict),
        # The word of an escalation only where there is one.
        "status": _by_name(counts, "status", [s for s in Status if s is not Status.ESCALATED]),
        **({"escalated": counts["escalated"]} if counts["escalated"] else {}),
        "kinds": _by_name(counts, "kind", Kind),
        "errors": _by_name(counts, "error"),
        "error_rate": errors / items if items else 0.0,
        "checks": _by_check(counts),
        "frames_asked": _by_name(counts, "asked"),
        "frames_extra": _by_name(counts, "extra"),  # tiles, wholes and so on: among `frames`, but of no item
        "seconds": {s: round(seconds[s], 3) for s in (*STEPS, *sorted(set(seconds) - set(STEPS)))},
        "waits": nest_waits(waits),
        "bottleneck": tell_bottleneck(seconds, waits),
        "wall_s": wall_s,
        "items_per_s": _rate(items_then, judging_s),
        "frames_per_s": _rate(frames_then, judging_s),
        "bytes_read": sums.bytes_read,
        "peak_memory_bytes": sums.peak_memory_bytes or None,
    }


def _by_name(counts: Mapping[str, int], prefix: str, names: Iterable[str] = ()) -> dict[str, int]:
    """`{"pass": 3}` from `{"verdict:pass": 3}`: the known names first (verdicts also when 0), then by size."""
    by_name = {key.partition(":")[2]: n for key, n in counts.items() if key.startswith(f"{prefix}:")}
    known = [str(n) for n in names]
    others = sorted(set(by_name) - set(known), key=lambda n: (-by_name[n], n))
    kept = [n for n in known if n in by_name or prefix in ("verdict", "status")]
    return {name: by_name.get(name, 0) for name in chain(kept, others)}


def _by_check(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Items by the check that decided and what it decided."""
    checks: dict[str, dict[str, int]] = {}
    for key, n in sorted(counts.items()):
        prefix, _, rest = key.partition(":")
        if prefix == "check":
            name, _, verdict = rest.rpartition(":")
            checks.setdefault(name, {str(v): 0 for v in Verdict})[verdict] = n
    return checks


def _rate(amount: float | None, wall_s: float | None) -> float | None:
    return round(amount / wall_s, 3) if amount is not None and wall_s else None

"""The course of a run over time, by its receipts: items and verdicts in stretches of its clock. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from moderation.pages.figures import CourseBin
from moderation.results.receipts import COPIES_WORKER, Receipt
from moderation.types import Status, Verdict

MAX_BINS: Final = 40
# Between two receipts of one call there are minutes at most; a longer pause is one between two calls.
_PAUSE_S: Final = 1800.0


def tell_course(receipts: Sequence[Receipt]) -> list[CourseBin]:
    """At most 40 stretches of equally many receipts, by the workers' clocks; pauses between calls are cut out.

    The first receipt only begins the clock: how long its items took is not known.
    """
    dated = sorted(
        (r for r in receipts if r.committed_at and r.worker != COPIES_WORKER),
        key=lambda r: (r.committed_at, r.shard_id),
    )
    if len(dated) < 3:
        return []
    clock, ends = 0.0, []
    for before, now in pairwise(dated):
        clock += min(now.committed_at - before.committed_at, _PAUSE_S)
        ends.append(clock)
    # Shards in flight end together, so that a stretch of one or two has no rate of its own.
    size = max(-(-len(ends) // MAX_BINS), min(4, len(ends) // 3))
    bins, begin_s = [], 0.0
    for start in range(0, len(ends), size):
        chunk = dated[1 + start : 1 + start + size]
        end_s = ends[start + len(chunk) - 1]
        bins.append(_bin_of(chunk, begin_s, end_s))
        begin_s = end_s
    return [b for b in bins if b.seconds > 0]


def _bin_of(receipts: Sequence[Receipt], begin_s: float, end_s: float) -> CourseBin:
    counts: Counter[str] = Counter()
    for receipt in receipts:
        for verdict in Verdict:
            counts[str(verdict)] += receipt.counts.get(f"verdict:{verdict}", 0)
        counts["error"] += receipt.counts.get(f"status:{Status.ERROR}", 0)
    return CourseBin(
        end_s=end_s, seconds=end_s - begin_s, items=sum(receipt.rows_in for receipt in receipts), counts=dict(counts)
    )


def slowest_items(receipts: Sequence[Receipt], most: int = 10) -> list[tuple[str, str, float]]:
    """(item id, shard id, seconds of fetching and decoding) of the slowest items of a run, the slowest first."""
    told = [(item_id, r.shard_id, seconds) for r in receipts for item_id, seconds in r.slowest.items()]
    return sorted(told, key=lambda entry: (-entry[2], entry[0]))[:most]

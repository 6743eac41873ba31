"""The course of a run over time, by its receipts: items and verdicts in stretches of its clock. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from moderation.pages.figures import CourseBin
from moderation.results.receipt_sums import MAX_SLOWEST, ReceiptSums, sum_receipts
from moderation.results.receipts import Receipt
from moderation.types import Verdict

MAX_BINS: Final = 40
# Between two receipts of one call there are minutes at most; a longer pause is one between two calls.
_PAUSE_S: Final = 1800.0


def tell_course(receipts: Iterable[Receipt] | ReceiptSums) -> list[CourseBin]:
    """At most 40 stretches of equally many receipts, by the workers' clocks; pauses between calls are cut out.

    The first receipt only begins the clock: how long its items took is not known.
    """
    course = sum_receipts(receipts).course
    if len(course.items) < 3:
        return []
    times_s = np.asarray(course.committed_at)
    order = np.argsort(times_s, kind="stable")
    ends = np.cumsum(np.minimum(np.diff(times_s[order]), _PAUSE_S))
    items = np.asarray(course.items)[order][1:]
    names = (*map(str, Verdict), "error")
    counts = {name: np.asarray(column)[order][1:] for name, column in zip(names, course.counts, strict=True)}
    # Shards in flight end together, so that a stretch of one or two has no rate of its own.
    size = max(-(-len(ends) // MAX_BINS), min(4, len(ends) // 3))
    bins, begin_s = [], 0.0
    for start in range(0, len(ends), size):
        chunk = slice(start, start + size)
        end_s = float(ends[chunk][-1])
        own = {name: int(column[chunk].sum()) for name, column in counts.items()}
        bins.append(CourseBin(end_s=end_s, seconds=end_s - begin_s, items=int(items[chunk].sum()), counts=own))
        begin_s = end_s
    return [b for b in bins if b.seconds > 0]


def slowest_items(receipts: Iterable[Receipt] | ReceiptSums, most: int = MAX_SLOWEST) -> list[tuple[str, str, float]]:
    """(item id, shard id, seconds of fetching and decoding) of at most ten slowest items of a run, slowest first."""
    return sum_receipts(receipts).slowest_items(most)

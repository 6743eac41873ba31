"""What the receipts of a run add up to, one after another: a million of them take 50 MB, and never lie side by side."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from moderation.results.receipts import COPIES_WORKER, Receipt
from moderation.types import Status, Verdict

MAX_SLOWEST: Final = 10
_PRUNE_AT: Final = 1000  # candidates held; sorted then, so that most receipts cost one append
COURSE_COUNTS: Final = (*(f"verdict:{verdict}" for verdict in Verdict), f"status:{Status.ERROR}")


@dataclass(frozen=True, slots=True)
class CourseColumns:
    """Of each receipt with a time, that is not of copies: Unix seconds (float64), items, and `COURSE_COUNTS` (int32).

    In the order of the receipts.
    """

    committed_at: array[float] = field(default_factory=lambda: array("d"))
    items: array[int] = field(default_factory=lambda: array("i"))
    counts: tuple[array[int], ...] = field(default_factory=lambda: tuple(array("i") for _ in COURSE_COUNTS))

    def add(self, receipt: Receipt) -> None:
        """Add a receipt's time and counts."""
        self.committed_at.append(receipt.committed_at)
        self.items.append(receipt.rows_in)
        for column, name in zip(self.counts, COURSE_COUNTS, strict=True):
            column.append(receipt.counts.get(name, 0))


@dataclass(slots=True)
class ReceiptSums:
    """Sums of receipts, by the names of their fields; `shard_ids` in the order of the receipts.

    judged: whether any has verdicts. slowest: candidates for `slowest_items`.
    """

    shard_ids: list[str] = field(default_factory=list)
    items: int = 0
    bytes_read: int = 0
    peak_memory_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    waits: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    judged: bool = False
    course: CourseColumns = field(default_factory=CourseColumns)
    slowest: list[tuple[str, str, float]] = field(default_factory=list)

    def add(self, receipt: Receipt) -> None:
        """Add a receipt."""
        self.shard_ids.append(receipt.shard_id)
        self.items += receipt.rows_in
        self.bytes_read += receipt.bytes_read
        self.peak_memory_bytes = max(self.peak_memory_bytes, receipt.peak_memory_bytes)
        for name, count in receipt.counts.items():
            self.counts[name] += count
        for step, spent in receipt.seconds.items():
            self.seconds[step] += spent
        for wait, spent in receipt.waits.items():
            self.waits[wait] += spent
        self.judged = self.judged or "verdicts" in receipt.sha256
        if receipt.committed_at and receipt.worker != COPIES_WORKER:
            self.course.add(receipt)
        self.slowest.extend((item_id, receipt.shard_id, seconds) for item_id, seconds in receipt.slowest.items())
        if len(self.slowest) > _PRUNE_AT:
            self.slowest = self.slowest_items(MAX_SLOWEST)

    def slowest_items(self, most: int) -> list[tuple[str, str, float]]:
        """(item id, shard id, seconds of fetching and decoding) of at most ten items, the slowest first."""
        return sorted(self.slowest, key=lambda entry: (-entry[2], entry[0]))[: min(most, MAX_SLOWEST)]


def sum_receipts(receipts: Iterable[Receipt] | ReceiptSums) -> ReceiptSums:
    """Add up receipts; sums stay as they are."""
    if isinstance(receipts, ReceiptSums):
        return receipts
    sums = ReceiptSums()
    for receipt in receipts:
        sums.add(receipt)
    return sums

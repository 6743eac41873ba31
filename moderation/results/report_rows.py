"""The rows and scores that a report shows, from the verdicts of a run: of so many parts, spread over all of it."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moderation import storage
from moderation.concurrency import map_ahead
from moderation.results.escalations import without_escalated
from moderation.results.intact import read_intact
from moderation.results.layout import VERDICTS
from moderation.results.reader import AHEAD_BYTES, READERS
from moderation.results.schema import score_column
from moderation.types import Status, Verdict

_LOG = logging.getLogger(__name__)

# 102,400 items of full shards, of ~50 KB each: a bucket gives them in seconds.
MAX_PARTS: Final = 400
# Nobody reads a page of more rows; the tables hold them all.
MAX_ROWS: Final = 40
MAX_EXAMPLES: Final = 3  # of an error code
_COLUMNS: Final = (
    "item_id", "uri", "kind", "verdict", "status", "reason", "reason_text", "check", "score", "threshold", "severity",
    "review_rank", "audit", "error_code", "error_detail",
)  # fmt: skip

F64 = npt.NDArray[np.float64]
Cells = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRows:
    """What was read. queue: rows for review without an error, by `review_rank`; blocked: by score; both at most 40.

    errors: by code, at most three rows of each. uris: item id -> URI of the items that were asked for. scores: check ->
    float64 [N], NaN = null, of items with a verdict. counted: rows by group in the parts that were read. answers: by
    reason, what reviewers said of its items.
    """

    parts: int = 0
    parts_total: int = 0
    items: int = 0
    queue: Sequence[Cells] = ()
    blocked: Sequence[Cells] = ()
    errors: Mapping[str, Sequence[Cells]] = field(default_factory=dict)
    uris: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, F64] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[str, ReasonAnswers] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class ReasonAnswers:
    """What reviewers said of items with one reason. overturned: the machine's block or pass was not their answer."""

    verdict: str
    decided: int = 0
    block: int = 0
    passed: int = 0
    overturned: int = 0

    def add(self, answer: str) -> None:
        """Count an answer: block, pass, escalate."""
        self.decided += 1
        self.block += answer == Verdict.BLOCK
        self.passed += answer == Verdict.PASS
        decided_by_itself = self.verdict in (Verdict.BLOCK, Verdict.PASS)
        self.overturned += decided_by_itself and answer in (Verdict.BLOCK, Verdict.PASS) and answer != self.verdict


def read_report_rows(
    out: str,
    format_: str,
    shard_ids: Sequence[str],
    checks: Sequence[str],
    slow: Mapping[str, str] | None = None,
    decided: Mapping[str, str] | None = None,
) -> ReportRows:
    """Read the verdicts of at most 400 parts, and of the parts of slow items.

    checks: whose scores are kept. slow: item id -> its shard. decided: item id -> what reviewers said. A part that the
    store does not give is left out, and logged: the page of a run must not keep the run from its end. Items of the
    audit are in no list: nobody is to see their verdict before they are labelled. Raises PartMissingError,
    PartChangedError.
    """
    slow = slow or {}
    sampled = sample_evenly(shard_ids, MAX_PARTS)
    extra = sorted(set(slow.values()).difference(sampled))
    tally = _RowsTally(checks=checks, slow=frozenset(slow), decided=decided or {})
    columns = (*_COLUMNS, *map(score_column, checks))
    for shard_id, part in _read_parts(out, format_, [*sampled, *extra], columns):
        tally.note_uris(part)
        if shard_id not in extra:
            tally.add(part)
    return tally.result(len(shard_ids))


def sample_evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many, evenly spread, the first and the last among them; in their order."""
    if len(names) <= most:
        return list(names)
    return [names[round(place)] for place in np.linspace(0, len(names) - 1, most)]


def _read_parts(
    out: str, format_: str, shard_ids: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[str, pa.Table]]:
    def read(shard_id: str) -> tuple[str, pa.Table | None]:
        try:
            return shard_id, read_intact(out, VERDICTS, shard_id, format_, columns, strict=False)
        except (storage.StorageError, OSError) as error:
            _LOG.warning("the report leaves out a part: %s", error)
            return shard_id, None

    with ThreadPoolExecutor(READERS) as pool:
        parts = map_ahead(
            read,
            shard_ids,
            pool,
            max_ahead=2 * READERS,
            budget_bytes=AHEAD_BYTES,
            expected_bytes=lambda _: 1 << 20,
            held_bytes=lambda pair: 0 if pair[1] is None else pair[1].nbytes,
        )
        yield from ((shard_id, part) for shard_id, part in parts if part is not None)


@dataclass(slots=True, kw_only=True)
class _RowsTally:
    checks: Sequence[str]
    slow: frozenset[str]
    decided: Mapping[str, str]
    parts: int = 0
    items: int = 0
    queue: list[tuple[float, int, Cells]] = field(default_factory=list)  # heaps: the least first
    blocked: list[tuple[float, int, Cells]] = field(default_factory=list)
    errors: dict[str, list[Cells]] = field(default_factory=dict)
    uris: dict[str, str] = field(default_factory=dict)
    scores: dict[str, list[F64]] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    answers: dict[str, ReasonAnswers] = field(default_factory=dict)
    _rows: int = 0

    def note_uris(self, part: pa.Table) -> None:
        """Keep the URIs of slow items."""
        if self.slow:
            part = without_escalated(part)
            own = part.filter(pc.is_in(part["item_id"], value_set=pa.array(sorted(self.slow), pa.string())))
            self.uris.update(zip(own["item_id"].to_pylist(), own["uri"].to_pylist(), strict=True))

    def add(self, part: pa.Table) -> None:
        """The items of a part; an escalated one is in no list, and gets no picture."""
        self.parts += 1
        self.items += len(part)
        part = without_escalated(part)
        for row in _told_apart(part).to_pylist():
            self._add_row(row)
        self._add_answers(part)
        judged = part.filter(pc.is_valid(part["verdict"]))
        for check in self.checks:
            if (name := score_column(check)) in judged.column_names:
                self.scores.setdefault(check, []).append(judged[name].to_numpy().astype(np.float64))

    def _add_row(self, row: Cells) -> None:
        code = row.get("error_code")
        if code is not None or row["status"] == Status.ERROR:
            examples = self.errors.setdefault(str(code), [])
            if len(examples) < MAX_EXAMPLES:
                examples.append(row)
        elif row.get("audit"):
            self._count("audit")
        elif row["verdict"] == Verdict.BLOCK:
            self._count("blocked")
            self._push(self.blocked, row.get("score"), row)
        else:
            self._count("queue")
            rank = row.get("review_rank")
            self._push(self.queue, row.get("score") if rank is None else rank, row)

    def _add_answers(self, part: pa.Table) -> None:
        if not self.decided or "reason" not in part.column_names:
            return
        own = part.filter(pc.is_in(part["item_id"], value_set=pa.array(sorted(self.decided), pa.string())))
        for row in own.select(["item_id", "reason", "verdict"]).to_pylist():
            reason, verdict = str(row["reason"]), str(row["verdict"])
            self.answers.setdefault(reason, ReasonAnswers(verdict=verdict)).add(self.decided[row["item_id"]])

    def _count(self, group: str) -> None:
        self.counted[group] = self.counted.get(group, 0) + 1

    def _push(self, heap: list[tuple[float, int, Cells]], order: float | None, row: Cells) -> None:
        self._rows += 1
        # The second place keeps rows of one order apart, the earlier one first.
        entry = (-1.0 if order is None else float(order), -self._rows, row)
        heapq.heappush(heap, entry) if len(heap) < MAX_ROWS else heapq.heappushpop(heap, entry)

    def result(self, parts_total: int) -> ReportRows:
        """What was read."""
        return ReportRows(
            parts=self.parts,
            parts_total=parts_total,
            items=self.items,
            queue=[row for _, _, row in sorted(self.queue, reverse=True)],
            blocked=[row for _, _, row in sorted(self.blocked, reverse=True)],
            errors=self.errors,
            uris=self.uris,
            scores={check: np.concatenate(pieces) for check, pieces in self.scores.items()},
            counted=self.counted,
            answers=self.answers,
        )


def _told_apart(part: pa.Table) -> pa.Table:
    """Rows that the page may list: those with an error, and those that were blocked or sent to review."""
    decided = pc.is_in(part["verdict"], value_set=pa.array([str(Verdict.BLOCK), str(Verdict.REVIEW)], pa.string()))
    failed = pc.equal(part["status"], str(Status.ERROR))
    if "error_code" in part.column_names:
        failed = pc.or_(failed, pc.is_valid(part["error_code"]))
    listed = pc.or_kleene(decided, failed)
    return part.select([name for name in _COLUMNS if name in part.column_names]).filter(pc.fill_null(listed, False))

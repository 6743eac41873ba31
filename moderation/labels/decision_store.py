"""The store of decisions: OUT/decisions/, appended only, one writer at a time.

    OUT/decisions/part-00000000-<16 hex>.arrow   rows of `labels.decisions`, in the order of acknowledgement
    OUT/decisions/head.json                      the last part that was acknowledged
    OUT/decisions/lease/                         who writes there now

What `append` has returned for is on disk: the part is published whole, then the head. A process that is killed in
between leaves a part that nobody was told of; the next writer takes it over, and a client that sends its decisions
again is told that they are there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from moderation import storage
from moderation.errors import UsageError
from moderation.labels.decision_chain import list_parts, read_chain, read_part, write_head
from moderation.labels.decision_parts import DamagedDecisionsError, DecisionPart, encode_part
from moderation.labels.decisions import Decision, check_decision
from moderation.pages.text import short_line
from moderation.results.review_layout import decisions_folder, decisions_part_uri
from moderation.storage.lease import LEASE_S, Lease, hold_lease

MAX_PART_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendedDecisions:
    """What became of a batch. written: as kept, those that were new. repeated: ids that were there already.

    found: of earlier calls that raised, what reached the disk all the same; told once.
    """

    written: tuple[Decision, ...]
    repeated: tuple[str, ...]
    found: tuple[Decision, ...] = ()


class DecisionLog:
    """The decisions of an OUT, held by the one process that may append; calls from several threads take turns."""

    def __init__(self, out: str, lease: Lease, parts: Sequence[DecisionPart]) -> None:
        self._out = out
        self._lease = lease
        self._lock = threading.Lock()
        self._last = parts[-1] if parts else None
        self._by_id = {decision.decision_id: decision for part in parts for decision in part.decisions}
        self._untold: list[Decision] = []  # kept, and not yet told by a call that returned
        # A writer that was killed may have left a part that the head does not know.
        self._is_unsure = bool(parts)

    def decisions(self) -> list[Decision]:
        """All of them so far, in order."""
        with self._lock:
            return list(self._by_id.values())

    def append(self, decisions: Sequence[Decision]) -> AppendedDecisions:
        """Write those that are new; when this returns, they are on disk. All of a batch or nothing, up to 10,000.

        Raises UsageError where one cannot be kept, or where its id is there with another answer; FatalError where the
        lease was lost or OUT cannot be written, StorageError.
        """
        for decision in decisions:
            check_decision(decision)
        with self._lock:
            self._lease.check()
            if self._is_unsure:
                self._take_over()
            fresh, repeated = self._sort_out(decisions)
            written: list[Decision] = []
            for start in range(0, len(fresh), MAX_PART_ROWS):
                written += self._write(fresh[start : start + MAX_PART_ROWS])
            found = self._untold[: len(self._untold) - len(written)]
            self._untold = []
            return AppendedDecisions(written=tuple(written), repeated=tuple(repeated), found=tuple(found))

    def _sort_out(self, decisions: Sequence[Decision]) -> tuple[list[Decision], list[str]]:
        fresh: dict[str, Decision] = {}
        repeated: list[str] = []
        for decision in decisions:
            known = self._by_id.get(decision.decision_id) or fresh.get(decision.decision_id)
            if known is None:
                fresh[decision.decision_id] = decision
            elif _says_the_same(known, decision):
                repeated.append(decision.decision_id)
            else:
                raise UsageError(
                    f"decision {short_line(decision.decision_id, 60)!r} is there already, of another item or with"
                    " another answer; nothing of this batch was written"
                )
        return list(fresh.values()), repeated

    def _write(self, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
        number, previous = (0, "") if self._last is None else (self._last.name.number + 1, self._last.sha256)
        part, data = encode_part(number, decisions, previous)
        # A write that fails may have reached the store all the same: the next call looks.
        self._is_unsure = True
        storage.publish(decisions_part_uri(self._out, part.name.file), data)
        self._accept(part)
        write_head(self._out, part)
        self._is_unsure = False
        return part.decisions

    def _accept(self, part: DecisionPart) -> None:
        self._last = part
        self._untold += part.decisions
        self._by_id.update((decision.decision_id, decision) for decision in part.decisions)

    def _take_over(self) -> None:
        """Read what a write that failed has left after all."""
        number = -1 if self._last is None else self._last.name.number
        for name in list_parts(self._out):
            if name.number > number:
                part = read_part(self._out, name)
                if isinstance(part, DamagedDecisionsError):
                    raise part
                self._accept(part)
        if self._last is not None:
            write_head(self._out, self._last)
        self._is_unsure = False


@contextmanager
def open_decisions(out: str) -> Iterator[DecisionLog]:
    """Hold OUT/decisions/ for the length of a block, to append to it.

    Raises LeaseHeldError naming the process that writes there, DamagedDecisionsError where the chain is not whole,
    FatalError where OUT cannot be written, StorageError.
    """
    with hold_lease(decisions_folder(out), LEASE_S, job="writer of decisions") as lease:
        yield DecisionLog(out, lease, _whole_chain(out))


def append_decisions(out: str, decisions: Sequence[Decision]) -> AppendedDecisions:
    """Append to OUT/decisions/ and let go of it. Raises as `open_decisions` and `DecisionLog.append`."""
    with open_decisions(out) as log:
        return log.append(decisions)


def read_decisions(out: str, verify: bool = True) -> list[Decision]:
    """All decisions of an OUT in the order in which they were acknowledged; none where nobody has decided there.

    Undone ones are among them: see `standing_decisions`. verify: raise DamagedDecisionsError where the chain is not
    whole; without, what is readable is returned. Raises StorageError.
    """
    parts = _whole_chain(out) if verify else read_chain(out).parts
    return [decision for part in parts for decision in part.decisions]


def verify_decisions(out: str) -> tuple[str, ...]:
    """What is amiss with the chain: changed, missing, repeated or reordered parts, a sentence each; empty: nothing."""
    return read_chain(out).faults


def _whole_chain(out: str) -> tuple[DecisionPart, ...]:
    chain = read_chain(out)
    if chain.faults:
        more = f" (and {len(chain.faults) - 1} more)" if len(chain.faults) > 1 else ""
        raise DamagedDecisionsError(
            f"{decisions_folder(out)}: {chain.faults[0]}{more}; `moderation review verify` lists all"
        )
    return chain.parts


def _says_the_same(known: Decision, decision: Decision) -> bool:
    return (known.item_id, known.decision, known.reviewer) == (decision.item_id, decision.decision, decision.reviewer)

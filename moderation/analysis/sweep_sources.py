"""What a sweep goes over: runs, folders of nights, ledgers, and what earlier sweeps have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from moderation import storage
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.ledger.nights import NIGHT_ID, UNFINISHED_FILE
from moderation.ledger.parts import current_parts
from moderation.results.layout import RUN_FILE
from moderation.results.reader import StoredRun, open_run
from moderation.results.receipts import committed_ids
from moderation.results.record import format_of, read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPart:
    """A part of a run. run: index of the run. item_ids: large_string, the items that count; None: all of the part."""

    run: int
    shard_id: str
    item_ids: pa.LargeStringArray | None = None

    def as_json(self) -> list[Any]:
        """The part as plain data, for another process."""
        return [self.run, self.shard_id, None if self.item_ids is None else self.item_ids.to_pylist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSources:
    """All parts that a sweep reads.

    ledgers: those among the sources. deleted: items of ledgers that are gone. lost: runs that a ledger names and that
    are not there any more -> their items.
    """

    runs: tuple[StoredRun, ...]
    parts: tuple[SweptPart, ...]
    ledgers: tuple[str, ...]
    deleted: int
    lost: dict[str, int]

    def digest(self) -> str:
        """Hexadecimal; the same runs with the same parts and items have the same."""
        digest = hashlib.sha256(json.dumps([[run.out, run.run_id] for run in self.runs]).encode())
        for part in self.parts:
            digest.update(json.dumps(part.as_json()).encode())
        return digest.hexdigest()[:32]


def find_sources(uris: Sequence[str]) -> SweepSources:
    """The runs, nights and ledgers at `uris`, each run once. Raises UsageError where one is none of these."""
    found = _Found()
    for uri in dict.fromkeys(storage.canonical(uri).rstrip("/") for uri in uris):
        names = storage.list_names(uri)
        if {"head.json", "entries", UNFINISHED_FILE} & set(names):
            found.add_ledger(uri)
            continue
        nights = [] if RUN_FILE in names else _nights(uri, names)
        for run in [open_run(uri)] if RUN_FILE in names else _judged(nights):
            found.add_run(run)
        if not nights and RUN_FILE not in names:
            hint = did_you_mean(RUN_FILE, names, otherwise="it holds", cutoff=0.6) if names else ""
            raise UsageError(f"{uri}: neither the output of a run, nor a folder of nights, nor a ledger{hint}"[:400])
    if not found.parts:
        raise UsageError("nothing is judged there: no part of any run")
    return SweepSources(
        runs=tuple(found.runs),
        parts=tuple(found.parts),
        ledgers=tuple(found.ledgers),
        deleted=found.deleted,
        lost=found.lost,
    )


def _nights(uri: str, names: Sequence[str]) -> list[str]:
    """The nights of a folder."""
    return [storage.join(uri, name) for name in sorted(names) if NIGHT_ID.fullmatch(name)]


def _judged(nights: Sequence[str]) -> Iterator[StoredRun]:
    """The nights that have judged something; one that has only begun says nothing of any item."""
    for night in nights:
        record = read_record(night)
        shard_ids = tuple(sorted(committed_ids(night)))
        if record is not None and shard_ids:
            format_ = format_of(record, f"{night}/{RUN_FILE}")
            yield StoredRun(out=night, record=record, format=format_, shard_ids=shard_ids)


def runs_with_decisions(uris: Sequence[str]) -> list[str]:
    """The OUTs at `uris` where decisions may lie: runs, and nights with the folder that holds them.

    Raises UsageError where there is nothing.
    """
    outs: list[str] = []
    for uri in dict.fromkeys(storage.canonical(uri).rstrip("/") for uri in uris):
        names = storage.list_names(uri)
        if not names:
            raise UsageError(f"{uri}: nothing is there; name the output of a run, or the folder of all nights")
        outs += [uri, *(storage.join(uri, name) for name in names if NIGHT_ID.fullmatch(name))]
    return list(dict.fromkeys(outs))


class _Found:
    """Sources as they are found."""

    def __init__(self) -> None:
        self.runs: list[StoredRun] = []
        self.parts: list[SweptPart] = []
        self.ledgers: list[str] = []
        self.deleted = 0
        self.lost: dict[str, int] = {}
        self._place: dict[str, int] = {}
        self._whole: set[str] = set()  # runs all of whose items are swept

    def add_run(self, run: StoredRun) -> None:
        if run.out in self._whole:
            return
        if run.out in self._place:
            # A ledger has named some of its parts; all of them count now.
            self.parts = [part for part in self.parts if part.run != self._place[run.out]]
        self._whole.add(run.out)
        place = self._place.setdefault(run.out, len(self.runs))
        if place == len(self.runs):
            self.runs.append(run)
        self.parts += [SweptPart(run=place, shard_id=shard_id) for shard_id in run.shard_ids]

    def add_ledger(self, ledger: str) -> None:
        current = current_parts(ledger)
        self.ledgers.append(ledger)
        self.deleted += current.deleted
        for part in current.parts:
            if part.run_out in self._whole:
                continue
            place = self._place_of(part.run_out)
            if place is None:
                self.lost[part.run_out] = self.lost.get(part.run_out, 0) + len(part.item_ids)
            else:
                self.parts.append(SweptPart(run=place, shard_id=part.part, item_ids=part.item_ids))

    def _place_of(self, out: str) -> int | None:
        if out in self.lost:
            return None
        if out not in self._place:
            record = read_record(out)
            if record is None:
                return None
            run = StoredRun(out=out, record=record, format=format_of(record, f"{out}/{RUN_FILE}"), shard_ids=())
            self._place[out] = len(self.runs)
            self.runs.append(run)
        return self._place[out]


def first_parts(sources: SweepSources) -> Iterator[tuple[int, str]]:
    """(index of a run, its first part) of every run that has a part."""
    seen: set[int] = set()
    for part in sources.parts:
        if part.run not in seen:
            seen.add(part.run)
            yield part.run, part.shard_id

"""The parts of a sweep: stored rows in, changed verdicts out; `python -m moderation.analysis.sweep_parts` is a process.

A process gets plain data, `SweepSettings`, and writes a file per portion, so that a kill loses only those in progress.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Protocol

import pyarrow as pa

from moderation import storage
from moderation.analysis.part_processes import serve
from moderation.analysis.sweep_by_decision import CopyLimits, DecisionSweep
from moderation.analysis.sweep_by_list import ListSweep
from moderation.analysis.sweep_changes import (
    CHANGES_SCHEMA,
    HeldVerdict,
    ProposedVerdict,
    SweepCounts,
    changes_table,
    encode_changes,
    read_held,
    read_portion,
)
from moderation.analysis.sweep_judging import JudgingSettings, StoredJudge
from moderation.analysis.sweep_tables import FACTS, JUDGING, StoredPart
from moderation.analysis.sweep_targets import SweepTarget
from moderation.config.load import validate
from moderation.errors import FatalError, UsageError
from moderation.labels.decisions import ContentKey
from moderation.policy.certified import withdraw
from moderation.policy.entries import ListRule
from moderation.policy.model import Policy
from moderation.policy.section import PolicySection
from moderation.results.intact import PartChangedError, PartMissingError
from moderation.results.reader import StoredRun
from moderation.results.sweep_layout import changes_uri

_DECIDED = ("decision", "appeal")
# Remote storage answers in tens of milliseconds, as long as a part takes: so many parts are in flight.
_REMOTE_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """The settings of a process, as plain data.

    to: None: nothing is written. runs: `out`, `format`, `record` and, of a sweep by policy, `judging` of each.
    policy: as JSON, with the entries of its lists. lists: by name, as JSON. targets: decided items. limits: of copies.
    earlier: sweeps whose changes hold. decided: items, with their content, that people have decided.
    """

    sweep_id: str
    to: str | None
    runs: tuple[dict[str, Any], ...]
    earlier: tuple[str, ...] = ()
    as_of: str | None = None
    policy: str | None = None
    lists: dict[str, str] | None = None
    targets: tuple[dict[str, Any], ...] = ()
    limits: dict[str, Any] | None = None
    decided: tuple[ContentKey, ...] = ()

    def to_json(self) -> str:
        """The settings as text, for another process."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> SweepSettings:
        """The inverse of `to_json`."""
        record = json.loads(text)
        return SweepSettings(**{**record, **{n: tuple(record[n]) for n in ("runs", "earlier", "targets", "decided")}})


class _Mode(Protocol):
    """A kind of sweep."""

    columns: tuple[str, ...]

    def changes(
        self, part: StoredPart, old: Sequence[str | None], held: Mapping[str, HeldVerdict]
    ) -> Iterator[ProposedVerdict]:
        """What it makes of the rows of a part; also of those whose verdict stays."""
        ...


class _PolicySweep:
    """Proposes the verdicts of another policy."""

    def __init__(self, settings: SweepSettings, runs: Sequence[StoredRun]) -> None:
        policy = Policy.model_validate_json(settings.policy or "")
        own = [_judging(record["judging"]) for record in settings.runs]
        # With its lists a policy is large: runs of which certificates say the same share one.
        holding = {names: withdraw(policy, names) for names in {each.withdrawn for each in own}}
        self._judges = {
            run.out: StoredJudge(run=run, policy=holding[each.withdrawn], settings=each)
            for run, each in zip(runs, own, strict=True)
        }
        asks_facts = bool(policy.lists) or policy.goes_by_item or any(check.by for check in policy.checks.values())
        self.columns = FACTS if asks_facts else JUDGING

    def changes(
        self, part: StoredPart, old: Sequence[str | None], held: Mapping[str, HeldVerdict]
    ) -> Iterator[ProposedVerdict]:
        ruled = self._judges[part.run.out].judge(part)
        assert isinstance(ruled, list)
        for row, (verdict, reason) in enumerate(ruled):
            if verdict is not None and reason is not None and verdict != old[row]:
                yield ProposedVerdict(row, verdict, reason, "policy", reason, "rule")


def _judging(record: Mapping[str, Any]) -> JudgingSettings:
    lists = {name: tuple(record[name]) for name in ("asks", "disabled", "withdrawn")}
    return JudgingSettings(as_of=record["as_of"], **lists)


def _mode(settings: SweepSettings, runs: Sequence[StoredRun]) -> _Mode:
    as_of = None if settings.as_of is None else date.fromisoformat(settings.as_of)
    if settings.policy is not None:
        return _PolicySweep(settings, runs)
    if settings.lists is not None:
        rules = {
            name: validate(ListRule, json.loads(text), where=f"list {name}") for name, text in settings.lists.items()
        }
        return ListSweep(rules, as_of)
    targets = [SweepTarget.from_json(record) for record in settings.targets]
    return DecisionSweep(targets, CopyLimits(**(settings.limits or {})), as_of)


class PartSweeper:
    """Sweeps portions of parts."""

    def __init__(self, settings: SweepSettings) -> None:
        self._settings = settings
        self._runs = [
            StoredRun(out=run["out"], record=run["record"], format=run["format"], shard_ids=()) for run in settings.runs
        ]
        self._mode = _mode(settings, self._runs)
        self._decided: dict[str, set[str | None]] = {}
        for item_id, content in settings.decided:
            self._decided.setdefault(item_id, set()).add(content)
        self._held: dict[str, dict[str, HeldVerdict]] = {}
        for (out, item_id), verdict in read_held(settings.earlier).items():
            self._held.setdefault(out, {})[item_id] = verdict
        detectors = {record.get("detector") for record in settings.targets} - {None}
        self._embedding = str(detectors.pop()) if detectors else None

    def sweep(self, number: int, parts: Sequence[Sequence[Any]]) -> SweepCounts:
        """Sweep a portion: (index of the run, part, ids that count or None) of each; writes its file where asked to."""
        to = self._settings.to
        if to is not None:
            data = storage.read_optional(changes_uri(to, number))
            done = None if data is None else read_portion(data, self._settings.sweep_id, changes_uri(to, number))
            if done is not None:
                return done
        counts, tables = SweepCounts(), [CHANGES_SCHEMA.empty_table()]
        for rows, of_part in self._sweep_parts(parts):
            counts.add(of_part)
            if rows is not None:
                counts.count(rows)
                tables.append(rows)
        if to is not None:
            data = encode_changes(pa.concat_tables(tables), counts, self._settings.sweep_id)
            storage.publish(changes_uri(to, number), data)
        return counts

    def _sweep_parts(self, parts: Sequence[Sequence[Any]]) -> Iterator[tuple[pa.Table | None, SweepCounts]]:
        """The changed rows and the counts of each part, in order."""
        if all(storage.scheme_of(self._runs[run].out) == "file" for run, _, _ in parts):
            yield from map(self._sweep_part, parts)
            return
        with ThreadPoolExecutor(_REMOTE_THREADS, "sweep") as pool:
            yield from pool.map(self._sweep_part, parts)

    def _sweep_part(self, told: Sequence[Any]) -> tuple[pa.Table | None, SweepCounts]:
        run, shard_id, item_ids = told
        try:
            part = StoredPart(
                self._runs[run], shard_id, item_ids, columns=self._mode.columns, embedding=self._embedding
            )
            return self._changed(part)
        except (PartMissingError, PartChangedError) as error:
            return None, SweepCounts(unread_parts=1, unread_items=len(item_ids or ()), unread=[str(error)])

    def _changed(self, part: StoredPart) -> tuple[pa.Table | None, SweepCounts]:
        held = self._held.get(part.run.out, {})
        old, reasons = _present(part, held)
        differing = [c for c in self._mode.changes(part, old, held) if c.verdict != old[c.row]]
        changes = [change for change in differing if not self._is_decided(part, change, held)]
        counts = SweepCounts(items=len(part), skipped=old.count(None), kept=len(differing) - len(changes))
        if not changes:
            return None, counts
        before = [(str(old[c.row]), str(reasons[c.row])) for c in changes]
        return changes_table(part.run.out, part.shard_id, part.verdicts, before, changes), counts

    def _is_decided(self, part: StoredPart, change: ProposedVerdict, held: Mapping[str, HeldVerdict]) -> bool:
        """Whether a person's answer about this very item holds against a policy, or an answer about another one."""
        if change.cause == "list" or change.relation in ("self", "exact"):
            return False
        item_id = part.item_ids[change.row].as_py()
        if item_id != change.origin and self._was_seen(item_id, part.contents[change.row]):
            return True
        return change.cause == "policy" and item_id in held and held[item_id].cause in _DECIDED

    def _was_seen(self, item_id: str, content: str | None) -> bool:
        """Whether a person has decided the item with this content; what lay there before says nothing of it."""
        seen = self._decided.get(item_id)
        return seen is not None and (not content or None in seen or content in seen)


def _present(part: StoredPart, held: Mapping[str, HeldVerdict]) -> tuple[list[str | None], list[str | None]]:
    """Verdict and reason of each row: the stored ones, or those of earlier sweeps."""
    old, reasons = part.column("verdict"), part.column("reason")
    for row, item_id in enumerate(part.item_ids.to_pylist()) if held else ():
        if item_id in held:
            old[row], reasons[row] = held[item_id].verdict, held[item_id].reason
    return old, reasons


def sweep_portions(settings: SweepSettings) -> Callable[[Any], dict[str, Any]]:
    """A function from a portion, `[number, parts]`, to its counts as plain data."""
    sweeper = PartSweeper(settings)

    def work(portion: Any) -> dict[str, Any]:  # noqa: ANN401 - from JSON
        number, parts = portion
        try:
            return sweeper.sweep(number, parts).as_json()
        except pa.ArrowException as error:
            raise FatalError(f"a part is not readable: {error}") from error
        except KeyError as error:
            raise UsageError(f"a part lacks the column {error}") from error

    return work


def _begin(told: str) -> Callable[[Any], dict[str, Any]]:
    return sweep_portions(SweepSettings.from_json(told))


def settings_of(section: PolicySection) -> str:
    """A policy or a list, as a process reads it."""
    return section.model_dump_json(by_alias=True, exclude_unset=True)


def brief(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run record a process needs."""
    names = ("run_id", "votes_of", "extensions", "config", "identity", "as_of", "updated_at")
    return {name: record[name] for name in names if name in record}


if __name__ == "__main__":
    serve(_begin, sys.stdin, sys.stdout)

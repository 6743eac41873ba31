"""Whether a run can be extended, and what it lacks of a configuration's stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moderation.config.load import validate
from moderation.config.model import Config
from moderation.doctor.rehearsal import find_obstacles
from moderation.errors import UsageError
from moderation.planning.names import plan_uri
from moderation.planning.plan import read_shard_sizes
from moderation.results.layout import RUN_FILE, extension_home
from moderation.results.output import EXTENDABLE, read_identity
from moderation.results.receipts import readable_ids
from moderation.results.record import describe_difference, extensions_of, read_record, run_id_of
from moderation.runtime.prepare import prepare_run
from moderation.runtime.resume import read_summary
from moderation.runtime.run import Run
from moderation.scoring.build import build_stack
from moderation.scoring.extending import DetectorChanges, changes_of, compare_detectors
from moderation.scoring.slots import describe_detectors
from moderation.scoring.stack import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingExtension:
    """Votes of some detectors that are to be added to a run, or of which a damaged extension lacks some.

    name: its id, a hash of `identity`. config: with the whole stack that it was or is made for. builds_on: extensions
    whose votes its conditions may read.
    """

    name: str
    identity: Mapping[str, Any]
    config: Config
    changes: DetectorChanges
    builds_on: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendableRun:
    """A finished run, and what a configuration adds to it.

    run: as if the configuration had run whole; its id and identity are those of OUT afterwards. changes: what its stack
    has that the run lacks. pending: extensions to score, in order: damaged ones, then that of `changes`. joined: those
    whose votes count already. replacing: the run id of verdicts that an earlier call was putting in place when it
    died. same: whether OUT is that run already. summary: of OUT.
    """

    out: str
    run: Run
    changes: DetectorChanges
    pending: tuple[PendingExtension, ...]
    joined: tuple[str, ...]
    detectors_before: Mapping[str, Any]
    replacing: str | None
    same: bool
    summary: Mapping[str, Any]

    @property
    def joined_after(self) -> tuple[str, ...]:
        """The extensions whose votes count afterwards, in order."""
        return (*self.joined, *(one.name for one in self.pending if one.name not in self.joined))

    @property
    def detectors_after(self) -> Mapping[str, Any]:
        """What OUT's votes are of afterwards: also of detectors that the configuration has no longer."""
        now = self.run.detectors or {}
        return {**now, "detectors": {**self.detectors_before["detectors"], **now.get("detectors", {})}}

    @property
    def nothing_left(self) -> bool:
        """Whether OUT is already what this call would make of it."""
        return self.same and not self.pending and self.replacing is None

    def problems(self) -> tuple[str, ...]:
        """What would stop the scoring: weights, extras, an OUT that cannot be written."""
        return tuple(find_obstacles(self.run.config, self.out))


def read_extendable(source: str, out: str, config: Config, limit: int | None) -> ExtendableRun:
    """Compare a configuration with the finished run in OUT. Reads no part and writes nothing. Raises UsageError."""
    run = prepare_run(source, out, config, limit)
    out = run.out
    record = read_record(out)
    identity = read_identity(out)
    if record is None or identity is None:
        raise UsageError(f"{out}: no {RUN_FILE}; --extend adds votes to a run that is done")
    _check_extendable(out, record, identity, run)
    stack = build_stack(config)
    before = _detectors_of(record, identity, out)
    joined = extensions_of(record, out)
    changes = compare_detectors(stack, before, describe_detectors(stack.slots, config), where=out)
    added = (_new_extension(run, changes, joined),) if changes.scored else ()
    return ExtendableRun(
        out=out,
        run=run,
        changes=changes,
        pending=(*_damaged_extensions(out, joined, config), *added),
        joined=joined,
        detectors_before=before,
        replacing=record.get("extending"),
        same=identity == run.identity,
        summary=read_summary(out),
    )


def _new_extension(run: Run, changes: DetectorChanges, joined: tuple[str, ...]) -> PendingExtension:
    """The extension that scores what is missing."""
    detectors = (run.detectors or {})["detectors"]
    # Not the policy: another one judges the same votes.
    kept = {key: value for key, value in run.identity.items() if key not in EXTENDABLE}
    identity = {
        **kept,
        "stack": run.facts.stack_fingerprint,
        "extends": list(joined),
        "scored": {name: detectors[name]["hash"] for name in changes.scored},
        "again": sorted(changes.again),
    }
    return PendingExtension(
        name=run_id_of(identity), identity=identity, config=run.config, changes=changes, builds_on=joined
    )


def _damaged_extensions(out: str, joined: tuple[str, ...], config: Config) -> Iterator[PendingExtension]:
    """Those of which `verify --repair` has taken back shards, each with the configuration that it was made with."""
    for nth, name in enumerate(joined):
        home = extension_home(out, name)
        planned, record, identity = read_shard_sizes(plan_uri(home)), read_record(home), read_identity(home)
        if planned is None or record is None or identity is None:
            raise UsageError(f"{home}: its plan or its {RUN_FILE} is gone, so its votes cannot be scored again")
        if planned.keys() <= readable_ids(home):
            continue
        own = validate(Config, record["config"], where=f"{home}/{RUN_FILE}")
        stack = build_stack(own)
        if identity.get("stack") != stack.fingerprint:
            raise UsageError(f"{home}: lacks shards, and its detectors have changed since; use a new OUT")
        yield PendingExtension(
            name=name,
            identity=identity,
            config=own.model_copy(update={"runtime": config.runtime}),
            changes=_changes_of(stack, identity),
            builds_on=joined[:nth],
        )


def _changes_of(stack: Stack, identity: Mapping[str, Any]) -> DetectorChanges:
    """What an extension scored, by its identity."""
    versions = {slot.detector.name: str(slot.detector.version) for slot in stack.slots}
    again = {name: (versions[name], versions[name]) for name in identity.get("again", ()) if name in versions}
    return changes_of(stack, added=[n for n in identity.get("scored", ()) if n not in again], again=again)


def _check_extendable(out: str, record: Mapping[str, Any], identity: Mapping[str, Any], run: Run) -> None:
    if record.get("votes_of"):
        raise UsageError(f"{out}: is a rejudge, whose votes lie in {record['votes_of']}: extend that run")
    if "night" in identity:
        raise UsageError(f"{out}: is one night of a nightly job, which --extend does not take; run a backfill")
    wanted = {key: value for key, value in run.identity.items() if key not in EXTENDABLE}
    there = {key: value for key, value in identity.items() if key not in EXTENDABLE}
    if wanted != there:
        difference = describe_difference(there, wanted)
        raise UsageError(f"{out}: --extend needs the settings of its run, except stack and policy: {difference}")
    _check_done(out, record)


def _check_done(out: str, record: Mapping[str, Any]) -> None:
    planned = read_shard_sizes(plan_uri(out))
    committed = readable_ids(out)
    if planned is None or (record.get("state") != "done" and not record.get("extending")):
        raise UsageError(
            f"{out}: its run is not done ({record.get('state')}); the same command without --extend goes on"
        )
    missing = planned.keys() - committed
    if missing:
        raise UsageError(
            f"{out}: {len(missing):,} of {len(planned):,} shards have no readable receipt; the command of its run"
            " judges them first"
        )


def _detectors_of(record: Mapping[str, Any], identity: Mapping[str, Any], out: str) -> Mapping[str, Any]:
    """What the votes of OUT are of: as its record says, or for runs before that, as its configuration gives today."""
    noted = record.get("detectors")
    if noted is not None:
        if not _is_sound(noted):
            raise UsageError(f"{out}/{RUN_FILE}: `detectors` is not readable; use a new OUT")
        return dict(noted)
    config = validate(Config, record["config"], where=f"{out}/{RUN_FILE}")
    stack = build_stack(config)
    if stack.fingerprint != identity.get("stack"):
        raise UsageError(
            f"{out}: was judged before runs noted the versions of their detectors, and these have changed since; use a"
            " new OUT"
        )
    return describe_detectors(stack.slots, config)


def _is_sound(noted: object) -> bool:
    detectors = noted.get("detectors") if isinstance(noted, dict) else None
    return isinstance(detectors, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("hash"), str) for entry in detectors.values()
    )

"""The job that extends a finished run: scores the detectors that its votes lack, then judges it again in place.

1. The detectors of the configuration are compared with those of the run, by what its record says of each.
2. Workers score what is missing, in the run's own shards, below `OUT/extensions/<id>/`; resumable like any run.
3. All parts are judged with the joined votes; the verdicts wait in `OUT/extensions/judged/`.
4. The run record names the extension, and the verdicts take the place of the run's.

Until step 4 OUT is what it was. Afterwards it is as if the run had had the whole stack: the same identity, so that the
same command without --extend has nothing left to do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moderation import storage
from moderation.analysis.rejudge import judge_here
from moderation.analysis.rejudge_parts import RejudgeSettings
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.planning.names import plan_uri
from moderation.planning.plan import decode_shards, encode_shards, read_shard_sizes
from moderation.planning.slices import Slice, slice_home
from moderation.results.decided import keep_inputs
from moderation.results.finish import finish_run
from moderation.results.joined import note_newest
from moderation.results.layout import VERDICTS, extension_home, list_part_ids, receipt_uri, staged_folder
from moderation.results.occupancy import occupy
from moderation.results.receipts import read_receipts, readable_ids
from moderation.results.record import RunFacts, write_record
from moderation.results.replaced import replace_verdicts
from moderation.results.votes import disabled_votes, policy_votes
from moderation.runtime.extendable import ExtendableRun, PendingExtension, read_extendable
from moderation.runtime.extending_task import ExtendedRun, ExtendingTask
from moderation.runtime.resume import RunOutcome, resume_run
from moderation.runtime.run import Run
from moderation.scoring.extending import DetectorChanges


def extend(
    source: str,
    out: str,
    config: Config,
    *,
    limit: int | None = None,
    max_hours: float | None = None,
    max_items: int | None = None,
    part: Slice | None = None,
) -> RunOutcome:
    """Add the votes of a configuration's detectors to a finished run, and judge it again by the policy.

    limit: as of the run. max_hours, max_items: end the scoring by plan; the next call goes on. part: score only this
    slice of the shards; a call without a slice then judges.
    Raises UsageError before any work starts, FatalError (resumable) afterwards.
    """
    found = read_extendable(source, out, config, limit)
    if found.nothing_left:
        return _nothing_left(found, config)
    if part is not None and not found.pending:
        raise UsageError(f"{found.out}: nothing is left to score; the command without --slice judges")
    began_s = time.monotonic()
    with occupy(found.out, part, wait=True):
        # Whoever was waited for may have changed the run.
        found = read_extendable(source, out, config, limit)
        if found.nothing_left or (part is not None and not found.pending):
            return _nothing_left(found, config)
        if part is None:
            _end_replacing(found)  # with no slice at the same time
        scored = None
        for pending in found.pending:
            scored = _score(found, pending, part, max_hours, max_items)
            if scored.partial or scored.too_many_errors:
                return scored
        if scored is not None and part is not None:
            return scored
        summary = _judge_again(found, scored, began_s)
    return RunOutcome(
        summary=summary,
        nothing_left=False,
        partial=False,
        error_rate=float(summary["error_rate"]),
        max_error_rate=config.runtime.max_error_rate,
    )


def _nothing_left(found: ExtendableRun, config: Config) -> RunOutcome:
    return RunOutcome(
        summary=found.summary,
        nothing_left=True,
        partial=False,
        error_rate=float(found.summary.get("error_rate", 0.0)),
        max_error_rate=config.runtime.max_error_rate,
    )


def _score(
    found: ExtendableRun, pending: PendingExtension, part: Slice | None, max_hours: float | None, max_items: int | None
) -> RunOutcome:
    """Score what the run lacks, in its own shards."""
    run = extension_run(found, pending, part)
    _copy_plan(found, run)
    note_newest(found.out, pending.name)
    _take_back_failures(run)
    task = ExtendingTask(
        config=run.config,
        policy=run.policy,
        facts=run.facts,
        run=ExtendedRun(out=found.out, format=run.config.output.format, extensions=pending.builds_on, home=run.out),
        changes=pending.changes,
    )
    return resume_run(run, task, max_hours=max_hours, max_items=max_items, judged=False)


def extension_run(found: ExtendableRun, pending: PendingExtension, part: Slice | None = None) -> Run:
    """The run that scores an extension: a plan, a record and receipts of its own, below OUT."""
    home = extension_home(found.out, pending.name)
    stack_fingerprint = str(pending.identity["stack"])
    return Run(
        source=found.run.source,
        out=home,
        home=home if part is None else slice_home(home, part),
        config=pending.config,
        policy=found.run.policy,
        limit=found.run.limit,
        # No policy: nothing is judged here.
        facts=RunFacts(run_id=pending.name, stack_fingerprint=stack_fingerprint, policy_hash=""),
        identity=pending.identity,
        part=part,
    )


def _copy_plan(found: ExtendableRun, run: Run) -> None:
    """The plan of the run, or of a slice of its shards: so that nothing is listed, and every part has its twin."""
    if storage.read_optional(plan_uri(run.home)) is not None:
        return
    whole = storage.read_bytes(plan_uri(found.out))
    if run.part is not None:
        part = run.part
        shards = decode_shards(whole, where=plan_uri(found.out))
        whole = encode_shards(shard for shard in shards if part.holds(shard.shard_id))
    storage.publish(plan_uri(run.home), whole)


def _take_back_failures(run: Run) -> None:
    """Delete the receipts of shards that failed for reasons that may be gone, so that they are tried again.

    Only where that kept an earlier call from judging: its error rate was over the limit. Those of other slices stay: a
    job of their own may be at work.
    """
    own = (read_shard_sizes(plan_uri(run.home)) or {}).keys()
    receipts = list(read_receipts(run.out, readable_ids(run.out) & own))
    items = sum(receipt.rows_in for receipt in receipts)
    errors = sum(receipt.counts.get("status:error", 0) for receipt in receipts)
    if not items or errors / items <= run.config.runtime.max_error_rate:
        return
    for receipt in receipts:
        if any(receipt.counts.get(f"error:{code}") for code in ("fetch_failed", "not_found", "forbidden")):
            storage.delete_tree(receipt_uri(run.out, receipt.shard_id))


def _judge_again(found: ExtendableRun, scored: RunOutcome | None, began_s: float) -> dict[str, Any]:
    """Judge all parts with the joined votes, and put the verdicts in the place of the run's."""
    run = found.run
    staged = staged_folder(found.out, run.facts.run_id)
    format_ = run.config.output.format
    # In the order of the plan, as the summary of any run.
    shard_ids = list(read_shard_sizes(plan_uri(found.out)) or {})
    done = readable_ids(staged) & list_part_ids(staged, VERDICTS, format_)
    pending = [shard_id for shard_id in shard_ids if shard_id not in done]
    if pending:
        judge_here(None, _settings(found, staged), pending)
    keep_inputs(run.out, run.policy, run.config)
    after = replace(run, extensions=found.joined_after, detectors=found.detectors_after, extending=run.facts.run_id)
    write_record(after, "running")
    moved = replace_verdicts(found.out, staged, shard_ids, format_)
    summary = finish_run(
        replace(after, extending=None),
        shard_ids,
        wall_s=round(time.monotonic() - began_s, 3),
        partial=False,
        facts={**_facts(found, scored), "moved": moved},
    )
    storage.delete_tree(staged)
    return summary


def _settings(found: ExtendableRun, staged: str) -> RejudgeSettings:
    run = found.run
    return RejudgeSettings(
        out=found.out,
        votes_out=found.out,
        to=staged,
        run_id=run.facts.run_id,
        format=run.config.output.format,
        compression=run.config.output.compression,
        policy=run.policy.model_dump_json(by_alias=True, exclude_unset=True),
        policy_hash=run.facts.policy_hash,
        disabled=disabled_votes(run.config, policy_votes(run.policy)),
        as_of=run.facts.as_of,
        extensions=found.joined_after,
        added=tuple(one.name for one in found.pending),
        stack_fingerprint=run.facts.stack_fingerprint,
    )


def _facts(found: ExtendableRun, scored: RunOutcome | None) -> dict[str, Any]:
    """Facts for the summary: the workers are those that scored; no rate, since the items were judged before."""
    told: Mapping[str, Any] = {} if scored is None else scored.summary
    return {
        "extended": describe_changes(found.changes),
        "workers": told.get("workers") or [],
        "startup_s": told.get("startup_s"),
        "items_this_call": told.get("items_this_call", 0),
        "frames_this_call": told.get("frames_this_call", 0),
        "shards_before": told.get("shards_before", 0),
        "stopped_by": None,
    }


def describe_changes(changes: DetectorChanges) -> dict[str, Any]:
    """What is scored and why, for a summary."""
    return {
        "added": list(changes.added),
        "again": {name: {"before": before, "now": now} for name, (before, now) in changes.again.items()},
        "kept": list(changes.kept),
        "helpers": list(changes.helpers),
    }


def _end_replacing(found: ExtendableRun) -> None:
    """Bring to its end what an earlier call began: verdicts by another policy that were being put in place."""
    other = found.replacing
    if other is None or other == found.run.facts.run_id:
        return
    staged = staged_folder(found.out, other)
    replace_verdicts(
        found.out, staged, list(read_shard_sizes(plan_uri(found.out)) or {}), found.run.config.output.format
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionPreview:
    """What an extension would do. repaired: detectors of which damaged extensions lack votes. pending_shards: those
    that are not scored yet."""

    run_id: str
    added: Sequence[str]
    again: Mapping[str, tuple[str, str]]
    kept: Sequence[str]
    helpers: Sequence[str]
    repaired: Sequence[str]
    items: int
    shards: int
    pending_shards: int
    judges: bool
    problems: tuple[str, ...] = ()


def preview_extension(source: str, out: str, config: Config, *, limit: int | None = None) -> ExtensionPreview:
    """What an extension would score and judge, and what would stop it; writes nothing that stays. Raises UsageError."""
    found = read_extendable(source, out, config, limit)
    sizes = read_shard_sizes(plan_uri(found.out)) or {}
    pending = {one.name: len(sizes.keys() - readable_ids(extension_home(found.out, one.name))) for one in found.pending}
    repaired = [one for one in found.pending if one.name in found.joined]
    return ExtensionPreview(
        run_id=found.run.facts.run_id,
        added=found.changes.added,
        again=found.changes.again,
        kept=found.changes.kept,
        helpers=found.changes.helpers,
        items=sum(sizes.values()),
        shards=len(sizes),
        pending_shards=sum(pending.values()),
        repaired=tuple(name for one in repaired for name in one.changes.scored),
        judges=not found.nothing_left,
        problems=found.problems(),
    )

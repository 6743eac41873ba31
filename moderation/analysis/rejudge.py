"""Another policy over the votes of a finished run: no pictures, no GPU; also over questions asked afterwards.

    TO/verdicts/part-<shard>.parquet   like the run's own, with the new verdicts and the new checks' scores
    TO/receipts/                       parts with a receipt are not judged again
    TO/run.json, plan.parquet, summary.json, report.html, _SUCCESS   a run like any other; its votes are those of OUT
    TO/rejudge.json                    which run, which policy, which questions; counts; written last

The run's own files stay as they are. Processes of this machine judge the parts, or the caller's `judge_parts` does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Final

from moderation import storage
from moderation.analysis.rejudge_parts import MOVED, RejudgeSettings, rejudge_shards
from moderation.analysis.rejudge_processes import judge_by_processes
from moderation.concurrency import usable_cores
from moderation.errors import FatalError, UsageError
from moderation.pages.drawing import load_ahead
from moderation.planning.names import plan_uri
from moderation.planning.plan import encode_shards
from moderation.planning.slices import find_slices, slice_home
from moderation.policy.bind import bind
from moderation.policy.model import WITHOUT_ENTRIES, Policy, policy_hash
from moderation.results.certificates import certify_policy, describe_certification
from moderation.results.finish import finish_run
from moderation.results.layout import REJUDGE_FILE, VERDICTS, list_part_ids
from moderation.results.planned import iterate_planned
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.results.receipt_sums import sum_receipts
from moderation.results.receipts import committed_ids, read_receipts
from moderation.results.record import Output, RunFacts, describe_difference, read_record, run_id_of, write_record
from moderation.results.votes import disabled_votes, needed_asks, policy_votes, read_votes, vote_labels
from moderation.version import __version__

# Parts per message to a process: seconds of work, so that the last processes end together.
_CHUNK_PARTS: Final = 32
_PARTS_PER_PROCESS: Final = 16  # fewer are judged sooner than a process starts

_WHAT: Final = {"rejudged": "another run", "policy": "another policy", "as_of": "another day"}

JudgeParts = Callable[[RejudgeSettings, Sequence[str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """The outcome of a rejudge. moved: (verdict before, after) -> items, of those whose verdict changed."""

    to: str
    asks: tuple[str, ...]
    items: int
    verdicts: Mapping[str, int]
    moved: Mapping[tuple[str, str], int]
    doubts: tuple[str, ...] = ()  # what no certificate covers, in sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A rejudge that is checked and may begin. pending: parts that TO lacks."""

    run: StoredRun
    output: Output
    policy: Policy
    settings: RejudgeSettings
    pending: tuple[str, ...]


def rejudge(
    out: str,
    policy_path: str | None,
    to: str,
    *,
    as_of: date | None = None,
    workers: int | None = None,
    judge_parts: JudgeParts | None = None,
) -> Rejudged:
    """Judge the votes of OUT by another policy, into `to`; the same call resumes one that was killed.

    policy_path: None: the policy that OUT keeps.
    as_of: the day for lists that end; None: that of the run, so that the rows are those of a full run.
    workers: processes; None: one per core. judge_parts: judges and commits parts instead of these processes.
    Votes that the policy names and the run did not cast are searched among the questions asked afterwards
    (`moderation ask --as-check`). Raises UsageError naming the vote and the nearest right one, or what TO holds.
    """
    began_s = time.perf_counter()
    plan = _prepare(out, policy_path, to, as_of)
    write_record(plan.output, "running")
    _copy_plan(plan.run, plan.settings.to)
    if plan.pending:
        (judge_parts or partial(judge_here, workers))(plan.settings, plan.pending)
    return _finish(plan, time.perf_counter() - began_s)


def _prepare(out: str, policy_path: str | None, to: str, as_of: date | None) -> _Plan:
    """Check all that can be wrong, before anything is written."""
    run = open_run(out)
    out, to = storage.canonical(out).rstrip("/"), storage.canonical(to).rstrip("/")
    if f"{to}/".startswith(f"{out}/") or f"{out}/".startswith(f"{to}/"):
        raise UsageError(f"--to {to}: is the run itself, or in it, or holds it; its verdicts stay as they are")
    config = run.load_config()
    path = policy_path or config.policy
    policy, certification = certify_policy(load_policy_of_run(run, policy_path), path, run.stack_fingerprint)
    wanted = policy_votes(policy)
    disabled = disabled_votes(config, wanted)
    asks = needed_asks(run.votes_out, wanted, vote_labels(run.read_votes(run.shard_ids[0])))
    day = run.day(policy, as_of)
    bind(policy, vote_labels(read_votes(run, run.shard_ids[0], asks)), disabled=disabled, as_of=day)
    known = run.record.get("identity")
    identity: dict[str, Any] = {
        **(known if isinstance(known, dict) else {}),
        "policy": policy_hash(policy),
        "rejudged": run.run_id,
        "asks": list(asks),
        "as_of": None if day is None else day.isoformat(),
        "withdrawn": sorted(certification.uncertified) if certification.withdrawn else [],
    }
    facts = RunFacts(
        run_id=run_id_of(identity),
        stack_fingerprint=run.stack_fingerprint,
        policy_hash=policy_hash(policy),
        as_of=identity["as_of"],
    )
    output = Output(
        source=str(run.record.get("source") or identity.get("source", "")),
        out=to,
        home=to,
        config=config.model_copy(update={"policy": path}),
        facts=facts,
        identity=identity,
        certification=certification.as_json(),
        votes_of=run.votes_out,
        extensions=run.extensions,
    )
    done = _committed(output, run.format, run.out)
    settings = RejudgeSettings(
        out=out,
        votes_out=run.votes_out,
        to=to,
        run_id=facts.run_id,
        format=run.format,
        compression=config.output.compression,
        policy=policy.model_dump_json(by_alias=True, exclude_unset=True),
        policy_hash=facts.policy_hash,
        asks=asks,
        disabled=disabled,
        as_of=facts.as_of,
        extensions=run.extensions,
    )
    pending = tuple(shard_id for shard_id in run.shard_ids if shard_id not in done)
    return _Plan(run=run, output=output, policy=policy, settings=settings, pending=pending)


def _committed(output: Output, format_: str, out: str) -> set[str]:
    """The parts that TO has of this very rejudge, made of the parts that the run in `out` has now.

    Raises UsageError where it holds something else.
    """
    to = output.out
    record = read_record(to)
    if record is None:
        if committed_ids(to) or list_part_ids(to, VERDICTS, format_):
            raise UsageError(f"--to {to}: holds verdicts of something else; choose another folder")
        return set()
    identity = record.get("identity")
    if not isinstance(identity, dict) or "rejudged" not in identity:
        raise UsageError(f"--to {to}: is the output of a run; choose another folder")
    if identity != output.identity:
        what = next(
            (name for key, name in _WHAT.items() if identity.get(key) != output.identity[key]), "other settings"
        )
        difference = describe_difference(identity, dict(output.identity))
        raise UsageError(f"--to {to}: holds the verdicts by {what} ({difference}); choose another folder")
    receipts = list(read_receipts(to, committed_ids(to) & list_part_ids(to, VERDICTS, format_)))
    now = {receipt.shard_id: receipt.sha256 for receipt in read_receipts(out, [r.shard_id for r in receipts])}
    return {r.shard_id for r in receipts if not r.made_of or r.made_of == now.get(r.shard_id)}


def _copy_plan(run: StoredRun, to: str) -> None:
    """Copy the plan of the run: the rejudge has the same items."""
    if run.record.get("state", "done") == "done" and storage.read_optional(plan_uri(to)) is not None:
        return
    whole = storage.read_optional(plan_uri(run.out))
    if whole is None:
        homes = [run.out, *(slice_home(run.out, part) for part in find_slices(run.out))]
        whole = encode_shards(iterate_planned(homes))
    storage.publish(plan_uri(to), whole)


def judge_here(workers: int | None, settings: RejudgeSettings, shard_ids: Sequence[str]) -> None:
    """Judge parts by processes of this machine, or by this process where there is little to do."""
    processes = min(workers or usable_cores(), -(-len(shard_ids) // _PARTS_PER_PROCESS))
    told = settings.to_json()
    if processes == 1:
        rejudge_shards(told, shard_ids)
    else:
        load_ahead()  # the report's, while the others judge
        judge_by_processes(told, cut_chunks(shard_ids), processes)


def cut_chunks(shard_ids: Sequence[str]) -> list[Sequence[str]]:
    """Parts in portions for the processes."""
    return [shard_ids[start : start + _CHUNK_PARTS] for start in range(0, len(shard_ids), _CHUNK_PARTS)]


def _finish(plan: _Plan, wall_s: float) -> Rejudged:
    to, run = plan.settings.to, plan.run
    sums = sum_receipts(read_receipts(to, run.shard_ids))
    if len(sums.shard_ids) < len(run.shard_ids):
        raise FatalError(f"{to}: {len(run.shard_ids) - len(sums.shard_ids):,} parts were not judged")
    rejudged = Rejudged(
        to=to,
        asks=plan.settings.asks,
        items=sums.items,
        verdicts=_by_name(sums.counts, "verdict"),
        moved={(a, b): n for (a, _, b), n in _split(_by_name(sums.counts, MOVED))},
        doubts=tuple(describe_certification(plan.output.certification)),
    )
    finish_run(
        plan.output,
        run.shard_ids,
        wall_s=wall_s,
        partial=run.record.get("state", "done") != "done",
        facts={"rejudged": run.run_id, "workers": []},
    )
    _write_record(rejudged, run, plan.policy)
    return rejudged


def _by_name(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(f"{prefix}:"): n for name, n in counts.items() if name.startswith(f"{prefix}:")}


def _split(counts: Mapping[str, int]) -> list[tuple[tuple[str, str, str], int]]:
    return [(name.partition(":"), n) for name, n in counts.items()]


def _write_record(rejudged: Rejudged, run: StoredRun, policy: Policy) -> None:
    record: dict[str, Any] = {
        "run": run.out,
        "run_id": run.run_id,
        "policy_hash": policy_hash(policy),
        "policy": policy.model_dump(mode="json", by_alias=True, exclude=WITHOUT_ENTRIES),
        "asks": list(rejudged.asks),
        "items": rejudged.items,
        "verdicts": rejudged.verdicts,
        "moved": {f"{a} -> {b}": n for (a, b), n in sorted(rejudged.moved.items())},
        "state": "done",
        "code_version": __version__,
    }
    text = json.dumps(record, indent=1, sort_keys=True)
    storage.publish(storage.join(rejudged.to, REJUDGE_FILE), text.encode())

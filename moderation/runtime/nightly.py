"""The nightly job: judges what is new or changed since the ledger, then enters it in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

from moderation import storage
from moderation.config.model import Config
from moderation.evaluation.watch import NightWatch, begin_watch, monitoring_facts, remember_night, watch_scores
from moderation.ledger.copies import Target, write_copies
from moderation.ledger.difference import Choice, difference
from moderation.ledger.entry import FinishedNight, judged_rows, marked_rows
from moderation.ledger.index import Provenance, load_index
from moderation.ledger.listing import NightListing, Spool, read_listing, read_marks
from moderation.ledger.nights import UNFINISHED_FILE, note_quiet
from moderation.ledger.store import append, compact, open_log, should_compact
from moderation.planning.apart import check_apart
from moderation.planning.names import plan_uri
from moderation.planning.plan import decode_shards, plan_shards, read_shard_sizes
from moderation.results.decided import keep_inputs
from moderation.results.finish import finish_run
from moderation.results.layout import QUIET_FILE
from moderation.results.output import check_output, nothing_left
from moderation.results.receipts import readable_ids
from moderation.results.record import run_id_of
from moderation.results.schema import votes_schema
from moderation.runtime.backfill import judging_task
from moderation.runtime.night_learn import NightLearning, learn_before_night, sweep_after_night
from moderation.runtime.night_run import NightRun, begin_night, settle_choice
from moderation.runtime.prepare import bind_policy, prepare_run
from moderation.runtime.reporting import keep_nights_page, night_extras
from moderation.runtime.run import Run
from moderation.runtime.state import PlanOutcome, Progress, Stop
from moderation.scoring.declared import declare_stack
from moderation.sources import open_source
from moderation.storage.lease import LEASE_S, Lease, hold_lease
from moderation.types import Item, Shard

_NO_WORK: Mapping[str, Any] = {"shards_this_call": 0, "items_this_call": 0, "frames_this_call": 0, "workers": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class NightOutcome:
    """How a night ended."""

    night: NightRun
    out: str
    summary: Mapping[str, Any]
    partial: bool
    max_error_rate: float
    min_errors: int = 1

    @property
    def too_many_errors(self) -> bool:
        """Whether the call should end with exit code 3; not for fewer errors than `min_errors`, which prove little."""
        errors = int((self.summary.get("status") or {}).get("error", 0))
        return errors >= self.min_errors and float(self.summary.get("error_rate", 0.0)) > self.max_error_rate


def nightly(
    source: str,
    ledger: str,
    out: str,
    config: Config,
    *,
    choice: Choice | None = None,
    lease_s: float = LEASE_S,
    max_hours: float | None = None,
    max_items: int | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> list[NightOutcome]:
    """Judge what is new or changed in a source since the ledger, into OUT/<night>/; then write it to the ledger.

    A night that an earlier call of the same kind left unfinished is finished first, then tonight's is run: one or two
    outcomes. max_hours, max_items: limits of the call; the next call goes on with a partial night.
    Raises UsageError before any work starts, LeaseHeldError when another nightly job runs, FatalError (resumable).
    """
    ledger, out = storage.canonical(ledger).rstrip("/"), storage.canonical(out).rstrip("/")
    learning = learn_before_night(out, ledger, config, note)
    base = prepare_run(source, out, config)
    choice = settle_choice(choice or Choice(), storage.canonical(source), config)
    if base.policy.goes_by_item and not choice.judge_copies:
        note("the policy goes by attributes or by the day, so copies of what is judged are judged, too")
        choice = replace(choice, judge_copies=True)
    check_apart(base.source, ledger, "--ledger")
    if not storage.is_folder(ledger):
        # A wrong source must not create a night or a ledger.
        open_source(base.source, config.source)
    limits = _Limits(ends_s=None if max_hours is None else time.monotonic() + max_hours * 3600, max_items=max_items)
    stop = Stop()
    with hold_lease(ledger, lease_s, lambda: stop.request("the lease was lost", 0.0), wait=True) as lease:
        watch = begin_watch(out, config, base.policy)
        if watch.ended:
            base = prepare_run(source, out, config, ended=watch.ended)
        while True:
            night = begin_night(base, ledger, choice, note)
            job = _NightJob(
                base=base, ledger=ledger, choice=choice, night=night, lease=lease, stop=stop, watch=watch,
                learning=learning, note=note,
            )  # fmt: skip
            outcome = job.run(limits.hours_left(), limits.items_left())
            limits.outcomes.append(outcome)
            keep_nights_page(out)
            if outcome.partial or not night.resumed or limits.reached():
                return limits.outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """How long a call may go on, and how many items it may judge, over all of its nights."""

    ends_s: float | None
    max_items: int | None
    outcomes: list[NightOutcome] = field(default_factory=list)

    def hours_left(self) -> float | None:
        return None if self.ends_s is None else max(0.0, self.ends_s - time.monotonic()) / 3600

    def items_left(self) -> int | None:
        return None if self.max_items is None else max(0, self.max_items - self._items())

    def reached(self) -> bool:
        return self.hours_left() == 0.0 or self.items_left() == 0

    def _items(self) -> int:
        return sum(int(o.summary.get("items_this_call", 0)) for o in self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _NightJob:
    base: Run
    ledger: str
    choice: Choice
    night: NightRun
    lease: Lease
    stop: Stop
    watch: NightWatch
    learning: NightLearning
    note: Callable[[str], None]

    def run(self, max_hours: float | None, max_items: int | None) -> NightOutcome:
        """Plan, judge, take over verdicts of copies, sum up, enter in the ledger."""
        run = _run_of(self.base, self.ledger, self.night)
        committed = check_output(run)
        judged = self._judge(run, committed, max_hours, max_items)
        self.lease.check()
        listing = read_listing(run.out)
        facts = {
            "monitoring": monitoring_facts(self.watch, (), ()),
            **judged.facts,
            "nightly": self._summary_facts(listing),
        }
        if judged.partial or listing is None:
            ids = judged.shard_ids
            extras = night_extras(self.base.out, self.night.night_id, ids)
            summary = finish_run(run, ids, wall_s=judged.wall_s, partial=True, facts=facts, extras=extras)
            return self._outcome(run, summary)
        keep_inputs(run.out, run.policy, run.config)
        copies = write_copies(self._target(run), listing, _planned(run), readable_ids(run.out))
        ids = [*(read_shard_sizes(plan_uri(run.home)) or ()), *(shard.shard_id for shard in copies)]
        extras = night_extras(self.base.out, self.night.night_id, ids)
        summary = finish_run(run, ids, wall_s=judged.wall_s, partial=False, facts=facts, extras=extras)
        if ids:
            remember_night(self.base.out, self.night.night_id, run.out, run.config, run.policy)
        self._enter(run, copies)
        sweep_after_night(self.learning, self.base.out, self.ledger, self.night.night_id, run.config, self.note)
        if _is_quiet(summary):
            return self._outcome(run, self._leave_a_line(run, summary))
        return self._outcome(run, summary)

    def _leave_a_line(self, run: Run, summary: Mapping[str, Any]) -> dict[str, Any]:
        """For a night with nothing to do: write a line to `QUIET_FILE` and delete the folder."""
        counts = summary["nightly"]
        told = {name: counts[name] for name in ("ledger", "looked_at", "unchanged", "older") if counts.get(name)}
        note_quiet(self.base.out, self.night.night_id, told)
        storage.delete_tree(run.out)
        return {**summary, "out": storage.join(self.base.out, QUIET_FILE), "quiet": True}

    def _judge(self, run: Run, committed: set[str], max_hours: float | None, max_items: int | None) -> PlanOutcome:
        if nothing_left(run, committed):
            return PlanOutcome(shard_ids=[], wall_s=0.0, partial=False, facts=_NO_WORK)
        began_s = time.monotonic()
        # Asks for a first shard before Ray starts: most nights of most sources have none, and need no cluster.
        shards = plan_shards(run.source, run.home, run.config, open_items=lambda: self._open_difference(run))
        first_shard = next(shards, None)
        if first_shard is None:
            return PlanOutcome(shard_ids=[], wall_s=time.monotonic() - began_s, partial=False, facts=_NO_WORK)
        from moderation.runtime.plan_run import run_plan  # Ray only where there is work

        return run_plan(
            run,
            judging_task(run),
            chain([first_shard], shards),
            committed,
            max_hours=max_hours,
            max_items=max_items,
            stop=self.stop,
            observe=partial(self._observe, run),
        )

    def _observe(self, run: Run, progress: Progress) -> dict[str, Any]:
        """Report in log and metrics what new labels and this night's scores show; return it for the summary."""
        for action, reason in self.watch.ended.items():
            progress.note("certificate_ended", reason, action=action)
        drifts, notes = watch_scores(run.out, run.config)
        for drift in drifts:
            if drift.state == "drifted":
                progress.note("drift", drift.reason, score=drift.name, stability=drift.stability)
        return {"monitoring": monitoring_facts(self.watch, drifts, notes)}

    def _open_difference(self, run: Run) -> Iterator[Item]:
        listing = open_source(run.source, run.config.source)
        provenance, log = _provenance(run), open_log(self.ledger)
        return difference(listing, load_index(log, provenance), log, provenance, self.choice, Spool(run.out))

    def _target(self, run: Run) -> Target:
        stack, metadata = declare_stack(run.config), run.facts.metadata()
        return Target(
            out=run.out,
            config=run.config,
            checks=tuple(run.policy.checks),
            votes_schema=votes_schema(stack.labels, stack.blob_sizes, stack.embedding_dims, metadata),
            metadata=metadata,
            policy=bind_policy(run.policy, stack, run.facts.day),
        )

    def _summary_facts(self, listing: NightListing | None) -> dict[str, Any]:
        counts = dict(listing.counts) if listing is not None else {}
        return {
            "night": self.night.night_id,
            "ledger": self.ledger,
            "listing_ended": listing is not None,
            "resumed": self.night.resumed,
            **({} if (learned := self.learning.facts()) is None else {"learned": learned}),
            **asdict(self.choice),
            **counts,
        }

    def _enter(self, run: Run, copies: list[Shard]) -> None:
        """Enter the night in the ledger; the last step, so that only a night with _SUCCESS is in it."""
        self.lease.check()
        log = open_log(self.ledger)
        at = self.night.began_at
        night = FinishedNight(out=run.out, format=run.config.output.format, provenance=_provenance(run), judged_at=at)
        # Later rows replace earlier ones: an item that only an interrupted listing had planned was judged all the same.
        rows = chain(marked_rows(log, read_marks(run.out), at), judged_rows(chain(_planned(run), copies), night))
        append(self.ledger, self.night.night_id, rows)
        storage.delete_tree(storage.join(self.ledger, UNFINISHED_FILE))
        log = open_log(self.ledger)
        if should_compact(log):
            self.lease.check()
            compact(log)

    def _outcome(self, run: Run, summary: Mapping[str, Any]) -> NightOutcome:
        return NightOutcome(
            night=self.night,
            out=run.out,
            summary=summary,
            partial=summary.get("state") == "partial",
            max_error_rate=run.config.runtime.max_error_rate,
            min_errors=run.config.runtime.min_night_errors,
        )


def _is_quiet(summary: Mapping[str, Any]) -> bool:
    """Whether nothing was judged, taken over, marked or unmarked."""
    counts = summary["nightly"]
    return not summary["items"] and not any(counts.get(name) for name in ("deleted", "returned"))


def _run_of(base: Run, ledger: str, night: NightRun) -> Run:
    """The run of one night: an identity and a folder of its own below OUT."""
    identity = {**base.identity, "ledger": ledger, "night": night.night_id}
    out = storage.join(base.out, night.night_id)
    # By the night's id, so that a resumed night has the day on which it was begun.
    day = night.began_at.date().isoformat() if base.policy.dated else None
    facts = replace(base.facts, run_id=run_id_of(identity), as_of=day)
    return replace(base, out=out, home=out, identity=identity, facts=facts)


def _provenance(run: Run) -> Provenance:
    return Provenance(
        source=run.source,
        stack_fingerprint=run.facts.stack_fingerprint,
        policy_hash=run.facts.policy_hash,
        attributes=run.policy.attributes_read,
    )


def _planned(run: Run) -> Iterator[Shard]:
    return decode_shards(storage.read_bytes(plan_uri(run.home)), where=plan_uri(run.home))

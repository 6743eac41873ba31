"""Continues a run from what earlier calls have committed, to its end or as far as there is time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.planning.names import plan_uri
from moderation.planning.plan import plan_shards, read_shard_sizes
from moderation.results.finish import finish_run
from moderation.results.layout import summary_uri
from moderation.results.occupancy import occupy
from moderation.results.output import check_output, check_owner, nothing_left, start_over
from moderation.runtime.reporting import report_extras
from moderation.runtime.run import Run
from moderation.runtime.state import Stop
from moderation.runtime.task import WorkerTask
from moderation.sources import open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a call ended. `nothing_left`: earlier calls had already done it all."""

    summary: Mapping[str, Any]
    nothing_left: bool
    partial: bool
    error_rate: float
    max_error_rate: float

    @property
    def too_many_errors(self) -> bool:
        """Whether the call should end with exit code 3."""
        return self.error_rate > self.max_error_rate


def resume_run(
    run: Run,
    task: WorkerTask,
    *,
    fresh: bool = False,
    max_hours: float | None = None,
    max_items: int | None = None,
    judged: bool = True,
) -> RunOutcome:
    """Carry out a task on every shard that has no receipt in OUT, and sum up.

    fresh: delete what earlier calls wrote. max_hours, max_items: end by plan; the next call goes on. judged: whether
    the task leaves verdicts to show.
    Raises UsageError before any work starts, FatalError (resumable) afterwards.
    """
    if fresh or not check_owner(run):
        # A wrong source must neither delete existing tables nor create files.
        open_source(run.source, run.config.source)
        from moderation.runtime.open_pool import check_pool  # only where something may be run

        check_pool(run.config.runtime)  # nor may workers that cannot start here
    elif (done := _find_done(run)) is not None:
        return done
    stop = Stop()
    with occupy(run.out, run.part, lambda: stop.request("the lease was lost", 0.0), wait=True) as lease:
        if fresh:
            start_over(run.out)
        committed = check_output(run)
        if nothing_left(run, committed):
            return _outcome(run, _read_or_write_summary(run, committed, judged=judged), nothing_left=True)
        from moderation.runtime.plan_run import run_plan  # Ray only where work is left

        shards = plan_shards(run.source, run.home, run.config, limit=run.limit, slice_=run.part)
        ended = run_plan(run, task, shards, committed, max_hours=max_hours, max_items=max_items, stop=stop)
        lease.check()
        summary = finish_run(
            run,
            ended.shard_ids,
            wall_s=ended.wall_s,
            partial=ended.partial,
            facts=ended.facts,
            judged=judged,
            extras=report_extras(),
        )
        return _outcome(run, summary, nothing_left=False)


def _find_done(run: Run) -> RunOutcome | None:
    """How a run with nothing left ended; None where work is left. Takes no lease, because it writes nothing."""
    summary = read_summary(run.home)
    if summary.get("state") != "done":
        return None
    committed = check_output(run)
    if not nothing_left(run, committed) or _find_unplanned(run, committed):
        return None
    return _outcome(run, summary, nothing_left=True)


def _find_unplanned(run: Run, committed: set[str]) -> set[str]:
    """Committed shards that the plan does not have; none for a slice, whose OUT holds the shards of others, too."""
    return committed.difference(read_shard_sizes(plan_uri(run.home)) or {}) if run.home == run.out else set()


def _read_or_write_summary(run: Run, committed: set[str], *, judged: bool) -> dict[str, Any]:
    """`summary.json` of a run whose shards are all committed; written now if the call died before it could."""
    shard_sizes = read_shard_sizes(plan_uri(run.home)) or {}
    summary = read_summary(run.home)
    if summary.get("state") == "done" and not _find_unplanned(run, committed):
        return summary
    facts = {} if run.part is None else {"slice": str(run.part)}
    return finish_run(
        run, list(shard_sizes), wall_s=0.0, partial=False, facts=facts, judged=judged, extras=report_extras()
    )


def read_summary(home: str) -> dict[str, Any]:
    """`summary.json` of a run; empty where there is none, or it is no JSON."""
    data = storage.read_optional(summary_uri(home))
    try:
        summary = parse_json(data) if data is not None else None
    except ValueError:
        summary = None
    return summary if isinstance(summary, dict) else {}


def _outcome(run: Run, summary: Mapping[str, Any], *, nothing_left: bool) -> RunOutcome:
    return RunOutcome(
        summary={**summary, "out": run.out},  # an OUT may have been moved since
        nothing_left=nothing_left,
        partial=summary.get("state") == "partial",
        error_rate=float(summary.get("error_rate", 0.0)),
        max_error_rate=run.config.runtime.max_error_rate,
    )

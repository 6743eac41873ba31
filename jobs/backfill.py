"""`moderation backfill`: judge every item of a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from moderation.errors import UsageError
from moderation.pages.text import json_text, size
from moderation.planning.slices import parse_slice

from .escalations import check_escalations, tell_escalations
from .extending import is_scored_only, print_extended, print_scored, show_extension, warn_of_errors
from .options import (
    AllowPartialOption,
    BundleOption,
    ConfigOption,
    LimitOption,
    MaxHoursOption,
    MaxItemsOption,
    PolicyOption,
    SetOption,
    StoreOption,
    WorkersOption,
    load_bundle_settings,
)
from .printing import (
    announce,
    counts_text,
    exit_on_no_media,
    exit_on_partial,
    exit_on_too_many_errors,
    plain_console,
    print_doubts,
    print_error,
    print_json,
    print_line,
    verdicts_text,
)

if TYPE_CHECKING:
    from moderation.config.model import Config
    from moderation.planning.slices import Slice
    from moderation.runtime.backfill import Preview
    from moderation.runtime.resume import RunOutcome


def backfill(
    source: Annotated[
        str,
        typer.Argument(
            help="Prefix, glob, manifest (.csv .jsonl .parquet), WebDataset tar, or table of pictures; a path or s3://..."
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder or prefix that the tables are written to.")],
    config: ConfigOption = None,
    policy: PolicyOption = None,
    bundle: BundleOption = None,
    bundles: StoreOption = None,
    set_: SetOption = None,
    workers: WorkersOption = None,
    limit: LimitOption = None,
    max_hours: MaxHoursOption = None,
    max_items: MaxItemsOption = None,
    slice_: Annotated[
        str | None, typer.Option("--slice", metavar="K/N", help="Only this part of the shards; see `merge`.")
    ] = None,
    allow_partial: AllowPartialOption = False,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Score only the detectors that OUT lacks; judge again in place."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, do nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the tables in OUT and start over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Judge every item of SOURCE. Running the same command again goes on where the last one ended."""
    settings = load_bundle_settings(bundle, bundles, config, set_, workers=workers, policy=policy)
    check_escalations(settings.escalations)
    part = parse_slice(slice_) if slice_ is not None else None
    _check_options(limit, max_items, extend=extend, fresh=fresh)
    announce(source, out, settings, config, rehearsal=dry_run)

    from moderation.results.paths import check_paths, holds_more

    check_paths(source, out, settings.source)

    if dry_run and extend:
        show_extension(source, out, settings, limit, as_json=as_json)
        return
    if dry_run:
        _show_plan(source, out, settings, limit, fresh, part, as_json=as_json)
        return
    outcome = _run(extend, source, out, settings, limit, fresh, max_hours, max_items, part)
    tell_escalations(outcome.summary, settings.escalations)
    _print_outcome(outcome, extend=extend, as_json=as_json)
    exit_on_too_many_errors(outcome)
    exit_on_no_media(outcome.summary, partial=outcome.partial)
    if not allow_partial:
        exit_on_partial(outcome.partial or holds_more(source, settings.source, limit))


def _check_options(limit: int | None, max_items: int | None, *, extend: bool, fresh: bool) -> None:
    """Raises UsageError for options that contradict each other."""
    if max_items is not None and limit is not None and max_items > limit:
        raise UsageError(f"--max-items {max_items} is more than --limit {limit}")
    if extend and fresh:
        raise UsageError("--fresh with --extend: one deletes the votes that the other adds to; choose one of them")


def _run(
    extend: bool,
    source: str,
    out: str,
    settings: Config,
    limit: int | None,
    fresh: bool,
    max_hours: float | None,
    max_items: int | None,
    part: Slice | None,
) -> RunOutcome:
    if extend:
        from moderation.runtime.extend import extend as run_extend

        return run_extend(source, out, settings, limit=limit, max_hours=max_hours, max_items=max_items, part=part)

    from moderation.runtime.backfill import backfill as run_backfill  # heavy imports only once the call is right

    return run_backfill(
        source, out, settings, limit=limit, fresh=fresh, max_hours=max_hours, max_items=max_items, part=part
    )


def _show_plan(
    source: str, out: str, settings: Config, limit: int | None, fresh: bool, part: Slice | None, *, as_json: bool
) -> None:
    from moderation.runtime.backfill import preview

    plan = preview(source, out, settings, limit=limit, fresh=fresh, part=part)
    if as_json:
        print_json(asdict(plan))
    else:
        _print_plan(plan)
    if plan.problems:
        raise typer.Exit(2)


def _print_plan(plan: Preview) -> None:
    errors = f", {plan.errors:,} of them errors already" if plan.errors else ""
    unknown = f", {plan.unknown_sizes:,} of unknown size" if plan.unknown_sizes else ""
    table = Table(title="plan (nothing was started)", show_header=False)
    table.add_row("items", f"{plan.items:,}{errors}")
    table.add_row("bytes", f"{size(plan.size_bytes)}{unknown}")
    table.add_row("shards", f"{plan.shards:,}, {plan.committed_shards:,} of them committed")
    table.add_row("workers", f"{plan.workers} with {plan.num_cpus:g} CPU and {plan.num_gpus:g} GPU each")
    table.add_row("run", plan.run_id)
    plain_console().print(table)
    for problem in plan.problems:
        print_error(problem)


def _print_outcome(outcome: RunOutcome, *, extend: bool, as_json: bool) -> None:
    if as_json:
        print_json(outcome.summary)
    elif extend and is_scored_only(outcome):
        print_scored(outcome)
    else:
        _print_summary(outcome.summary, nothing_left=outcome.nothing_left, partial=outcome.partial)
    print_doubts(outcome.summary)
    if extend:
        warn_of_errors(outcome)


def _print_summary(summary: Mapping[str, Any], *, nothing_left: bool, partial: bool) -> None:
    console = plain_console()
    if not nothing_left:
        print_extended(summary)
    if nothing_left:
        console.print(f"Nothing left to do: all shards of run {summary['run_id']} are committed.")
    elif partial:
        console.print("Ended early, as asked; the same command goes on.")
    if summary.get("verdicts"):
        console.print(_summary_table(summary))
    else:
        console.print(json_text(summary, indent=1))
    print_line(f"{summary['out']}/report.html")


def _summary_table(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"run {summary['run_id']}", show_header=False)
    table.add_row("verdicts", verdicts_text(summary.get("verdicts") or {}))
    for name in ("status", "kinds", "errors"):
        table.add_row(name, counts_text(summary.get(name) or {}))
    if summary.get("items_per_s") is not None and summary.get("startup_s") is not None:
        table.add_row("rate", f"{summary['items_per_s']:,.1f} items/s after {summary['startup_s']:.0f} s to start")
    return table

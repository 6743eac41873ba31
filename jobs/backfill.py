"""`moderation backfill`: judge every item of a source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from moderation.config.load import load_config
from moderation.errors import UsageError
from moderation.pages.text import size
from moderation.planning.slices import parse_slice


def backfill(
    source: Annotated[
        str,
        typer.Argument(
            help="Prefix, glob, manifest (.csv .jsonl .parquet), WebDataset tar, or table of pictures; a path or s3://..."
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder or prefix that the tables are written to.")],
    config: Annotated[str | None, typer.Option(help="Configuration file, or the name of a packaged one.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy file, instead of the configuration's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key; may be repeated.")
    ] = None,
    workers: Annotated[str | None, typer.Option(help="auto, or how many.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items of the source.")] = None,
    max_hours: Annotated[float | None, typer.Option(min=0, help="End by then; the next call goes on.")] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="End after so many; the next call goes on.")] = None,
    slice_: Annotated[
        str | None, typer.Option("--slice", metavar="K/N", help="Only this part of the shards; see `merge`.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, do nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the tables in OUT and start over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Judge every item of SOURCE. Running the same command again goes on where the last one ended."""
    overrides = list(set_ or [])
    if workers is not None:
        overrides.append(f"runtime.workers={workers}")
    if policy is not None:
        overrides.append(f"policy={json.dumps(policy)}")
    settings = load_config(config, overrides)
    part = parse_slice(slice_) if slice_ is not None else None

    from moderation.runtime.backfill import backfill as run_backfill  # heavy imports only once the call is right
    from moderation.runtime.backfill import preview

    if dry_run:
        plan = preview(source, out, settings, limit=limit, fresh=fresh, part=part)
        _print_plan({name: getattr(plan, name) for name in plan.__slots__}, as_json=as_json)
        return
    if max_items is not None and limit is not None and max_items > limit:
        raise UsageError(f"--max-items {max_items} is more than --limit {limit}")
    outcome = run_backfill(
        source, out, settings, limit=limit, fresh=fresh, max_hours=max_hours, max_items=max_items, part=part
    )
    if as_json:
        typer.echo(json.dumps(outcome.summary, indent=1, ensure_ascii=False))
    else:
        _print_summary(outcome.summary, nothing_left=outcome.nothing_left, partial=outcome.partial)
    if outcome.too_many_errors:
        Console(stderr=True).print(
            f"{outcome.error_rate:.1%} of the items are errors, more than runtime.max_error_rate"
            f" ({outcome.max_error_rate:.1%})",
            style="bold red",
        )
        raise typer.Exit(3)


def _print_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(plan, indent=1))
        return
    table = Table(title="plan (nothing was started)", show_header=False)
    rows = {
        "items": f"{plan['items']:,}" + (f", {plan['errors']:,} of them errors already" if plan["errors"] else ""),
        "bytes": size(plan["size_bytes"])
        + (f", {plan['unknown_sizes']:,} of unknown size" if plan["unknown_sizes"] else ""),
        "shards": f"{plan['shards']:,}, {plan['committed_shards']:,} of them committed",
        "workers": f"{plan['workers']} with {plan['num_cpus']:g} CPU and {plan['num_gpus']:g} GPU each",
        "run": plan["run_id"],
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def _print_summary(summary: Mapping[str, Any], *, nothing_left: bool, partial: bool) -> None:
    console = Console()
    if nothing_left:
        console.print(f"Nothing left to do: all shards of run {summary['run_id']} are committed.", highlight=False)
    elif partial:
        console.print("Ended early, as asked; the same command goes on.", highlight=False)
    console.print_json(json.dumps(summary)) if not summary.get("verdicts") else console.print(_summary_table(summary))
    console.print(f"{summary['out']}/report.html", markup=False, highlight=False)


def _summary_table(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"run {summary['run_id']}", show_header=False)
    for name in ("verdicts", "status", "kinds", "errors"):
        counts = summary.get(name) or {}
        table.add_row(name, "  ".join(f"{key} {value:,}" for key, value in counts.items()) or "none")
    return table

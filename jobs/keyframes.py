"""`moderation keyframes`: cut videos into keyframe tars, on CPU nodes."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from moderation.config.load import load_config


def keyframes(
    source: Annotated[str, typer.Argument(help="Prefix, glob, manifest or tars with videos; a path or s3://...")],
    out: Annotated[str, typer.Option(help="Folder or prefix; the tars come into OUT/tars.")],
    config: Annotated[str | None, typer.Option(help="Configuration file, or the name of a packaged one.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key; may be repeated.")
    ] = None,
    workers: Annotated[str | None, typer.Option(help="auto, or how many.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items of the source.")] = None,
    max_hours: Annotated[float | None, typer.Option(min=0, help="End by then; the next call goes on.")] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="End after so many; the next call goes on.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the tars in OUT and start over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Cut the videos of SOURCE into the frames that a backfill with the same `media` settings would score."""
    overrides = list(set_ or [])
    if workers is not None:
        overrides.append(f"runtime.workers={workers}")
    settings = load_config(config, overrides)

    from moderation.runtime.keyframes import cut_keyframes  # heavy imports only once the call is right

    outcome = cut_keyframes(source, out, settings, limit=limit, fresh=fresh, max_hours=max_hours, max_items=max_items)
    summary = outcome.summary
    if as_json:
        typer.echo(json.dumps(summary, indent=1, ensure_ascii=False))
    else:
        if outcome.partial:
            typer.echo("Ended early, as asked; the same command goes on.")
        errors = "  ".join(f"{code} {count:,}" for code, count in summary["errors"].items())
        typer.echo(f"{summary['items']:,} items, {summary['frames']:,} frames, errors: {errors or 'none'}")
        typer.echo(
            f"next: moderation backfill {summary['out']}/tars --out ... --set source.type=webdataset"
            " --set source.keyframes=true"
        )
    if outcome.too_many_errors:
        Console(stderr=True).print(
            f"{outcome.error_rate:.1%} of the items are errors, more than runtime.max_error_rate"
            f" ({outcome.max_error_rate:.1%})",
            style="bold red",
        )
        raise typer.Exit(3)

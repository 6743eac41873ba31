"""`moderation keyframes`: cut videos into keyframe tars, on CPU nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from .options import (
    AllowPartialOption,
    ConfigOption,
    LimitOption,
    MaxHoursOption,
    MaxItemsOption,
    SetOption,
    WorkersOption,
    load_settings,
)
from .printing import (
    announce,
    counts_text,
    exit_on_no_media,
    exit_on_partial,
    exit_on_too_many_errors,
    print_json,
    print_line,
)


def keyframes(
    source: Annotated[str, typer.Argument(help="Prefix, glob, manifest or tars with videos; a path or s3://...")],
    out: Annotated[str, typer.Option(help="Folder or prefix; the tars come into OUT/tars.")],
    config: ConfigOption = None,
    set_: SetOption = None,
    workers: WorkersOption = None,
    limit: LimitOption = None,
    max_hours: MaxHoursOption = None,
    max_items: MaxItemsOption = None,
    allow_partial: AllowPartialOption = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the tars in OUT and start over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Cut the videos of SOURCE into the frames that a backfill with the same `media` settings would score."""
    settings = load_settings(config, set_, workers=workers)
    announce(source, out, settings, config)

    from moderation.results.paths import check_paths, holds_more

    check_paths(source, out, settings.source)

    from moderation.runtime.keyframes import cut_keyframes  # heavy imports only once the call is right

    outcome = cut_keyframes(source, out, settings, limit=limit, fresh=fresh, max_hours=max_hours, max_items=max_items)
    if as_json:
        print_json(outcome.summary)
    else:
        _print_summary(outcome.summary, partial=outcome.partial)
    exit_on_too_many_errors(outcome)
    exit_on_no_media(outcome.summary, partial=outcome.partial)
    if not allow_partial:
        exit_on_partial(outcome.partial or holds_more(source, settings.source, limit))


def _print_summary(summary: Mapping[str, Any], *, partial: bool) -> None:
    if partial:
        print_line("Ended early, as asked; the same command goes on.")
    errors = counts_text(summary["errors"])
    print_line(f"{summary['items']:,} items, {summary['frames']:,} frames, errors: {errors}")
    print_line(
        f"next: moderation backfill {summary['out']}/tars --out ... --set source.type=webdataset"
        " --set source.keyframes=true"
    )

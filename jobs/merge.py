"""`moderation merge`: makes one dataset of the slices of a backfill."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from .printing import print_json, print_line


def merge(
    out: Annotated[str, typer.Argument(help="The OUT of the slices.")],
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete parts of shards that no slice plans, instead of refusing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Check that all slices of OUT are done, and write the plan, summary and report of the whole."""
    from moderation.results.merge import merge_slices  # Arrow only once the call is right
    from moderation.results.occupancy import occupy
    from moderation.runtime.reporting import report_extras

    with occupy(out) if prune else nullcontext():
        summary = merge_slices(out, prune=prune, extras=report_extras())
    if as_json:
        print_json(summary)
        return
    counts = "  ".join(f"{verdict} {count:,}" for verdict, count in summary["verdicts"].items())
    print_line(f"{len(summary['slices'])} slices, {summary['shards']:,} shards, {summary['items']:,} items: {counts}")
    print_line(f"{summary['out']}/report.html")

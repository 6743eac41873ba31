"""`moderation status`: how far a run is, from its output alone."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from moderation.results.status import PartStatus, RunStatus


def status(
    out: Annotated[str, typer.Argument(help="The OUT of a run, or of its slices.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say how far the run in OUT is, at what rate, and with which errors. The cluster is not touched."""
    from moderation.results.status import read_status

    found = read_status(out, now_s=time.time())
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        return
    _print_status(found)


def _print_status(found: RunStatus) -> None:
    console = Console()
    table = Table(title=f"run {found.run_id or '(not begun)'}: {found.state}", show_header=False)
    table.add_row("items", _progress(found.items_done, found.items_total))
    if found.items_copied:
        table.add_row("copied", f"{found.items_copied:,} more, by content that was judged before")
    table.add_row("shards", _progress(found.shards_done, found.shards_total))
    rate = f"{found.items_per_s:,.1f} items/s" if found.items_per_s is not None else "not known yet"
    left = f", {_span(found.left_s)} left" if found.left_s is not None else ""
    table.add_row("rate", rate + left)
    age = found.last_receipt_age_s
    table.add_row("last commit", "none yet" if age is None else f"{_span(age)} ago")
    about = "" if found.exact else f"  (about: of {found.receipts_read:,} receipts)"
    for name, counts in (("verdicts", found.verdicts), ("errors", found.errors)):
        table.add_row(name, ("  ".join(f"{k} {n:,}" for k, n in counts.items()) or "none") + about)
    for part in found.parts:
        if part.slice is not None:
            table.add_row(f"slice {part.slice}", _part(part))
    if found.slices_missing:
        table.add_row("not begun", f"slices {', '.join(found.slices_missing)}")
    console.print(table)
    for part in found.parts:
        if part.error:
            console.print(f"{part.slice or 'run'}: {part.error}", style="bold red", markup=False, highlight=False)
    if found.seems_stuck:
        console.print(
            "It says that it runs, but has committed nothing for 15 minutes: is the job still there? The same command"
            " goes on with it.",
            style="bold red",
        )
    every = all(p.state == "done" for p in found.parts) and not found.slices_missing
    if every and any(p.slice is not None for p in found.parts) and not found.merged:
        console.print(f"All slices are done: moderation merge {found.out}", markup=False, highlight=False)


def _progress(done: int, total: int | None) -> str:
    if total is None:
        return f"{done:,} done; listing goes on"
    return f"{done:,} of {total:,}" + (f" ({done / total:.1%})" if total else "")


def _part(part: PartStatus) -> str:
    listing = "" if part.listing_ended else "+, listing"
    return f"{part.state or 'not begun'}  {part.items_done:,} of {part.items:,}{listing} items"


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

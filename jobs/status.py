"""`moderation status`: how far a run is, from its output alone."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from moderation.pages.text import escaped, span

from .printing import counts_text, plain_console, print_error, print_json, verdicts_text

if TYPE_CHECKING:
    from moderation.ledger.nights import NightsStatus, NightStatus
    from moderation.results.status import PartStatus, RunStatus


def status(
    out: Annotated[str, typer.Argument(help="The OUT of a run, of its slices, or of nights; or a ledger.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say how far the run in OUT is, at what rate, and with which errors. The cluster is not touched.

    Of the OUT of a nightly job, or of its ledger: the nights, their states, and what to do next.
    """
    from moderation.ledger.nights import read_nights
    from moderation.results.status import read_status

    nights = read_nights(out, ask_lease=True)
    if nights is not None:
        if as_json:
            print_json(asdict(nights))
        else:
            _print_nights(nights)
        return
    run_status = read_status(out, now_s=time.time())
    if as_json:
        print_json(asdict(run_status))
    else:
        _print_status(run_status)


def _print_nights(nights: NightsStatus) -> None:
    console = plain_console()
    more = f", the newest {len(nights.nights)}" if nights.nights_total > len(nights.nights) else ""
    rows = "" if nights.ledger_rows is None else f"; {nights.ledger_rows:,} rows in the ledger"
    noun = "night" if nights.nights_total == 1 else "nights"
    console.print(f"{nights.nights_total:,} {noun}{more}{rows}", style="bold")
    table = Table(box=None, pad_edge=False)
    for name in ("night", "state", "looked at", "verdicts"):
        table.add_column(name, overflow="fold")
    for night in nights.nights:
        table.add_row(night.night, night.state, _looked_at(night), _night_verdicts(night))
    console.print(table)
    for night in nights.nights:
        if night.error:
            print_error(f"{night.night}: {night.error}", console)
    console.print(nights.advice, soft_wrap=True)


def _looked_at(night: NightStatus) -> str:
    counts = {name: n for name, n in (night.counts or {}).items() if n and name != "looked_at"}
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def _night_verdicts(night: NightStatus) -> Text:
    shown = verdicts_text(night.verdicts) if night.verdicts and night.items else Text()
    if night.error_rate:
        shown.append(f"  {night.error_rate:.1%} errors", style="yellow")
    return shown


def _print_status(run_status: RunStatus) -> None:
    console = plain_console()
    console.print(_status_table(run_status))
    for part in run_status.parts:
        if part.error:
            print_error(f"{part.slice or 'run'}: {escaped(part.error)}", console)
    if run_status.seems_dead:
        print_error(
            "It says that it runs, but no job holds the lease on it: its job ended without saying so (killed, out of"
            " memory, a full disk, machine gone). The same command goes on with it.",
            console,
        )
    elif run_status.seems_stuck:
        print_error(
            "It says that it runs, but has committed nothing for 15 minutes: is the job still there? The same command"
            " goes on with it.",
            console,
        )
    if run_status.extension is not None:
        done = run_status.extension
        console.print(
            f"Detectors are being added (--extend): {done.state}, {_progress(done.items_done, done.items_total)} items"
        )
    if _ready_to_merge(run_status):
        console.print(f"All slices are done: moderation merge {escaped(run_status.out)}")


def _status_table(run_status: RunStatus) -> Table:
    table = Table(title=f"run {run_status.run_id or '(not begun)'}: {run_status.state}", show_header=False)
    table.add_row("items", _progress(run_status.items_done, run_status.items_total))
    if run_status.items_copied:
        table.add_row("copied", f"{run_status.items_copied:,} more, by content that was judged before")
    table.add_row("shards", _progress(run_status.shards_done, run_status.shards_total))
    table.add_row("rate", _rate(run_status))
    age_s = run_status.last_receipt_age_s
    if run_status.job is not None:
        table.add_row("job", escaped(run_status.job))
    table.add_row("last commit", "none yet" if age_s is None else f"{span(age_s)} ago")
    about = "" if run_status.exact else f"  (about: of {run_status.receipts_read:,} receipts)"
    table.add_row("verdicts", verdicts_text(run_status.verdicts).append(about))
    table.add_row("errors", counts_text(run_status.errors) + about)
    for part in run_status.parts:
        if part.slice is not None:
            table.add_row(f"slice {part.slice}", _slice_progress(part))
    if run_status.slices_missing:
        table.add_row("not begun", f"slices {', '.join(run_status.slices_missing)}")
    return table


def _ready_to_merge(run_status: RunStatus) -> bool:
    sliced = any(p.slice is not None for p in run_status.parts)
    done = all(p.state == "done" for p in run_status.parts) and not run_status.slices_missing
    return sliced and done and not run_status.merged


def _rate(run_status: RunStatus) -> str:
    rate = f"{run_status.items_per_s:,.1f} items/s" if run_status.items_per_s is not None else "not known yet"
    untold = run_status.left_s is None or run_status.seems_dead
    return rate if untold else f"{rate}, {span(run_status.left_s)} left"


def _progress(done: int, total: int | None) -> str:
    if total is None:
        return f"{done:,} done; listing goes on"
    return f"{done:,} of {total:,}" + (f" ({done / total:.1%})" if total else "")


def _slice_progress(part: PartStatus) -> str:
    listing = "" if part.listing_ended else "+, listing"
    return f"{part.state or 'not begun'}  {part.items_done:,} of {part.items:,}{listing} items"

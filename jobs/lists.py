"""`moderation lists`: what reviewers have decided becomes allow- and deny-lists."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from moderation import storage
from moderation.errors import UsageError
from moderation.pages.text import plain

from .options import parse_day
from .printing import plain_console, print_json, print_line, print_warnings

if TYPE_CHECKING:
    from moderation.analysis.learn import LearnedLists
    from moderation.analysis.sweep import Swept
    from moderation.lists.learned import LearnedEntry


def lists_learn(
    outs: Annotated[list[str], typer.Argument(help="Outputs of runs with decisions, or the folder of all nights.")],
    to: Annotated[str, typer.Option(metavar="FILE", help="The lists: .csv, .parquet or .arrow; written whole.")],
    near: Annotated[
        int, typer.Option(help="Bits of 256 in which a copy of a blocked picture may differ; -1: the same bytes alone.")
    ] = 15,
    near_pass: Annotated[
        int, typer.Option(help="The same for what was passed. A near copy may have been altered: mind the default.")
    ] = -1,
    days: Annotated[int, typer.Option(help="How long an entry counts after the decision; 0: without an end.")] = 365,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="URI", help="Runs or a ledger to which new and removed entries are applied."),
    ] = None,
    sweep_to: Annotated[str | None, typer.Option(help="Folder that gets the verdicts which that changes.")] = None,
    after: Annotated[
        list[str] | None, typer.Option(metavar="SWEEP", help="An earlier sweep whose verdicts hold; may be repeated.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Day by which entries have ended; default: today.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be learned, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make lists of all that reviewers have blocked and passed. A policy names the file; the next night goes by it."""
    _check_sweep(sweep, sweep_to)
    day = parse_day(as_of) or datetime.now(UTC).date()

    from moderation.analysis.learn import LearnRules, learn_lists
    from moderation.analysis.learn_sweep import sweep_learned
    from moderation.analysis.sweep import swept_as_json
    from moderation.lists.learned import write_learned

    rules = LearnRules(near=_bits(near), near_pass=_bits(near_pass), days=days or None)
    uri = storage.canonical(to)
    learned = learn_lists(outs, uri, rules, today=day, write=False)
    swept = None
    if sweep and sweep_to and not dry_run:
        swept = sweep_learned(
            learned.changed, sweep, sweep_to, near=rules.near, as_of=day, earlier=after or (),
            holding=learned.holding.values(),
        )  # fmt: skip
    if not dry_run:
        # After the sweep: what is new is told by the file, and a call whose sweep failed is made again.
        write_learned(uri, learned.listed)
    if as_json:
        told = {"to": uri, "entries": learned.entries, "counts": learned.counts, "ended": learned.ended,
                "added": len(learned.added), "removed": len(learned.removed), "close": learned.close,
                "unknown": learned.unknown, "dry_run": dry_run}  # fmt: skip
        print_json({**told, "swept": None if swept is None else swept_as_json(swept)})
        return
    _print(learned, swept)
    if not dry_run:
        _print_section(learned, near=rules.near, near_pass=rules.near_pass)


def _check_sweep(sweep: list[str] | None, sweep_to: str | None) -> None:
    if bool(sweep) != bool(sweep_to):
        raise UsageError("--sweep RUNS and --sweep-to URI go together")


def _bits(given: int) -> int | None:
    return None if given < 0 else given


def _print(learned: LearnedLists, swept: Swept | None) -> None:
    counts = ", ".join(f"{n:,} {what}" for what, n in learned.counts.items()) or "none"
    print_line(f"{learned.entries:,} entries: {counts}")
    print_line(f"{len(learned.added):,} new, {len(learned.removed):,} taken out, {learned.ended:,} have ended")
    for entry in learned.removed[:10]:
        print_line(f"  taken out: {entry.action} {entry.by} of {plain(entry.uri or entry.item_id)}")
    if swept is not None:
        print_line(f"{swept.changed:,} of {swept.items:,} stored verdicts change: {swept.to}/changes/")
    doubts = []
    if learned.close:
        doubts.append(f"{learned.close:,} blocked pictures are denied by their bytes alone: one near them was passed")
    if learned.unknown:
        doubts.append(f"{learned.unknown:,} decided items taught nothing: their content is not known")
    print_warnings(doubts)


def _print_section(learned: LearnedLists, *, near: int | None, near_pass: int | None) -> None:
    """Print the lists as a policy names them."""
    named = {"learned_block": "action: deny, by: content_hash", "learned_pass": "action: allow, by: content_hash"}
    if near is not None:
        named["learned_near"] = f"action: deny, by: pdq, distance: {near}"
    if near_pass is not None:
        named["learned_near_pass"] = f"action: allow, by: pdq, distance: {near_pass}"
    print_line("in a policy:")
    print_line("lists:")
    for name, words in named.items():
        print_line(f"  {name}: {{{words}, from: {learned.to}}}")


def lists_show(
    file: Annotated[str, typer.Argument(help="A file that `moderation lists learn` wrote.")],
    find: Annotated[
        str | None, typer.Option(help="Only entries with this in value, URI, item, reviewer, reason.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Entries that are shown.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the entries as JSON.")] = False,
) -> None:
    """Show what was learned: which decision made an entry, by whom, until when."""
    from dataclasses import asdict

    from moderation.lists.learned import read_learned

    uri = storage.canonical(file)
    entries = read_learned(uri)
    if entries is None:
        raise UsageError(f"{uri}: no such list")
    chosen = [entry for entry in entries if find is None or _has(entry, find)]
    if as_json:
        print_json([{**asdict(e), "until": e.until and str(e.until), "decided_at": str(e.decided_at)} for e in chosen])
        return
    console = plain_console(soft_wrap=True)
    for entry in chosen[:limit]:
        console.print(_described(entry))
        console.print(f"    {plain(entry.uri or entry.item_id)}")
    console.print(f"{len(chosen):,} of {len(entries):,} entries")


def _has(entry: LearnedEntry, text: str) -> bool:
    return any(text in value for value in (entry.value, entry.uri, entry.item_id, entry.reviewer, entry.reason))


def _described(entry: LearnedEntry) -> str:
    until = f"until {entry.until}" if entry.until else "without an end"
    reach = "" if entry.distance is None else f" within {entry.distance} bits"
    return f"{entry.action} {entry.by} {entry.value[:16]}{reach}, {until}: {plain(entry.reason)}"

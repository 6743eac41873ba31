"""`moderation sweep`: a new policy, list or decision applied to everything that was ever judged; reads no pictures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.errors import UsageError
from moderation.pages.text import plain

from .options import parse_day, resolve_policy_path
from .printing import counts_text, plain_console, print_json, print_line, print_warnings

if TYPE_CHECKING:
    from moderation.analysis.sweep import SweepChange, Swept
    from moderation.analysis.sweep_sources import SweepSources


def sweep(
    sources: Annotated[list[str], typer.Argument(help="Outputs of runs, folders of nights, or a ledger.")],
    to: Annotated[str | None, typer.Option(help="Folder or prefix that gets the changed verdicts.")] = None,
    policy: Annotated[str | None, typer.Option(help="A policy: its file, or the name of a packaged one.")] = None,
    list_: Annotated[
        str | None, typer.Option("--list", metavar="FILE", help="A list: .csv .tsv .txt .parquet .arrow.")
    ] = None,
    decision: Annotated[
        list[str] | None,
        typer.Option(metavar="ITEM", help="A decided item: its id, URI or the end of that; may be repeated."),
    ] = None,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="block|pass", help="With --decision: what is decided, here and now.")
    ] = None,
    action: Annotated[str, typer.Option(help="With --list: deny or allow.")] = "deny",
    by: Annotated[
        str | None, typer.Option(help="With --list: content_hash, pdq, owner, group, person, attribute.")
    ] = None,
    attribute: Annotated[str | None, typer.Option(help="With --by attribute: its name.")] = None,
    verdict: Annotated[str | None, typer.Option(help="With --list and deny: block or review.")] = None,
    distance: Annotated[int, typer.Option(help="Bits of 256 that a copy may differ in, to 47.")] = 31,
    block_distance: Annotated[
        int, typer.Option(help="With --decision: bits up to which a copy is blocked; beyond that it is reviewed.")
    ] = 15,
    quality: Annotated[int, typer.Option(min=0, max=100, help="Of a hash, from which it says something.")] = 50,
    embedding: Annotated[
        str, typer.Option(help="With --decision: whose kept embeddings find copies, too; auto, or none.")
    ] = "auto",
    similarity: Annotated[float, typer.Option(help="Least cosine of such a pair.")] = 0.85,
    after: Annotated[
        list[str] | None, typer.Option(metavar="SWEEP", help="An earlier sweep whose verdicts hold; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and write nothing.")] = False,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out runs that lack a vote or a policy, instead of refusing.")
    ] = False,
    as_of: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Day by which lists have ended; default: today.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Apply a policy, a list or decisions to all that runs have judged, and write the verdicts that change.

    The runs themselves stay as they are. Lists that end count as of today. The same command goes on where a killed one
    ended.
    """
    _check_call(to, dry_run=dry_run, given={"--policy": policy, "--list": list_, "--decision": decision or None})
    _check_decision(decision, as_)
    day = parse_day(as_of) or datetime.now(UTC).date()

    from moderation.analysis.learn_sweep import held_beside
    from moderation.analysis.sweep import SweepChange
    from moderation.analysis.sweep import sweep as sweep_all
    from moderation.analysis.sweep_by_decision import CopyLimits
    from moderation.analysis.sweep_lists import ListWords, read_swept_lists
    from moderation.analysis.sweep_sources import find_sources
    from moderation.analysis.sweep_targets import find_targets
    from moderation.lists.policy_file import load_whole_policy

    limits = CopyLimits(distance=distance, block_distance=min(block_distance, distance), quality=quality,
                        similarity=similarity)  # fmt: skip
    change: SweepChange
    found: SweepSources
    if policy is not None:
        path = resolve_policy_path(policy)
        change, found = SweepChange(name=str(path), policy=load_whole_policy(path)), find_sources(sources)
    elif list_ is not None:
        words = ListWords(action=action, by=by, verdict=verdict, attribute=attribute, distance=distance,
                          quality=quality)  # fmt: skip
        change, found = SweepChange(name=list_, lists=read_swept_lists(list_, words)), find_sources(sources)
        _print_lists(change, as_json=as_json)
    else:
        found = find_sources(sources)
        kept = None if embedding == "none" else embedding
        targets = tuple(find_targets(found, decision or (), as_, embedding=kept))
        targets += tuple(held_beside(targets, [run.out for run in found.runs], after or ()))
        change = SweepChange(name=", ".join(decision or ()), targets=targets, limits=limits)
    swept = sweep_all(
        found, change, None if dry_run else to, as_of=day, earlier=after or (), leave_out=leave_out, workers=workers
    )
    _show(swept, dry_run=dry_run, as_json=as_json)


def _print_lists(change: SweepChange, *, as_json: bool) -> None:
    """Say how a file was read: a hash and a content look alike."""
    for name, rule in (change.lists or {}).items() if not as_json else ():
        reach = "" if rule.distance is None else f" within {rule.distance} bits"
        print_line(f"list {name}: {rule.action} by {rule.by}{reach}, {len(rule.entries or ()):,} entries")


def _show(swept: Swept, *, dry_run: bool, as_json: bool) -> None:
    from moderation.analysis.sweep import swept_as_json

    if as_json:
        print_json({**swept_as_json(swept), "dry_run": dry_run})
    else:
        _print(swept, dry_run=dry_run)
    print_warnings(_doubts(swept))


def _check_call(to: str | None, *, dry_run: bool, given: dict[str, object]) -> None:
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        told = f"; given are {' and '.join(named)}" if named else ""
        raise UsageError(f"name one of --policy FILE, --list FILE, --decision ITEM{told}")
    if to is None and not dry_run:
        raise UsageError("--to URI: where the changed verdicts are written; or --dry-run, which writes nothing")


def _check_decision(decision: list[str] | None, as_: str | None) -> None:
    from moderation.config.hints import did_you_mean

    if as_ is not None and not decision:
        raise UsageError("--as says what --decision ITEM decides: name an item")
    if as_ not in (None, "block", "pass"):
        raise UsageError(f"--as {as_!r}: must be block or pass{did_you_mean(as_, ('block', 'pass'))}")


def _print(swept: Swept, *, dry_run: bool) -> None:
    console = plain_console(soft_wrap=True)  # names come from strangers
    would = "would change" if dry_run else "change"
    console.print(f"{swept.items:,} stored items, {swept.changed:,} verdicts {would}")
    for (before, after), items in sorted(swept.moved.items()):
        console.print(f"  {before} -> {after}: {items:,}")
    for run, moved in list(swept.by_run.items())[:20]:
        console.print(f"{plain(run)}: {counts_text(moved)}")
    if len(swept.by_run) > 20:
        console.print(f"and {len(swept.by_run) - 20:,} more runs")
    for (before, after), items in list(swept.rules.items())[:20]:
        console.print(f"{plain(before)} -> {plain(after)}: {items:,}")
        for row in swept.examples.get((before, after), []):
            apart = "" if row["distance"] is None else f", {row['distance']:g}"
            console.print(f"    {plain(row['uri'])}  ({row['relation']}{apart})")
    if swept.to is not None:
        print_line(f"{swept.to}/changes/")


def _doubts(swept: Swept) -> list[str]:
    from moderation.results.certificates import describe_certification

    doubts = [f"{plain(out)} is left out: {plain(why)}" for out, why in list(swept.left_out.items())[:10]]
    doubts += [
        f"{plain(out)} is gone with {items:,} items of the ledger" for out, items in list(swept.lost.items())[:10]
    ]
    if swept.unread:
        doubts.append(f"{swept.unread_parts:,} parts could not be read and were not swept: {plain(swept.unread[0])}")
    doubts += list(
        dict.fromkeys(plain(line) for said in swept.certificates.values() for line in describe_certification(said))
    )
    if swept.kept:
        doubts.append(f"{swept.kept:,} items keep the verdict that a person has given")
    return doubts

"""`moderation act`: what is done to the objects of a run after its verdicts: tags, copies, manifests, webhooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.errors import UsageError

from .printing import print_error, print_json, print_line

if TYPE_CHECKING:
    from moderation.actions.act import ActReport


def act(
    out: Annotated[str, typer.Argument(help="Output of a run, or the folder of a sweep.")],
    actions: Annotated[str, typer.Option("--actions", metavar="FILE", help="What is done to which rows: docs/act.md.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, by the tables alone; change nothing.")
    ] = False,
    undo: Annotated[
        str | None, typer.Option(metavar="RUN", help="Take back what was done for this run (its id) instead.")
    ] = None,
    item: Annotated[
        list[str] | None, typer.Option(metavar="ITEM", help="Of --undo: only this item, by id or URI; repeatable.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was undone.")] = False,
    uncertified: Annotated[
        bool, typer.Option("--uncertified", help="Also what rests on a certificate that has ended.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Do what FILE says to the objects of OUT, each once, with a receipt in OUT/actions/.

    The same command goes on where a killed one ended. An object that is no longer the judged one is left alone.
    """
    if item and undo is None:
        raise UsageError("--item belongs to --undo")
    if undo is not None and (again or uncertified):
        raise UsageError(f"{'--again' if again else '--uncertified'} does not belong to --undo")

    from moderation.actions.act import ActOptions
    from moderation.actions.of_run import act_on_run, undo_run

    if undo is not None:
        undone = undo_run(out, actions, undo, items=item or (), dry_run=dry_run)
        _end(asdict(undone), undone.counts, undone.reasons, undone.unfinished, as_json=as_json, dry_run=dry_run)
        return
    acted = act_on_run(out, actions, ActOptions(again=again, uncertified=uncertified), dry_run=dry_run)
    report = acted.report
    if not as_json:
        _print_report(acted.run_id, report, dry_run=dry_run)
    facts = {"run_id": acted.run_id, **asdict(report)}
    _end(facts, report.counts, report.reasons, report.unfinished, as_json=as_json, dry_run=dry_run)


def _print_report(run_id: str, report: ActReport, *, dry_run: bool) -> None:
    print_line(f"run {run_id}, {report.rows:,} rows" + (" (nothing was changed)" if dry_run else ""))
    if report.escalated:
        print_line(f"{report.escalated:,} escalated rows are left to the operator: see docs/illegal.md")
    for name, uris in report.examples.items():
        print_line(f"{name}: for example {', '.join(uris)}")
    for name, count in report.skipped.items():
        print_line(f"{name}: {count:,} done or undone before")
    for name in report.stopped:
        print_error(f"{name}: its address answers nothing any more; the rest was left for another call")


def _end(
    facts: Mapping[str, object],
    counts: Mapping[str, Counter[str]],
    reasons: Mapping[str, str],
    unfinished: int,
    *,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Print counts, and exit with 3 where something was refused or failed."""
    if as_json:
        print_json(facts)
    else:
        for name, states in counts.items():
            print_line(f"{name}: " + ", ".join(f"{count:,} {state}" for state, count in sorted(states.items())))
        if not counts:
            print_line("nothing to do")
        for code, detail in reasons.items():
            print_line(f"  {code}: {detail}")
    if unfinished and not dry_run:
        print_error(f"{unfinished:,} were refused or failed: see OUT/actions/")
        raise typer.Exit(3)

"""`moderation nightly`: judge what is new or changed since the last night."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from moderation.config.load import load_config
from moderation.storage.lease import LEASE_S, MIN_LEASE_S


def nightly(
    source: Annotated[str, typer.Argument(help="What to list: as for backfill.")],
    ledger: Annotated[str, typer.Option(help="Folder or prefix of the ledger: what earlier nights have judged.")],
    out: Annotated[str, typer.Option(help="Folder or prefix; each night writes a folder of its own below it.")],
    config: Annotated[str | None, typer.Option(help="Configuration file, or the name of a packaged one.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy file, instead of the configuration's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key; may be repeated.")
    ] = None,
    workers: Annotated[str | None, typer.Option(help="auto, or how many.")] = None,
    rejudge_older: Annotated[
        bool, typer.Option("--rejudge-older", help="Judge again what another stack or policy has judged.")
    ] = False,
    judge_copies: Annotated[
        bool, typer.Option("--judge-copies", help="Judge each name, also where its content is known by MD5 or sha256.")
    ] = False,
    keep_missing: Annotated[
        bool, typer.Option("--keep-missing", help="SOURCE lists only what is new: mark nothing as deleted.")
    ] = False,
    lease_s: Annotated[
        float, typer.Option(min=MIN_LEASE_S, help="A job that died blocks the next one for so many seconds.")
    ] = LEASE_S,
    max_hours: Annotated[float | None, typer.Option(min=0, help="End by then; the next call goes on.")] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="End after so many; the next call goes on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summaries as JSON, one a line.")] = False,
) -> None:
    """Judge what of SOURCE is new or changed since LEDGER, into OUT/<night>/. An unfinished night is finished first."""
    overrides = list(set_ or [])
    if workers is not None:
        overrides.append(f"runtime.workers={workers}")
    if policy is not None:
        overrides.append(f"policy={json.dumps(policy)}")
    settings = load_config(config, overrides)

    from moderation.ledger.difference import Choice  # heavy imports only once the call is right
    from moderation.runtime.nightly import nightly as run_nightly

    console = Console(soft_wrap=True, markup=False, highlight=False)
    outcomes = run_nightly(
        source,
        ledger,
        out,
        settings,
        choice=Choice(rejudge_older=rejudge_older, judge_copies=judge_copies, keep_missing=keep_missing),
        lease_s=lease_s,
        max_hours=max_hours,
        max_items=max_items,
        note=Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print,
    )
    for outcome in outcomes:
        if as_json:
            typer.echo(json.dumps(outcome.summary, ensure_ascii=False))
        else:
            for line in describe(outcome.summary, partial=outcome.partial):
                console.print(line)
    if any(outcome.too_many_errors for outcome in outcomes):
        Console(stderr=True).print("more items than runtime.max_error_rate are errors", style="bold red")
        raise typer.Exit(3)


def describe(summary: Mapping[str, Any], *, partial: bool) -> list[str]:
    """A night in a few lines."""
    night = summary["nightly"]
    count = {name: value for name, value in night.items() if isinstance(value, int) and not isinstance(value, bool)}
    lines = [f"night {night['night']}{' (resumed)' if night['resumed'] else ''}"]
    if night["listing_ended"]:
        named = ("new", "changed", "retried", "rejudged", "unchanged", "returned", "deleted")
        told = ", ".join(f"{count.get(name, 0):,} {name}" for name in named if count.get(name) or name == "new")
        lines.append(f"looked at {count.get('looked_at', 0):,} objects: {told}")
    if partial:
        lines.append(f"ended early, as asked, after {summary['items']:,} items; the same command goes on")
    if not summary["items"] and not partial:
        lines.append("nothing new: nothing was judged")
    else:
        verdicts = "  ".join(f"{name} {n:,}" for name, n in summary["verdicts"].items())
        lines.append(f"{summary['items']:,} rows: {verdicts}")
    if count.get("same_content"):
        lines.append(f"{count['same_content']:,} of them took over the verdict of the same content under another name")
    if count.get("older"):
        advice = "--rejudge-older judges them again"
        lines.append(f"{count['older']:,} known objects were judged by another stack or policy: {advice}")
    if count.get("unversioned"):
        lines.append(f"{count['unversioned']:,} are known by name alone: the source tells no version of them")
    return [*lines, f"{summary['out']}/report.html"]

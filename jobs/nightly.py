"""`moderation nightly`: judge what is new or changed since the last night."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from moderation import storage
from moderation.pages.text import escaped
from moderation.storage.claims import MAX_LEASE_S
from moderation.storage.lease import LEASE_S, MIN_LEASE_S

from .escalations import check_escalations, tell_escalations
from .options import (
    AllowPartialOption,
    BundleOption,
    ConfigOption,
    MaxHoursOption,
    MaxItemsOption,
    PolicyOption,
    SetOption,
    StoreOption,
    WorkersOption,
    load_bundle_settings,
)
from .printing import (
    announce,
    exit_on_no_media,
    exit_on_partial,
    plain_console,
    print_doubts,
    print_error,
    print_json,
)


def nightly(
    source: Annotated[str, typer.Argument(help="What to list: as for backfill.")],
    ledger: Annotated[str, typer.Option(help="Folder or prefix of the ledger: what earlier nights have judged.")],
    out: Annotated[str, typer.Option(help="Folder or prefix; each night writes a folder of its own below it.")],
    config: ConfigOption = None,
    policy: PolicyOption = None,
    bundle: BundleOption = None,
    bundles: StoreOption = None,
    set_: SetOption = None,
    workers: WorkersOption = None,
    rejudge_older: Annotated[
        bool, typer.Option("--rejudge-older", help="Judge again what another stack or policy has judged.")
    ] = False,
    judge_copies: Annotated[
        bool | None,
        typer.Option(
            "--judge-copies/--inherit-copies",
            help="Judge each name, or take over the verdict of the same content, by MD5 or sha256."
            " Of a prefix the default is to take over, of manifests, tars and tables to judge.",
        ),
    ] = None,
    keep_missing: Annotated[
        bool, typer.Option("--keep-missing", help="SOURCE lists only what is new: mark nothing as deleted.")
    ] = False,
    lease_s: Annotated[
        float,
        typer.Option(min=MIN_LEASE_S, max=MAX_LEASE_S, help="A job that died blocks the next one for so many seconds."),
    ] = LEASE_S,
    max_hours: MaxHoursOption = None,
    max_items: MaxItemsOption = None,
    allow_partial: AllowPartialOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summaries as JSON, one per line.")] = False,
) -> None:
    """Judge what of SOURCE is new or changed since LEDGER, into OUT/<night>/. An unfinished night is finished first."""
    settings = load_bundle_settings(bundle, bundles, config, set_, workers=workers, policy=policy)
    check_escalations(settings.escalations)
    announce(source, out, settings, config)

    from moderation.planning.apart import check_apart
    from moderation.sources import open_source

    check_apart(source, out)
    check_apart(source, ledger, "--ledger")
    open_source(storage.canonical(source), settings.source)

    from moderation.ledger.difference import Choice  # heavy imports only once the call is right
    from moderation.runtime.nightly import nightly as run_nightly

    outcomes = run_nightly(
        source,
        ledger,
        out,
        settings,
        choice=Choice(rejudge_older=rejudge_older, judge_copies=judge_copies, keep_missing=keep_missing),
        lease_s=lease_s,
        max_hours=max_hours,
        max_items=max_items,
        note=plain_console(stderr=True, soft_wrap=True).print,
    )
    for outcome in outcomes:
        tell_escalations(outcome.summary, settings.escalations)
        if as_json:
            print_json(outcome.summary, indent=None)
        else:
            plain_console(soft_wrap=True).print("\n".join(describe(outcome.summary, partial=outcome.partial)))
        print_doubts(outcome.summary)
    if any(outcome.too_many_errors for outcome in outcomes):
        print_error("more items than runtime.max_error_rate are errors: see the night's report.html")
        raise typer.Exit(3)
    for outcome in outcomes:
        counts = outcome.summary["nightly"]
        # A night with only a README new is normal; a source that holds nothing else is not.
        if counts.get("looked_at") and counts.get("looked_at") == counts.get("new"):
            exit_on_no_media(outcome.summary, partial=outcome.partial)
    if not allow_partial:
        exit_on_partial(any(outcome.partial for outcome in outcomes))


# What became of the objects that were looked at; `new` is printed even when it is 0.
_DIFFERENCES = ("new", "changed", "retried", "rejudged", "reattributed", "unchanged", "returned", "deleted")
# Counter -> what to print for it, if it is not 0.
_REMARKS = {
    "same_content": "{:,} of them took over the verdict of the same content under another name",
    "reattributed": "{:,} have other attributes that the policy reads: judged again from their stored votes",
    "older": "{:,} known objects were judged by another stack or policy: --rejudge-older judges them again",
    "unversioned": "{:,} are known by name alone: the source tells no version of them",
}


def describe(summary: Mapping[str, Any], *, partial: bool) -> list[str]:
    """A night in a few lines."""
    night = summary["nightly"]
    lines = [f"night {night['night']}{' (resumed)' if night['resumed'] else ''}"]
    if night["listing_ended"]:
        counts = [f"{night.get(n) or 0:,} {n}" for n in _DIFFERENCES if night.get(n) or n == "new"]
        lines.append(f"looked at {night.get('looked_at', 0):,} objects: {', '.join(counts)}")
    lines += _judged_lines(summary, partial=partial)
    lines += [remark.format(night[name]) for name, remark in _REMARKS.items() if night.get(name)]
    return [*lines, escaped(summary["out"] if summary.get("quiet") else f"{summary['out']}/report.html")]


def _judged_lines(summary: Mapping[str, Any], *, partial: bool) -> list[str]:
    early = f"ended early, as asked, after {summary['items']:,} items; the same command goes on"
    if not summary["items"] and not partial:
        return ["nothing new: nothing was judged"]
    verdicts = "  ".join(f"{name} {count:,}" for name, count in summary["verdicts"].items())
    return [*([early] if partial else []), f"{summary['items']:,} rows: {verdicts}"]

"""`moderation transparency`: the numbers of a transparency report, over several runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.pages.text import percent

from .printing import counts_text, print_json, print_line

if TYPE_CHECKING:
    from moderation.review.transparency import TransparencyReport


def transparency(
    outs: Annotated[list[str], typer.Argument(metavar="OUT...", help="Outputs of runs and of sweeps.")],
    mapping: Annotated[
        str | None, typer.Option(metavar="FILE", help="Categories by check, as of export --format dsa.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Count what was restricted, by whom, what became of appeals, and what certificates say of errors."""
    from moderation.review.transparency import report_transparency

    report = report_transparency(outs, mapping)
    if as_json:
        print_json({**asdict(report), "automated_share": report.automated_share})
    else:
        _print_report(report)


def _print_report(report: TransparencyReport) -> None:
    print_line(f"{len(report.runs):,} runs, {report.items:,} items, {report.restricted:,} of them restricted")
    if report.escalated:
        print_line(f"{report.escalated:,} matches with an illegal list, not among these")
    if report.unknown:
        print_line(f"{report.unknown:,} blocked by a sweep, whose run is gone or was changed: not among these")
    print_line(f"by category: {counts_text(report.categories)}")
    print_line(f"decided by the machine alone: {percent(report.automated_share)} of the restrictions")
    print_line(f"  {counts_text(report.automation)}")
    print_line(f"people decided {report.by_people:,} items, and {report.overturned:,} of them against the machine")
    hours = report.hours_to_decision
    print_line(f"median time from the run to their answer: {'unknown' if hours is None else f'{hours:,.1f} h'}")
    print_line(
        f"appeals: {report.appeals:,}, {report.appeals_upheld:,} with the decision upheld,"
        f" {report.appeals_overturned:,} overturned, {report.appeals_open:,} open"
    )
    for rate in report.certificates:
        print_line(
            f"{rate.run}: {rate.action}: at most {percent(rate.bound)} wrong (risk {percent(rate.risk)}):"
            f" {rate.errors:,} of {rate.labels:,} labels, until {rate.expires}"
        )
    if not report.certificates:
        print_line("no certificates: nothing is known of the rate of errors")

"""`moderation report`: the page of a run written again, of two runs side by side, or of the nights of a nightly job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.errors import UsageError
from moderation.pages.text import escaped

from .printing import plain_console, print_json, print_line

if TYPE_CHECKING:
    from moderation.results.comparison import RunComparison


def report(
    outs: Annotated[
        list[str], typer.Argument(metavar="OUT [OUT2]", help="Output of a run, or of a nightly job; two are compared.")
    ],
    to: Annotated[str | None, typer.Option(help="Where the page goes; default: in OUT, of a comparison OUT2.")] = None,
    against: Annotated[str | None, typer.Option(help="Output of the earlier run that the report names.")] = None,
    thumbnails: Annotated[
        int | None, typer.Option(min=0, max=200, help="Pictures of the queue, blurred until chosen.")
    ] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(min=0, help="In any currency.")] = None,
    object_url: Annotated[
        str | None, typer.Option(metavar="TEMPLATE", help="Page of an object in a bucket, with {bucket} and {key}.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Of a comparison: print the numbers as JSON.")] = False,
) -> None:
    """Write report.html of OUT again, or hold two runs side by side: what moved, which scores are other ones.

    Of the OUT of a nightly job: the page of its last thirty nights. Verdicts and numbers stay as they are.
    """
    given = {"thumbnails": thumbnails, "price_per_gpu_hour": price_per_gpu_hour, "object_url": object_url}
    settings = {name: value for name, value in given.items() if value is not None}
    _check_call(outs, list(settings) + (["against"] if against else []), as_json=as_json)

    from moderation.runtime.reporting import write_comparison, write_one_report  # Arrow only once the call is right

    if len(outs) == 1:
        print_line(write_one_report(outs[0], settings=settings, against=against, to=to))
        return
    page, comparison = write_comparison(outs[0], outs[1], to)
    if as_json:
        print_json(_as_json(comparison))
    else:
        _print(comparison)
    plain_console(stderr=as_json).print(escaped(page), soft_wrap=True)


def _check_call(outs: Sequence[str], given: Sequence[str], *, as_json: bool) -> None:
    """Raises UsageError where options and runs do not fit one another."""
    if len(outs) > 2:
        raise UsageError(f"{len(outs)} runs; one is reported, two are compared")
    if as_json and len(outs) == 1:
        raise UsageError("--json is of a comparison; summary.json has the numbers of one run")
    if len(outs) == 2 and given:
        raise UsageError(f"--{given[0].replace('_', '-')} is of the report of one run, not of a comparison")


def _as_json(comparison: RunComparison) -> dict[str, object]:
    return {
        "first": comparison.first.out,
        "second": comparison.second.out,
        "shared": comparison.shared,
        "first_only": comparison.first_only,
        "second_only": comparison.second_only,
        "same": comparison.same,
        "moved": {f"{m.before or 'skipped'} -> {m.after or 'skipped'}": m.items for m in comparison.moves},
    }


def _print(comparison: RunComparison) -> None:
    console = plain_console()
    moved = comparison.shared - comparison.same
    console.print(f"{moved:,} of {comparison.shared:,} common items moved", style="bold")
    for move in comparison.moves:
        console.print(f"  {move.before or 'skipped'} -> {move.after or 'skipped'}: {move.items:,}")
    if comparison.first_only or comparison.second_only:
        console.print(f"only in the first {comparison.first_only:,}, only in the second {comparison.second_only:,}")

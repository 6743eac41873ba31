"""`moderation drift`: whether scores are distributed as in a reference run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.pages.text import UNKNOWN, escaped, percent

from .printing import plain_console, print_json

if TYPE_CHECKING:
    from moderation.evaluation.drift import ScoreDrift


def drift(
    out: Annotated[str, typer.Argument(help="Output of a run, or of a night.")],
    against: Annotated[str, typer.Option(help="Output of the run that it is held against.")],
    all_: Annotated[bool, typer.Option("--all", help="Also scores that did not change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as JSON.")] = False,
) -> None:
    """Hold every score of OUT against a reference run: population stability, and a test corrected for their number."""
    from moderation.evaluation.drift import compare_runs  # heavy imports only once the call is right

    drifts = compare_runs(against, out)
    if as_json:
        print_json([asdict(one) for one in drifts])
        return
    changed = [one for one in drifts if one.state != "stable"]
    table = Table()
    for name in ("score", "state", "stability index", "p", "mean then", "mean now", "not asked then", "not asked now"):
        table.add_column(name, justify="left" if name in ("score", "state") else "right")
    for one in drifts if all_ else changed:
        table.add_row(*_cells(one))
    console = plain_console()
    if table.row_count:
        console.print(table)
    few = sum(one.state == "too few" for one in drifts)
    console.print(
        f"{len(changed) - few:,} of {len(drifts):,} scores are not stable"
        + (f"; of {few:,} there are too few items to say" if few else "")
    )


def _cells(one: ScoreDrift) -> tuple[str, ...]:
    numbers = (_number(value) for value in (one.stability, one.p, one.reference_mean, one.mean))
    return (escaped(one.name), one.state, *numbers, percent(one.reference_nulls), percent(one.nulls))


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"

"""`moderation verify`: whether OUT holds what was committed, and all that was planned."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .printing import plain_console, print_error, print_json

if TYPE_CHECKING:
    from moderation.results.verify import Verification

_MAX_SHOWN = 50


def verify(
    out: Annotated[str, typer.Argument(help="The OUT of a run, of its slices, or of one night.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Take back what is amiss: the command of the run judges it again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Compare every part in OUT with its receipt, and the receipts with the plan. Exit code 1: something is amiss."""
    from moderation.results.occupancy import occupy  # Arrow only once the call is right
    from moderation.results.verify import verify_output

    with occupy(out) if repair else nullcontext():
        found = verify_output(out, repair=repair)
    if as_json:
        print_json(asdict(found) | {"well": found.well})
    else:
        _print(found)
    if not found.well:
        raise typer.Exit(1)


def _print(found: Verification) -> None:
    for finding in found.findings[:_MAX_SHOWN]:
        print_error(finding.sentence)
    if len(found.findings) > _MAX_SHOWN:
        print_error(f"and {len(found.findings) - _MAX_SHOWN:,} more; --json tells all")
    for note in found.notes:
        plain_console(stderr=True, soft_wrap=True).print(f"note: {note}", style="yellow")
    lines = [f"{found.shards_committed:,} of {found.shards_planned:,} shards, {found.parts:,} parts"]
    if found.well:
        lines.append("all as they were committed")
    elif found.repaired:
        lines.append(f"{len(found.repaired):,} shards taken back: the same command of the run judges them again")
    plain_console(soft_wrap=True).print(": ".join(lines))

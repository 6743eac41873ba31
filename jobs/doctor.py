"""`moderation doctor`: whether all is here that a run needs, and what to do where it is not."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import ConfigOption, SetOption, load_settings
from .printing import plain_console, print_lines


def doctor(
    uris: Annotated[
        list[str] | None, typer.Argument(metavar="[URI]...", help="Sources or outputs to reach; each is listed once.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at versions, devices, weights, decoders, storage and space. Exit code 2 when a run would not succeed."""
    settings = load_settings(config, set_)

    from moderation.doctor import diagnose, findings_as_json, render_findings  # heavy: imports torch

    findings = diagnose(settings, list(uris or []))
    stopping = [f for f in findings if f.stops_a_run]
    if as_json:
        print_lines(findings_as_json(findings))
    else:
        console = plain_console()
        console.print(render_findings(findings))
        what = ", ".join(f.name for f in stopping)
        console.print(f"\nTo mend first: {what}" if stopping else "\nReady.")
    if stopping:
        raise typer.Exit(2)

"""`moderation smoke`: tells in one line whether this site works."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .options import ConfigOption, PolicyOption, SetOption, WorkersOption, load_settings
from .printing import announce, plain_console, print_json


def smoke(
    out: Annotated[str, typer.Option(help="Folder or prefix for 25 drawn pictures and their verdicts.")],
    config: ConfigOption = None,
    policy: PolicyOption = None,
    set_: SetOption = None,
    workers: WorkersOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Judge 25 drawn pictures: proves storage, workers, device and weights. Exit code 0: all is well."""
    settings = load_settings(config, set_, workers=workers, policy=policy)
    announce(f"{out.rstrip('/')}/in", out, settings, config)

    from moderation.runtime.smoke import smoke as try_site  # heavy imports only once the call is right

    report = try_site(out, settings)
    if as_json:
        print_json(asdict(report))
    else:
        plain_console(soft_wrap=True).print(report.sentence, style="green")

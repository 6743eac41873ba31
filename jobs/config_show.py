"""`moderation config show`: the effective configuration, every key explained."""

from __future__ import annotations

from typing import Annotated

import typer

from moderation.config.load import load_config
from moderation.config.show import show_config


def config_show(
    config: Annotated[str | None, typer.Option(help="Configuration file, or the name of a packaged one.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, without the explanations.")] = False,
) -> None:
    """Print the configuration that a run would have, as YAML that can be saved and used as --config."""
    settings = load_config(config, list(set_ or []))
    typer.echo(settings.model_dump_json(indent=1) if as_json else show_config(settings), nl=as_json)

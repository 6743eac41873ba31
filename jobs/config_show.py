"""`moderation config show`: the effective configuration, every key explained."""

from __future__ import annotations

from typing import Annotated

import typer

from moderation.config.show import show_config

from .options import ConfigOption, SetOption, load_settings


def config_show(
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, without the explanations.")] = False,
) -> None:
    """Print the configuration that a run would have, as YAML that can be saved and used as --config."""
    settings = load_settings(config, set_)
    typer.echo(settings.model_dump_json(indent=1) if as_json else show_config(settings), nl=as_json)

"""`moderation config show`: the effective configuration, with every key explained, or with where it was set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from moderation.config.load import load_layers
from moderation.config.show import show_config, show_origins
from moderation.errors import UsageError

from .options import ConfigOption, PolicyOption, SetOption, load_settings, said_overrides
from .printing import print_json, print_line, print_lines


def config_show(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    set_: SetOption = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="Each key with its value and the file and line that says it.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --origin: also what stands at its default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, without the explanations.")] = False,
) -> None:
    """Print the configuration that a run would have, as YAML that can be saved and used as --config."""
    if everything and not origin:
        raise UsageError("--all says what --origin shows: add --origin")
    if origin:
        _print_origins(config, said_overrides(set_, policy=policy), everything=everything, as_json=as_json)
        return
    settings = load_settings(config, set_, policy=policy)
    if as_json:
        print_json(settings.model_dump(mode="json"))
    else:
        print_lines(show_config(settings).rstrip("\n"))


def _print_origins(config: str | None, overrides: Sequence[str], *, everything: bool, as_json: bool) -> None:
    settings, layered = load_layers(config, overrides)
    rows = [row for row in show_origins(settings, layered) if everything or row[2] != "default"]
    if as_json:
        print_json([{"key": key, "value": value, "origin": where} for key, value, where in rows])
        return
    width = max((len(where) for _, _, where in rows), default=0)
    for key, value, where in rows:
        print_line(f"{where:{width}}  {key}: {value}")

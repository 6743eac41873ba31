"""Options that several jobs have, and the configuration that they add up to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from moderation.config.hints import did_you_mean
from moderation.config.load import load_config, packaged_configs, resolve_config_path
from moderation.config.model import Config
from moderation.errors import UsageError

ConfigOption = Annotated[str | None, typer.Option(help="Configuration file, or the name of a packaged one.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key; may be repeated.")
]
PolicyOption = Annotated[str | None, typer.Option(help="Policy file, instead of the configuration's.")]
WorkersOption = Annotated[str | None, typer.Option(help="auto, or how many.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first items of the source.")]
MaxHoursOption = Annotated[float | None, typer.Option(min=0, help="End by then; the next call goes on.")]
MaxItemsOption = Annotated[int | None, typer.Option(min=1, help="End after so many; the next call goes on.")]
VariantOption = Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")]

AsOfOption = Annotated[
    str | None, typer.Option(metavar="YYYY-MM-DD", help="Day by which lists have ended; default: that of the run.")
]


def parse_day(text: str | None) -> date | None:
    """The day of `--as-of`. Raises UsageError."""
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--as-of {text!r}: not a date like 2026-12-31") from error


def resolve_policy_path(name: str) -> Path:
    """A policy file, or a packaged one by its name: `default.yaml` is a configuration, too, which is not meant.

    Raises UsageError naming the nearest.
    """
    folder = packaged_configs() / "policies"
    if Path(name).is_file():
        return Path(name)
    known = sorted(path.name for path in folder.glob("*.yaml"))
    if name in known:
        return folder / name
    try:
        return resolve_config_path(name)
    except UsageError as error:
        hint = did_you_mean(name, known, otherwise="packaged", cutoff=0.5)
        raise UsageError(f"no policy {name!r}{hint}") from error


def load_settings(
    config: str | None,
    overrides: Sequence[str] | None,
    *,
    workers: str | None = None,
    policy: str | None = None,
) -> Config:
    """The configuration that a call asks for. Raises UsageError."""
    by_option = []
    if workers is not None:
        by_option.append(f"runtime.workers={workers}")
    if policy is not None:
        by_option.append(f"policy={json.dumps(policy)}")
    return load_config(config, [*(overrides or ()), *by_option])

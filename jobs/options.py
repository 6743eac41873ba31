"""Options that several jobs have, and the configuration that they add up to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from moderation.config.load import load_config
from moderation.config.model import Config

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

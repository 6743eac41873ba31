"""What jobs print: text as it is, errors on one line, JSON and counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import typer
from rich.console import Console


class EndedRun(Protocol):
    """What the exit code of a run depends on."""

    @property
    def too_many_errors(self) -> bool:
        """Whether more of the items are errors than `runtime.max_error_rate` allows."""
        ...

    @property
    def error_rate(self) -> float:
        """Share of the items that are errors."""
        ...

    @property
    def max_error_rate(self) -> float:
        """The share that is allowed."""
        ...


def plain_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console that takes text as it is: names come from strangers, and `negative:mask:block` holds no picture."""
    return Console(markup=False, highlight=False, emoji=False, stderr=stderr, soft_wrap=soft_wrap)


def print_error(message: str, console: Console | None = None) -> None:
    """An error, on one line of standard error (or of `console`)."""
    console = console or plain_console(stderr=True)
    console.print(message, style="bold red", markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_json(value: object, *, indent: int | None = 1) -> None:
    """JSON on standard output."""
    typer.echo(json.dumps(value, indent=indent, ensure_ascii=False))


def exit_on_too_many_errors(outcome: EndedRun) -> None:
    """Exit code 3, and why, when more items are errors than the configuration allows."""
    if outcome.too_many_errors:
        print_error(
            f"{outcome.error_rate:.1%} of the items are errors, more than runtime.max_error_rate"
            f" ({outcome.max_error_rate:.1%})"
        )
        raise typer.Exit(3)


def exit_on_no_media(summary: Mapping[str, Any], *, partial: bool = False) -> None:
    """Exit code 3, and why, when nothing that was looked at is a picture or a video: most likely a wrong SOURCE."""
    items = summary.get("items", 0)
    if items and not partial and summary.get("errors", {}).get("not_media", 0) == items:
        print_error(
            f"none of the {items:,} items of {summary.get('source', 'SOURCE')} is a picture or a video: is that the"
            " right SOURCE? --set source.type=manifest, webdataset or parquet says how to read lists, tars or tables"
        )
        raise typer.Exit(3)


def print_doubts(summary: Mapping[str, Any]) -> None:
    """Warnings of a run on standard error: what of it no certificate covers, what drifted."""
    from moderation.results.finish import describe_doubts  # only once there is a run

    print_warnings(describe_doubts(summary))


def print_warnings(warnings: Iterable[str]) -> None:
    """Sentences on standard error."""
    for warning in warnings:
        plain_console(stderr=True, soft_wrap=True).print(f"warning: {warning}", style="yellow")


def counts_text(counts: Mapping[str, int]) -> str:
    """`block 1  pass 20`, or `none`."""
    return "  ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"

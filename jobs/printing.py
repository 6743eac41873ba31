"""How jobs print: text as it is, errors on one line, JSON and counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.text import Text

from moderation import storage
from moderation.config.model import Config
from moderation.config.pool_choice import describe_pool
from moderation.pages.terminal import PlainConsole, verdict_counts
from moderation.pages.text import escaped, escaped_lines, json_text


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
    """A console without markup and emoji: names come from strangers, and `negative:mask:block` must stay as it is."""
    return PlainConsole(stderr=stderr, soft_wrap=soft_wrap)


def print_error(message: str, console: Console | None = None) -> None:
    """Print an error on standard error (or `console`). Further lines are indented, so that none passes for ours."""
    console = console or plain_console(stderr=True)
    console.print(message.rstrip().replace("\n", "\n  "), style="bold red", soft_wrap=True)


def print_line(text: str) -> None:
    """Print a line on standard output, never folded; a stranger's characters in it are escaped."""
    typer.echo(escaped(text))


def print_lines(text: str) -> None:
    """Print lines of ours on standard output; a stranger's characters are escaped, but not the ends of lines."""
    typer.echo(escaped_lines(text))


def print_json(value: object, *, indent: int | None = 1) -> None:
    """Print JSON on standard output."""
    typer.echo(json_text(value, indent=indent))


def exit_on_too_many_errors(outcome: EndedRun) -> None:
    """Exit with code 3, and say why, when more items are errors than the configuration allows."""
    if outcome.too_many_errors:
        print_error(
            f"{outcome.error_rate:.1%} of the items are errors, more than runtime.max_error_rate"
            f" ({outcome.max_error_rate:.1%})"
        )
        raise typer.Exit(3)


def exit_on_partial(partial: bool) -> None:
    """Exit with code 5, and say why, when a call ended early with work left."""
    if partial:
        print_error("ended early with work left, so the exit code is 5; with --allow-partial it is 0")
        raise typer.Exit(5)


def announce(source: str, out: str, settings: Config, config: str | None, *, rehearsal: bool = False) -> None:
    """Print the first line of a run, before anything is loaded: source, OUT, configuration, and what is started.

    rehearsal: nothing will be started. Raises UsageError for a URI that holds a password and so may not be shown, and
    for `runtime.pool` against a cluster.
    """
    source, out = storage.mask_signatures(storage.canonical(source)), storage.canonical(out)
    workers = describe_pool(settings.runtime)
    if rehearsal:
        workers = "planning; nothing is started"
    facts = {"source": source, "out": out, "configuration": config or "default.yaml", "policy": settings.policy}
    console = plain_console(stderr=True)
    if console.is_terminal:
        rows = [f"{name:13} {value}" for name, value in facts.items()]
        console.print("\n".join([*rows, f"checking the call, then {workers}"]), style="dim", soft_wrap=True)
    else:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": stamp, "level": "info", "event": "run", **facts, "message": workers}
        typer.echo(json_text(line), err=True)


def exit_on_no_media(summary: Mapping[str, Any], *, partial: bool = False) -> None:
    """Exit with code 3, and say why, when no object was a picture or a video: most likely a wrong SOURCE."""
    items = summary.get("items", 0)
    if items and not partial and summary.get("errors", {}).get("not_media", 0) == items:
        print_error(
            f"none of the {items:,} items of {summary.get('source', 'SOURCE')} is a picture or a video: is that the"
            " right SOURCE? --set source.type=manifest, webdataset or parquet says how to read lists, tars or tables"
        )
        raise typer.Exit(3)


def print_doubts(summary: Mapping[str, Any]) -> None:
    """Print a run's warnings on standard error: what no certificate covers, what drifted."""
    from moderation.results.report import describe_doubts  # only once there is a run

    print_warnings(describe_doubts(summary))


def print_warnings(warnings: Iterable[str]) -> None:
    """Print sentences on standard error."""
    for warning in warnings:
        plain_console(stderr=True, soft_wrap=True).print(f"warning: {escaped(warning)}", style="yellow")


def verdicts_text(counts: Mapping[str, int]) -> Text:
    """`block 1  review 0  pass 20`, in the colours of verdicts, or `none`."""
    return verdict_counts(counts) if counts else Text("none")


def counts_text(counts: Mapping[str, int]) -> str:
    """`block 1  pass 20`, or `none`."""
    return "  ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"

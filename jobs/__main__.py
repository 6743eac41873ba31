"""`python -m jobs`, installed as `moderation`: one thin file per job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from moderation.version import SCHEMA_VERSION, __version__

from .ending import EXIT_CODES, run_to_end
from .lazy_group import JobEntry, lazy_group
from .table import BUNDLE, COMMANDS, CONFIG, HASHES, LISTS, POLICY, REVIEW, WEIGHTS


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moderation {__version__}, tables of schema version {SCHEMA_VERSION}")
        raise typer.Exit


app = typer.Typer(
    cls=lazy_group(COMMANDS),
    help="Batch moderation of images and videos in object storage.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    # No docstring: the program's help text is given above.
    del version


def _add_group(name: str, help_: str, entries: Sequence[JobEntry]) -> None:
    group = typer.Typer(cls=lazy_group(entries), help=help_, no_args_is_help=True, rich_markup_mode=None)

    @group.callback()
    def _nothing() -> None:
        # Typer makes a group of what has a command or a callback; its commands are in the table.
        return

    app.add_typer(group, name=name)


_add_group("config", "Configuration.", CONFIG)
_add_group("weights", "Weights.", WEIGHTS)
_add_group("policy", "Policies: shown, tested, compared.", POLICY)
_add_group("bundle", "Bundles: what is promoted or rolled back.", BUNDLE)
_add_group("review", "Review by people.", REVIEW)
_add_group("hashes", "Lists of known pictures.", HASHES)
_add_group("lists", "Lists that learn from decisions.", LISTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one job; every error becomes a sentence and an exit code."""
    run_to_end(app, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()

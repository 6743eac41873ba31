"""`moderation weights pull`: all the weights of a configuration into a bucket, for a cluster without a way out."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from moderation.config.load import load_config


def weights_pull(
    config: Annotated[str, typer.Argument(help="Configuration file, or the name of a packaged one.")],
    to: Annotated[str, typer.Option(help="Folder or prefix that gets the files, an index and SHA256SUMS.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key; may be repeated.")
    ] = None,
) -> None:
    """Fetch and check the weights of CONFIG and copy them to a mirror; MODERATION_WEIGHTS=TO then finds them there."""
    settings = load_config(config, list(set_ or []))

    from moderation.detectors.weights.mirror import VARIABLE
    from moderation.detectors.weights.pull import pull_weights  # torch only once the call is right

    table = Table(title=f"weights in {to}")
    for name in ("file", "MB", "sha256", "licence", "from"):
        table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
    for entry in pull_weights(settings, to):
        table.add_row(entry.file, f"{entry.size_bytes / 1e6:,.1f}", entry.sha256, entry.licence, entry.locator)
    console = Console(markup=False, highlight=False)
    console.print(table)
    console.print(f"where the job runs, set {VARIABLE}={to}")

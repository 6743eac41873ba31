"""`moderation weights pull`: copies all weights of a configuration to a bucket, for a cluster without internet."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from moderation.pages.text import escaped

from .options import SetOption, load_settings
from .printing import plain_console


def weights_pull(
    config: Annotated[str, typer.Argument(help="Configuration file, or the name of a packaged one.")],
    to: Annotated[str, typer.Option(help="Folder or prefix that gets the files, an index and SHA256SUMS.")],
    set_: SetOption = None,
) -> None:
    """Fetch and check the weights of CONFIG and copy them to a mirror; MODERATION_WEIGHTS=TO then finds them there."""
    settings = load_settings(config, set_)

    from moderation.detectors.weights.mirror import VARIABLE
    from moderation.detectors.weights.pull import pull_weights  # torch only once the call is right

    table = Table(title=f"weights in {escaped(to)}")
    for name in ("file", "MB", "sha256", "licence", "from"):
        table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
    for entry in pull_weights(settings, to):
        table.add_row(entry.file, f"{entry.size_bytes / 1e6:,.1f}", entry.sha256, entry.licence, entry.locator)
    console = plain_console()
    console.print(table)
    console.print(f"where the job runs, set {VARIABLE}={escaped(to)}")

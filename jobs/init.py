"""`moderation init`: a small project to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moderation.config.project import write_project

from .printing import plain_console


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that gets the files; made if it is not there.")],
    config: Annotated[str, typer.Option(help="Packaged configuration that it extends.")] = "default.yaml",
) -> None:
    """Write a configuration, a policy and cases for it to DIR. What is there already stays as it is."""
    written = write_project(folder, config)
    console = plain_console(soft_wrap=True)
    for path in written:
        console.print(f"wrote {path}")
    if not written:
        console.print(f"{folder}: all of it is there already")
    console.print(f"next: moderation doctor --config {folder / 'config.yaml'}")

"""`moderation init`: a small project to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from moderation.config.project import write_project
from moderation.errors import UsageError

from .printing import plain_console


def init(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder that gets the files; made if it is not there.")],
    config: Annotated[str, typer.Option(help="Packaged configuration that it extends.")] = "default.yaml",
) -> None:
    """Write a configuration, a policy and cases for it to DIR. What is there already stays as it is."""
    if not folder.strip():
        raise UsageError("DIR is empty: is a variable of the shell unset? `.` is the current folder")
    if "://" in folder:
        raise UsageError(f"DIR {folder!r}: a folder of this machine is meant, not an address")
    written = write_project(Path(folder), config)
    console = plain_console(soft_wrap=True)
    for path in written:
        console.print(f"wrote {path}")
    if not written:
        console.print(f"{folder}: all of it is there already")
    # Quoted, because it is there to be copied into a shell.
    console.print(f"next: moderation doctor --config {shlex.quote(str(Path(folder) / 'config.yaml'))}")

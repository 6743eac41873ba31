"""`moderation sort`: the pictures of a run, album by album, by the classes of a detector."""

from __future__ import annotations

from typing import Annotated

import typer

from moderation.errors import UsageError
from moderation.pages.text import escaped
from moderation.results.layout import sorted_folder

from .printing import plain_console


def sort(
    out: Annotated[str, typer.Argument(help="Output of a run.")],
    by: Annotated[str, typer.Option("--by", help="The detector whose classes sort, such as a head: scenes.")],
    album: Annotated[
        str | None, typer.Option(help="Attribute that names an item's album; default: an album, or the folder.")
    ] = None,
    least: Annotated[float, typer.Option(help="Score from which a class is believed; below it: unsure.")] = 0.5,
    previews: Annotated[int, typer.Option(min=0, max=500, help="Most pictures read again, for the page.")] = 60,
    to: Annotated[str | None, typer.Option(help="Where table and page go; default: OUT/sorted/DETECTOR.")] = None,
) -> None:
    """Sort the pictures of OUT by the highest label of a detector: a table and a page; nothing is moved."""
    if not 0 <= least <= 1:
        raise UsageError(f"--least {least}: 0 to 1")

    from moderation.analysis.sorting import sort_run, write_sorted  # heavy imports only once the call is right

    found = sort_run(out, by, least=least, by=album)
    page = write_sorted(found, out, to or sorted_folder(out, by), previews=previews)
    console = plain_console(soft_wrap=True)
    console.print(f"{len(found.pictures):,} pictures: " + ", ".join(f"{n:,} {c}" for c, n in found.counts().items()))
    console.print(escaped(page))

"""`moderation document`: what a moderated dataset holds, as a page and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.config.load import resolve_config_path
from moderation.pages.text import escaped
from moderation.results.layout import document_folder

from .printing import plain_console

if TYPE_CHECKING:
    from moderation.analysis.inventory import Inventory


def document(
    out: Annotated[str, typer.Argument(help="Output of a run.")],
    to: Annotated[str | None, typer.Option(help="Where page and JSON go; default: OUT/document.")] = None,
    policy: Annotated[str | None, typer.Option(help="Thresholds of another policy than the run's.")] = None,
    taxonomy: Annotated[str | None, typer.Option(help="Another table of labels than the packaged one.")] = None,
    examples: Annotated[int, typer.Option(min=0, max=100, help="Examples of each concept.")] = 6,
    terms: Annotated[int, typer.Option(min=0, max=1000, help="Terms of each concept.")] = 20,
    previews: Annotated[bool, typer.Option(help="Read the examples again, for small blurred previews.")] = True,
) -> None:
    """Take the inventory of OUT: share by concept, terms that stand out among what was flagged, blurred examples."""
    path = None if policy is None else str(resolve_config_path(policy, kind="policies"))

    from moderation.analysis.document import write_document
    from moderation.analysis.inventory import take_inventory

    inventory = take_inventory(out, policy=path, taxonomy=taxonomy, examples=examples, terms=terms)
    page = write_document(inventory, out, to or document_folder(out), previews=previews)
    _print(inventory)
    plain_console().print(escaped(f"inventory.json beside {page}"), soft_wrap=True)


def _print(inventory: Inventory) -> None:
    table = Table(title=f"{inventory.items:,} items")
    for name in ("concept", "found", "share", "stands out among them"):
        table.add_column(name, justify="right" if name in ("found", "share") else "left", overflow="fold")
    for concept in inventory.concepts:
        words = ", ".join(f"{escaped(t.term[:40])} ({t.lift:.1f}x)" for t in concept.terms[:4] if t.z >= 2)
        share = "–" if concept.share is None else f"{concept.share:.1%}"
        table.add_row(concept.name, f"{concept.found:,}", share, words)
    plain_console().print(table)

"""`moderation concepts`: the class names that a concept of the configuration may be made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer
from rich.table import Table

from moderation.config.model import Config

from .options import ConfigOption, SetOption, load_settings
from .printing import plain_console, print_json


def concepts(
    search: Annotated[str, typer.Argument(metavar="[WORD]", help="Only names that hold this: `gun`, `bottle`.")] = "",
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the classes of the detector `imagenet`, and the concepts of the configuration that hold them."""
    settings = load_settings(config, set_)

    from moderation.detectors.general.imagenet_classes import (
        DEFAULT_CONCEPTS,
        class_indices,
        class_names,
        search_classes,
    )

    names = class_names()
    holding: dict[str, list[str]] = {}
    for concept, members in _configured(settings, DEFAULT_CONCEPTS):
        for index in class_indices(concept, members):
            holding.setdefault(names[index][0], []).append(concept)
    found = search_classes(search)
    if as_json:
        print_json([{"id": e[0], "names": e[1:], "concepts": holding.get(e[0], [])} for e in found])
        return
    table = Table(box=None, pad_edge=False)
    for name in ("id", "names", "in the concept"):
        table.add_column(name, overflow="fold")
    for entry in found:
        table.add_row(entry[0], ", ".join(entry[1:]), ", ".join(holding.get(entry[0], ())))
    console = plain_console()
    console.print(table)
    console.print(f"{len(found):,} of {len(names):,} classes; a concept takes names or ids, in a configuration:")
    console.print(_EXAMPLE)


_EXAMPLE = """  extends: default.yaml
  stack:
    detectors:
      - name: imagenet
        options: {concepts: {my_concept: [first name, n01234567]}}"""


def _configured(settings: Config, defaults: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    for entry in settings.stack.detectors:
        if entry.name == "imagenet":
            yield from (entry.options.get("concepts") or defaults).items()

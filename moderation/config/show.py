"""A configuration as text: YAML with each key explained, which can be loaded again."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moderation.config.layers import LayeredTree
from moderation.config.model import Config

_WIDTH = 118


def show_config(config: Config) -> str:
    """The effective configuration as YAML: every key with its value; above it its meaning, choices and bounds.

    The text is a configuration file: loading it gives `config` again.
    """
    lines = [
        "# The effective configuration: the file, then --set, then the defaults for what they leave out.",
        *_section(config, indent=0),
    ]
    return "\n".join(lines) + "\n"


def show_origins(config: Config, layered: LayeredTree) -> Iterator[tuple[str, str, str]]:
    """(key, value, where it was said) of every key; `default` where nobody said it."""
    for path, value in _leaves(config.model_dump(mode="json", by_alias=True), ()):
        named = layered.by_name(path)
        shown = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
        text = shown.removesuffix("\n").removesuffix("\n...").strip()
        yield ".".join(named), text, layered.said_in(path) or "default"


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(number)))
    else:
        yield path, value


def _section(model: BaseModel, *, indent: int) -> Iterator[str]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield ""
            yield from _comment((type(value).__doc__ or "").strip(), indent)
            yield f"{' ' * indent}{name}:"
            yield from _section(value, indent=indent + 2)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield from _comment(_meaning(info), indent)
            yield f"{' ' * indent}{name}:"
            yield from _entries(value, indent + 2)
        else:
            yield from _comment(_meaning(info), indent)
            yield from _dump({info.alias or name: _jsonable(model, name)}, indent)


def _entries(models: tuple[BaseModel, ...], indent: int) -> Iterator[str]:
    """A list of sections: keys are explained once, above it; values equal to their default are left out."""
    for name, info in type(models[0]).model_fields.items():
        meaning = _meaning(info)
        if meaning:
            yield from _comment(f"{info.alias or name}: {meaning}", indent)
    for model in models:
        first = True
        for line in _dump(model.model_dump(mode="json", by_alias=True, exclude_defaults=True), 0):
            yield f"{' ' * indent}{'- ' if first else '  '}{line}"
            first = False


def _dump(tree: Mapping[str, Any], indent: int) -> Iterator[str]:
    for key, value in tree.items():
        # One key per line; lists and mappings of plain values stay on its line.
        style = None if isinstance(value, list | dict) else False
        # What turns or hides text (U+202E) is printable for YAML; escaped like the rest where a value has it.
        plain = all(map(str.isprintable, json.dumps(value, ensure_ascii=False, default=str).split("\n")))
        text = yaml.safe_dump(
            {key: value}, sort_keys=False, allow_unicode=plain, default_flow_style=style, width=_WIDTH - indent
        )
        yield from textwrap.indent(text.rstrip("\n"), " " * indent).split("\n")


def _jsonable(model: BaseModel, name: str) -> object:
    return model.model_dump(mode="json", include={name})[name]


def _comment(text: str, indent: int) -> list[str]:
    lead = f"{' ' * indent}# "
    return textwrap.wrap(text, _WIDTH, initial_indent=lead, subsequent_indent=lead) if text else []


def _meaning(info: FieldInfo) -> str:
    """The description, then the choices where it does not name them, then the bounds."""
    parts = [info.description] if info.description else []
    choices = [str(c) for c in _choices(info.annotation)]
    if any(c not in (info.description or "") for c in choices):
        parts.append("one of: " + ", ".join(choices))
    bounds = [f"{sign} {value}" for sign, value in _bounds(info.metadata)]
    if bounds:
        parts.append(" and ".join(bounds))
    return "; ".join(parts)


def _choices(annotation: object) -> list[object]:
    if get_origin(annotation) is Literal:
        values = list(get_args(annotation))
        return values if len(values) > 1 else []
    return []


def _bounds(metadata: list[Any]) -> Iterator[tuple[str, object]]:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    for entry in metadata:
        for key, sign in signs.items():
            if getattr(entry, key, None) is not None:
                yield sign, getattr(entry, key)

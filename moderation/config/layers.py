"""Configuration files that build on others: `extends: default.yaml`, merged deeply, each key with where it was said.

Mappings are merged; lists and plain values replace those of the base. `stack.detectors` is patched by name: an entry
whose alias (or name) the base has is merged into it, another is added behind, and `remove: true` takes one away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from moderation.config.files import packaged_configs, read_yaml, resolve_config_path
from moderation.errors import UsageError

EXTENDS: Final = "extends"
_REMOVE: Final = "remove"
SET: Final = "--set"
_MAX_DEPTH: Final = 8
_DETECTORS: Final = ("stack", "detectors")

KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayeredTree:
    """A configuration's plain data. origins: key -> `file:line` or `--set`; detectors stand in it by their name."""

    tree: dict[str, Any]
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def origin_of(self, location: Sequence[str]) -> str | None:
        """Where a key, or the nearest one above it that was said, comes from; None for a default.

        A key that stands only in the name of a `--set` (`runtim` of `runtim.workers`) comes from there.
        """
        path = self.by_name(location)
        inside = (where for said, where in self.origins.items() if said[: len(path)] == path and where.startswith(SET))
        for stop in range(len(path), 0, -1):
            if path[:stop] in self.origins:
                return self.origins[path[:stop]]
            if stop == len(path) and (where := next(inside, None)) is not None:
                return where
        return None

    def said_in(self, location: Sequence[str]) -> str | None:
        """Where just this key was said, or the `--set` that holds it; None for a default."""
        path = self.by_name(location)
        above = (self.origins.get(path[:stop], "") for stop in range(len(path) - 1, 0, -1))
        return self.origins.get(path) or next((where for where in above if where.startswith(SET)), None)

    def override(self, key: KeyPath) -> None:
        """A key was set from the command line: what files said of it and of what is below it counts no more."""
        path = self.by_name(key)
        for said in [said for said in self.origins if said[: len(path)] == path]:
            del self.origins[said]
        self.origins[path] = f"{SET} {'.'.join(key)}"

    def by_name(self, location: Sequence[str]) -> KeyPath:
        """A location with the number of a detector replaced by its name."""
        path = tuple(map(str, location))
        if path[:2] != _DETECTORS or len(path) < 3 or not path[2].isdigit():
            return path
        entries = (self.tree.get("stack") or {}).get("detectors") or []
        number = int(path[2])
        entry = entries[number] if number < len(entries) else None
        return (*_DETECTORS, _title(entry) or path[2], *path[3:])


def read_layers(file: Path, depth: int = 0) -> LayeredTree:
    """A file with all that it extends. Raises UsageError for a base that is not there, or a circle of them."""
    if depth > _MAX_DEPTH:
        raise UsageError(f"{file}: more than {_MAX_DEPTH} files that extend each other: a circle?")
    tree = read_yaml(file)
    base_name = tree.pop(EXTENDS, None)
    _anchor_paths(tree, file)
    origins = _read_origins(file, tree)
    if base_name is None:
        return LayeredTree(tree=tree, origins=origins)
    if not isinstance(base_name, str) or not base_name.strip():
        raise UsageError(f"{file}: extends: one file, or the name of a packaged one (given: {base_name!r})")
    base = read_layers(resolve_config_path(base_name, beside=file.parent), depth + 1)
    merged = merge_trees(base.tree, tree, str(file))
    return LayeredTree(tree=merged, origins={**base.origins, **origins})


def merge_trees(base: Mapping[str, Any], patch: Mapping[str, Any], where: str, path: KeyPath = ()) -> dict[str, Any]:
    """`base` with what `patch` says. where: for messages. Raises UsageError for detectors that can't be patched."""
    merged = dict(base)
    for key, value in patch.items():
        here = (*path, str(key))
        before = merged.get(key)
        if here == _DETECTORS and isinstance(before, list) and isinstance(value, list):
            merged[key] = _patch_detectors(before, value, where)
        elif isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = merge_trees(before, value, where, here)
        else:
            merged[key] = value
    return merged


def _patch_detectors(base: Sequence[Any], patch: Sequence[Any], where: str) -> list[Any]:
    entries = {title: entry for entry in base if (title := _title(entry)) is not None}
    for entry in patch:
        title = _title(entry)
        if title is None:
            raise UsageError(f"{where}: stack.detectors: every entry needs a `name`, by which it is patched or added")
        if _is_removal(entry, f"{where}: stack.detectors"):
            if entries.pop(title, None) is None:
                raise UsageError(f"{where}: stack.detectors: there is no {title!r} to remove; {', '.join(entries)}")
            continue
        change = {key: value for key, value in entry.items() if key != _REMOVE}
        entries[title] = merge_trees(entries[title], change, where) if title in entries else change
    return list(entries.values())


def _is_removal(entry: Mapping[str, Any], where: str) -> bool:
    remove = entry.get(_REMOVE, False)
    if not isinstance(remove, bool):
        raise UsageError(f"{where}: {_title(entry)!r}: `{_REMOVE}` is true or false, not {remove!r}")
    return remove


def _title(entry: object) -> str | None:
    if not isinstance(entry, Mapping):
        return None
    title = entry.get("alias") or entry.get("name")
    if not isinstance(title, str):
        return None
    # `head:scenes` is short for the name `head` with the alias `scenes`.
    return title if entry.get("alias") else title.partition(":")[2] or title


def _anchor_paths(tree: dict[str, Any], file: Path) -> None:
    """Paths in a file are meant from where the file lies: made absolute, so that they outlive a merge."""
    if isinstance(tree.get("policy"), str):
        tree["policy"] = str(resolve_config_path(tree["policy"], beside=file.parent, kind="policies").absolute())
    stack = tree.get("stack")
    entries = stack.get("detectors") if isinstance(stack, Mapping) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("options_from"), str):
            entry["options_from"] = str(resolve_config_path(entry["options_from"], beside=file.parent).absolute())


def _read_origins(file: Path, tree: Mapping[str, Any]) -> dict[KeyPath, str]:
    """Key -> `file:line` of every key in a file."""
    node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    layered = LayeredTree(tree=dict(tree))
    inside = file.is_relative_to(packaged_configs())
    shown = f"packaged {file.relative_to(packaged_configs())}" if inside else str(file)
    return {layered.by_name(path): f"{shown}:{line}" for path, line in _walk_nodes(node, ())}


def _walk_nodes(node: yaml.Node | None, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _walk_nodes(value, here)
    elif isinstance(node, yaml.SequenceNode) and path == _DETECTORS:
        for number, value in enumerate(node.value):
            yield (*path, str(number)), value.start_mark.line + 1
            yield from _walk_nodes(value, (*path, str(number)))

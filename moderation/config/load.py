"""Configuration from YAML files and `--set`; every mistake names the key and the nearest right one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from moderation.config.files import packaged_configs, read_yaml, resolve_config_path
from moderation.config.hints import did_you_mean
from moderation.config.layers import LayeredTree, read_layers
from moderation.config.mistakes import describe_mistakes
from moderation.config.model import Config
from moderation.errors import UsageError

__all__ = [
    "load_config",
    "load_layers",
    "override_config",
    "packaged_configs",
    "read_yaml",
    "resolve_config_path",
    "validate",
]

_T = TypeVar("_T", bound=BaseModel)


def load_config(path: str | None = None, overrides: Sequence[str] = ()) -> Config:
    """Load a configuration from a YAML file, the files that it extends, and `a.b=c` overrides (values in YAML).

    Raises UsageError naming the key, where it was said, and the nearest right one.
    """
    return load_layers(path, overrides)[0]


def load_layers(path: str | None = None, overrides: Sequence[str] = ()) -> tuple[Config, LayeredTree]:
    """As `load_config`, and the plain data that it was made of, with where each key comes from."""
    file = resolve_config_path(path)
    layered = read_layers(file)
    for override in overrides:
        layered.override(tuple(_apply_override(layered.tree, override)))
    config = validate(Config, layered.tree, where=str(file), origin_of=layered.origin_of)
    for key in _infinite_keys(config.model_dump(exclude={"stack"}), ()):
        raise UsageError(f"{layered.origin_of(key) or file}: {'.'.join(key)}: should be a finite number")
    config = _with_shared_options(config, file.parent)
    # A path on the command line is relative to the working directory, a path in a file to the folder of that file.
    named_here = any(o.partition("=")[0] == "policy" for o in overrides) and Path(config.policy).is_file()
    beside = file.parent
    policy = Path(config.policy) if named_here else resolve_config_path(config.policy, beside=beside, kind="policies")
    return config.model_copy(update={"policy": str(policy.absolute())}), layered


def override_config(config: Config, overrides: Sequence[str], *, allowed: Sequence[str]) -> Config:
    """A configuration that a run had, with some keys changed. allowed: keys and sections that may be.

    Raises UsageError naming the key, and the nearest right one.
    """
    tree = config.model_dump(mode="json")
    for override in overrides:
        key = override.partition("=")[0]
        if "=" in override and not any(key == one or key.startswith(f"{one}.") for one in allowed):
            raise UsageError(
                f"--set {key}: not for a run that is done{did_you_mean(key, allowed, otherwise='possible are')}"
            )
        _apply_override(tree, override)
    return validate(Config, tree, where="--set")


def _infinite_keys(tree: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Keys that are infinite. No type refuses them, because the records of earlier runs may hold them."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _infinite_keys(value, (*above, key))
        elif isinstance(value, float) and math.isinf(value):
            yield (*above, key)


def _with_shared_options(config: Config, beside: Path) -> Config:
    detectors = tuple(
        entry
        if entry.options_from is None
        else entry.model_copy(
            update={
                "options": {**read_yaml(resolve_config_path(entry.options_from, beside=beside)), **entry.options},
                "options_from": None,
            }
        )
        for entry in config.stack.detectors
    )
    return config.model_copy(update={"stack": config.stack.model_copy(update={"detectors": detectors})})


def validate(
    model: type[_T],
    tree: Mapping[str, Any],
    *,
    where: str,
    origin_of: Callable[[Sequence[str]], str | None] = lambda _: None,
) -> _T:
    """Make a `model` from plain data; one UsageError names each mistake with its key and the nearest right one.

    where: whose data they are. origin_of: where a key was said, if that is known more exactly.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        mistakes = describe_mistakes(model, [dict(each) for each in error.errors()])
        lines = [f"{origin_of(location) or where}: {text}" for location, text in mistakes]
        raise UsageError("\n".join(lines)) from error


def _apply_override(tree: dict[str, Any], override: str) -> list[str]:
    """Set one key; the steps of its name."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override!r}: expected key=value, for example --set stack.batch_size=8")
    steps = key.split(".")
    node = tree
    for step in steps[:-1]:
        child = node.setdefault(step, {})
        if not isinstance(child, dict):
            raise UsageError(f"--set {key}: {step!r} is not a section")
        node = child
    try:
        node[steps[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {key}: {value!r} is not YAML") from error
    return steps

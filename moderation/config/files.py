"""Files of configurations: which one a name means, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from moderation.config.hints import closest
from moderation.errors import UsageError, one_line

_NO_CONFIGS = ("definitions", "texts")  # what is packaged beside configurations, and not named on a command line


def packaged_configs() -> Path:
    """The folder of packaged configurations: inside the wheel, or the repository's `configs/`."""
    inside = Path(__file__).parent.parent / "_configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "configs"


def resolve_config_path(path: str | None, *, beside: Path | None = None, kind: str | None = None) -> Path:
    """A file beside `beside` (default: the working directory), else of a packaged one (`clip.yaml`, `clip`).

    kind: folder of the packaged ones that is looked into first: `policies`. Raises UsageError when there is none,
    naming the packaged ones.
    """
    name = _checked_name(path)
    candidates = [beside / name if beside else Path(name), *_packaged_candidates(name, kind)]
    named = next((candidate for candidate in candidates if candidate.is_file()), None)
    if named is not None:
        return named
    known = _packaged_names(kind)
    if kind is None and (policy := _packaged_policy(name)):
        raise UsageError(f"no configuration {name!r}; of this name there is a packaged policy: --policy {policy}")
    close = closest(name, [*known, *(Path(path).stem for path in known)], cutoff=0.5)
    hint = f"; did you mean {close!r}?" if close else ""
    raise UsageError(f"no file {name!r}; packaged: {', '.join(known) or 'none'}{hint}")


def _checked_name(path: str | None) -> str:
    """The name of a file as it was given; the default where none was. Raises UsageError for what can be none."""
    if path is None:
        return "default.yaml"
    if not path.strip():
        raise UsageError("the name of a file is empty: is a variable of the shell unset? Without it the default runs")
    if "://" in path:
        raise UsageError(f"{path}: configurations and policies are files of this machine; name a copy of it")
    return path


def _packaged_candidates(name: str, kind: str | None) -> list[Path]:
    """Where a packaged file of this name may lie, the likeliest first."""
    inside = name.removeprefix("configs/")
    folders = [packaged_configs() / kind, packaged_configs()] if kind else [packaged_configs()]
    return [folder / named for folder in folders for named in (inside, f"{inside}.yaml")]


def _packaged_policy(name: str) -> str | None:
    """The name of the packaged policy that is called as this configuration is, which is not there."""
    stem = name.removeprefix("configs/").removesuffix(".yaml")
    return stem if (packaged_configs() / "policies" / f"{stem}.yaml").is_file() else None


def _packaged_names(kind: str | None) -> list[str]:
    packaged = packaged_configs()
    paths = (path for path in packaged.rglob("*.yaml") if path.parent.name not in _NO_CONFIGS)
    names = sorted(str(path.relative_to(packaged)) for path in paths)
    return [name for name in names if kind is None or name.startswith(f"{kind}/")]


class _RepeatedKeyError(yaml.YAMLError):
    """A mapping says a key twice."""

    def __init__(self, key: str, line: int, first: int) -> None:
        super().__init__(f"{key!r} stands twice: in line {first}, and in line {line}; only one of them would count")
        self.line = line


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: PyYAML keeps the last, so a check or a threshold would be lost unseen."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - as the stub of PyYAML says it
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        # Looked at before `<<` is merged: what a merge brings along may be said again.
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    raise _RepeatedKeyError(key.value, line, lines[name])
                lines[name] = line
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises UsageError with the line of the mistake."""
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a safe loader
    except _RepeatedKeyError as error:
        raise UsageError(f"{path}:{error.line}: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise UsageError(f"{path}: not readable as YAML: {one_line(error)}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"{path}: expected a mapping at the top, found {type(loaded).__name__}")
    return loaded

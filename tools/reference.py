"""Pages of reference, made from the code, so that they cannot say anything else: Markdown, one page a function."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import typer
from pydantic import BaseModel

import moderation
from jobs.__main__ import app
from jobs.ending import EXIT_CODES
from moderation.config.load import load_config
from moderation.config.show import show_config
from moderation.policy.model import Policy
from moderation.results.advice import ADVICE
from moderation.results.schema import verdicts_schema, votes_schema

_METRICS: Final = Path(moderation.__file__).parent / "runtime" / "metrics.py"


def commands_page() -> str:
    """Every command with its arguments, options and defaults."""
    group = typer.main.get_command(app)
    lines = ["# Commands", "", "`moderation --install-completion` teaches your shell all of them.", ""]
    for name, command in _commands(group, ""):
        lines += [f"## `moderation {name}`", "", inspect.cleandoc(command.help or ""), ""]
        lines += _table(("", "", "default"), map(_parameter_cells, command.params))
    return _page(lines)


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - click, vendored by typer, is untyped
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _parameter_cells(parameter: Any) -> tuple[str, str, str]:  # noqa: ANN401 - as above
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    else:
        name = ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    shown = "" if default in (None, False, (), []) or callable(default) else str(default)
    variable = getattr(parameter, "envvar", None)
    help_ = getattr(parameter, "help", None) or ""
    return f"`{name}`", f"{help_} (`{variable}`)" if variable else help_, shown


def configuration_page() -> str:
    """The default configuration with what each key means, and the fields by section."""
    text = show_config(load_config()).replace(load_config().policy, "policies/default.yaml")
    return _page(["# Configuration", "", "What `moderation config show` prints:", "", "```yaml", text, "```", ""])


def policy_page() -> str:
    """Every key of a policy."""
    lines = ["# Policy", "", "[How to write one](../policy.md). Every key:", ""]
    for model in _models(Policy, {}).values():
        lines += [f"## {model.__name__}", "", inspect.cleandoc(model.__doc__ or ""), ""]
        lines += _table(("key", "type", "default", "meaning"), _field_cells(model))
    return _page(lines)


def _models(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """A model and those inside it, by name, in the order in which they are met."""
    found[model.__name__] = model
    for info in model.model_fields.values():
        for inner in _inner_models(info.annotation):
            if inner.__name__ not in found:
                _models(inner, found)
    return found


def _inner_models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _inner_models(argument)


def _field_cells(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    for name, info in model.model_fields.items():
        kind = str(getattr(info.annotation, "__name__", info.annotation)).replace("typing.", "")
        kind = kind if "." not in kind else ".".join(part for part in kind.split(".") if part)
        default = "required" if info.is_required() else str(info.get_default(call_default_factory=True))
        yield f"`{info.alias or name}`", f"`{kind}`", f"`{default}`", info.description or ""


def tables_page() -> str:
    """The columns of both tables."""
    schemas = {
        "verdicts": ("One row per item.", verdicts_schema(["<check>"], {})),
        "votes": (
            "One row per frame; null: not asked, never 0.",
            votes_schema(["<detector>.<label>"], {"pdq.hash": 32}, {"<detector>": 1280}, {}),
        ),
    }
    lines = ["# Tables", "", f"Schema version {moderation.version.SCHEMA_VERSION}; Parquet or Arrow.", ""]
    for name, (meaning, schema) in schemas.items():
        lines += [f"## {name}", "", meaning, "", *_table(("column", "type"), _column_cells(schema))]
    return _page(lines)


def _column_cells(schema: pa.Schema) -> Iterator[tuple[str, str]]:
    return ((f"`{field.name}`", f"`{field.type}`") for field in schema)


def codes_page() -> str:
    """Exit codes, and the error codes of rows."""
    exits = " ".join(EXIT_CODES.split())
    rows = ((f"`{code}`", advice.meaning, advice.action) for code, advice in ADVICE.items())
    lines = ["# Exit and error codes", "", exits, "", "## Error codes of rows", ""]
    return _page([*lines, *_table(("code", "meaning", "what to do"), rows)])


def metrics_page() -> str:
    """Metrics of Prometheus, with `ray_` before their names."""
    lines = ["# Metrics", "", "Through Ray's exporter; names in Prometheus are these with `ray_` before them.", ""]
    return _page([*lines, *_table(("metric", "kind", "meaning", "labels"), _metric_cells())])


def _metric_cells() -> Iterator[tuple[str, str, str, str]]:
    # Read, not made: the meters register themselves with Ray.
    for node in ast.walk(ast.parse(_METRICS.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Counter", "Gauge"):
            name, meaning, labels = (ast.literal_eval(argument) for argument in node.args[:3])
            yield f"`{name}`", node.func.id.lower(), meaning, ", ".join(labels)


def python_page() -> str:
    """What `import moderation` offers."""
    lines = ["# Python", ""]
    for name in moderation.__all__:
        value = getattr(moderation, name)
        if name.startswith("__"):
            continue
        lines += [f"## `{_signature(name, value)}`", "", inspect.cleandoc(inspect.getdoc(value) or ""), ""]
        if inspect.isclass(value) and not issubclass(value, str | BaseModel | Exception):
            lines += [line for method in _public_methods(value) for line in method]
    return _page(lines)


def _public_methods(value: type) -> Iterator[Sequence[str]]:
    for name, method in vars(value).items():
        if not name.startswith("_") and inspect.isfunction(method):
            yield f"### `{_signature(name, method)}`", "", inspect.cleandoc(inspect.getdoc(method) or ""), ""


def _signature(name: str, value: object) -> str:
    if not inspect.isfunction(value):
        return name
    return f"{name}{inspect.signature(value)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if not cells:
        return []
    lines = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *cells)]
    return [*lines, ""]


def _page(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


REFERENCE_PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "commands": commands_page,
    "configuration": configuration_page,
    "policy": policy_page,
    "tables": tables_page,
    "codes": codes_page,
    "metrics": metrics_page,
    "python": python_page,
}

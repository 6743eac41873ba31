"""The limits of the house, measured: layers, lengths of modules, complexity of functions, names of classes.

`python tools/check_house.py [ROOT]`, called by `make check`, prints the figures, then a table of what breaks a
limit, and ends with 1 if anything does. Complexity is radon's: boolean operators, comprehensions and assertions count.
Methods and closures are functions like any other.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from radon.complexity import cc_visit
from radon.visitors import Class, Function

LIBRARY = "moderation"
# Where functions are measured, and where a class name has one meaning.
MEASURED = ("moderation", "jobs")
NAMED = ("moderation", "jobs", "examples", "benchmarks", "tools", "tests")

MAX_LINES = 300
MAX_COMPLEXITY = 10  # radon's rank C begins above
MAX_COMPLEX_SHARE = 0.025
# Modules that are longer for a reason: path -> the reason.
LONG_MODULES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """One thing that breaks a limit: where it stands, and by how much."""

    limit: str
    where: str
    measured: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFunction:
    """A function, method or closure with its complexity."""

    where: str
    complexity: int


def python_files(root: Path, folders: tuple[str, ...]) -> list[Path]:
    """The files of the folders that are there, sorted."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def rooms_without_a_layer(root: Path) -> Iterator[Offence]:
    """Modules and packages right below the library that the exhaustive contract of layers does not name."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")
    if not layers.get("exhaustive"):
        yield Offence(limit="layers", where="pyproject.toml", measured="the contract is not exhaustive")
    named = {room.strip() for line in layers["layers"] for room in line.replace(":", "|").split("|")}
    named |= set(layers.get("exhaustive_ignores", ()))
    for path in sorted((root / LIBRARY).iterdir()):
        is_room = path.suffix == ".py" or any(path.glob("*.py"))
        if is_room and path.stem not in named and path.stem != "__init__":
            yield Offence(limit="layers", where=f"{LIBRARY}.{path.stem}", measured="in no layer")


def long_modules(root: Path) -> Iterator[Offence]:
    """Modules of the library over the limit without a reason, and reasons that are no longer needed."""
    lines = {
        path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(root, (LIBRARY,))
    }
    for path, count in sorted(lines.items(), key=lambda entry: -entry[1]):
        if count > MAX_LINES and path not in LONG_MODULES:
            yield Offence(limit=f"over {MAX_LINES} lines", where=path, measured=f"{count} lines")
    for path in LONG_MODULES:
        if lines.get(path, 0) <= MAX_LINES:
            yield Offence(limit="stale reason", where=path, measured="not over the limit: remove its reason")


def measured_functions(root: Path) -> list[MeasuredFunction]:
    """Every function, method and closure with its complexity, the most complex first."""
    functions = [
        MeasuredFunction(
            where=f"{path.relative_to(root).as_posix()}:{block.lineno} {block.fullname}", complexity=block.complexity
        )
        for path in python_files(root, MEASURED)
        for block in functions_of(cc_visit(path.read_text(encoding="utf-8")))
    ]
    return sorted(functions, key=lambda function: -function.complexity)


def functions_of(blocks: Iterable[Function | Class]) -> Iterator[Function]:
    """The functions among radon's blocks, those inside them, and the methods of classes inside classes."""
    for block in blocks:
        if isinstance(block, Function):
            yield block
            yield from functions_of(block.closures)
        else:
            # The methods of an outer class are blocks of the file already.
            for inner in block.inner_classes:
                yield from functions_of([*inner.methods, inner])


def complex_functions(functions: list[MeasuredFunction]) -> list[MeasuredFunction]:
    """Those of rank C or worse."""
    return [function for function in functions if function.complexity > MAX_COMPLEXITY]


def classes_by_name(root: Path) -> dict[str, list[str]]:
    """Name without leading underscores -> where classes of that name stand."""
    places = defaultdict(list)
    for path in python_files(root, NAMED):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(f"{path.relative_to(root).as_posix()}:{node.lineno}")
    return places


def repeated_classes(places: Mapping[str, list[str]]) -> Iterator[Offence]:
    """Class names that stand in two or more places."""
    for name, where in sorted(places.items()):
        if len(where) > 1:
            yield Offence(limit="class name twice", where=" ".join(where), measured=name)


def main() -> None:
    """Measure, print, and end with 1 if a limit is broken."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent)
    functions, places = measured_functions(root), classes_by_name(root)
    ranked = complex_functions(functions)
    share = len(ranked) / max(1, len(functions))
    offences = [*rooms_without_a_layer(root), *long_modules(root), *repeated_classes(places)]
    if share > MAX_COMPLEX_SHARE:
        offences += [
            Offence(limit="rank C or worse", where=function.where, measured=str(function.complexity))
            for function in ranked
        ]
    lines = [
        f"functions: {len(functions)}, of rank C or worse {len(ranked)} ({share:.1%}, limit {MAX_COMPLEX_SHARE:.1%})",
        f"modules of {LIBRARY}: {len(python_files(root, (LIBRARY,)))}, longer for a stated reason {len(LONG_MODULES)}",
        f"classes: {sum(map(len, places.values()))}",
        *(f"  {offence.limit:18} {offence.measured:28} {offence.where}" for offence in offences),
        f"{len(offences)} over the limits" if offences else "every limit is kept",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(1 if offences else 0)


if __name__ == "__main__":
    main()

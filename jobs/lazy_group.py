"""A group of commands that imports a job only when it is called: `--help` must not wait for sixty modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """A command of the table. place: `module:function` in this package. help: the first sentence of its docstring.

    tables: whether it reads or writes any, and so pays for pyarrow.
    """

    name: str
    place: str
    help: str
    epilog: str | None = None
    tables: bool = True


class _Commands(MutableMapping[str, Any]):
    """Commands by name; looking one up imports its job. `extra`: commands that are there already, such as groups."""

    def __init__(self, entries: Sequence[JobEntry], extra: MutableMapping[str, Any]) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._made = extra
        self._names = [*self._entries, *extra]

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - click, vendored by typer, is untyped
        if name not in self._made:
            self._made[name] = _make_command(self._entries[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:  # noqa: ANN401 - as above
        if name not in self:
            self._names.append(name)
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        self._names.remove(name)
        self._made.pop(name, None)

    def __contains__(self, name: object) -> bool:
        # Mapping's own method would look the name up, which imports the job.
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def help_of(self, name: str) -> str:
        """One sentence on a command or group."""
        return self._entries[name].help if name in self._entries else self._made[name].help


def lazy_group(entries: Sequence[JobEntry]) -> type[TyperGroup]:
    """The class of a group with these commands, for `typer.Typer(cls=...)`."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - those of the base class
            super().__init__(**attributes)
            self.commands: _Commands = _Commands(entries, self.commands)

        def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - click, vendored by typer, is untyped
            """Sentences as they are: cut to a line, as by default, half of them would say nothing."""
            del ctx
            with formatter.section("Commands"):
                formatter.write_dl([(name, self.commands.help_of(name)) for name in self.commands])

    return LazyGroup


def _make_command(entry: JobEntry) -> Any:  # noqa: ANN401 - click, vendored by typer, is untyped
    module, _, function = entry.place.partition(":")
    job = getattr(import_module(f".{module}", __package__), function)
    alone: Final = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(entry.name, epilog=entry.epilog)(_prepared(job, tables=entry.tables))
    return typer.main.get_command(alone)


# Options that name a place, and that have a default: an unset variable of the shell must not stand for that.
_PLACES: Final = ("to", "against", "labels", "taxonomy", "policy", "config", "bundles")


def _prepared(job: Callable[..., Any], *, tables: bool) -> Callable[..., Any]:
    @wraps(job)
    def prepared(**arguments: Any) -> Any:  # noqa: ANN401 - those of the job
        for name in _PLACES:
            if isinstance(given := arguments.get(name), str) and not given.strip():
                from moderation.errors import UsageError

                raise UsageError(f"{name} is empty: is a variable of the shell unset? Leave it out for its default")
        if tables:
            from moderation.lean_imports import leave_pandas_out

            leave_pandas_out()
        return job(**arguments)

    return prepared

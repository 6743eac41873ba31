"""The table of commands says what the jobs say of themselves, and listing it imports none of them."""

from __future__ import annotations

import inspect
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs import table
from jobs.__main__ import app
from jobs.ending import EXIT_CODES
from jobs.lazy_group import JobEntry
from moderation.errors import UsageError

ENTRIES = [entry for group in vars(table).values() if isinstance(group, tuple) for entry in group]
# What a command that only shows help or a version must do without.
HEAVY = ("torch", "ray", "numpy", "pyarrow", "pydantic", "rich.console", "moderation.config")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.place)
def test_an_entry_says_the_first_sentence_of_its_job(entry: JobEntry) -> None:
    module, _, function = entry.place.partition(":")
    text = inspect.getdoc(getattr(import_module(f"jobs.{module}"), function)) or ""
    assert entry.help.endswith(".") and " ".join(text.split()).startswith(entry.help)


HELPERS = {"__init__", "__main__", "ending", "extending", "head_tables", "lazy_group", "options", "printing", "table"}


def test_every_job_file_is_in_the_table_of_commands() -> None:
    files = {path.stem for path in Path(table.__file__).parent.glob("*.py")} - HELPERS
    assert files == {entry.place.partition(":")[0] for entry in ENTRIES}
    listed = CliRunner().invoke(app, ["--help"]).output
    assert all(f"\n  {entry.name} " in listed for entry in table.COMMANDS)
    for group, entries in (("config", table.CONFIG), ("review", table.REVIEW), ("lists", table.LISTS)):
        shown = CliRunner().invoke(app, [group, "--help"]).output
        assert all(f"\n  {entry.name} " in shown for entry in entries)


@pytest.mark.parametrize("call", [["--help"], ["--version"]])
def test_help_and_version_import_nothing_of_the_library_but_its_version(call: list[str]) -> None:
    code = (
        "import sys, jobs.__main__ as m\n"
        f"try: m.main({call!r})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout[-200:]


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    answer = CliRunner().invoke(app, ["bakfill"])
    assert answer.exit_code == 2 and "'backfill'" in answer.output


@pytest.mark.parametrize(
    "call",
    [
        "export OUT --format csv --to ''",
        "report OUT --to ' '",
        "report OUT --against ''",
        "checks OUT --policy ''",
        "config show --config ''",
        "evaluate OUT --labels ''",
    ],
)
def test_the_empty_value_of_an_unset_variable_does_not_stand_for_the_default(call: str) -> None:
    with pytest.raises(UsageError, match=r"^(to|against|policy|config|labels) is empty"):
        CliRunner().invoke(app, shlex.split(call), catch_exceptions=False)


@pytest.mark.parametrize("code", [1, 3])
def test_every_job_with_an_exit_code_of_its_own_is_named_by_help_and_readme(code: int) -> None:
    jobs = Path(table.__file__).parent
    own = {p.stem.replace("_", "-") for p in jobs.glob("*.py") if f"typer.Exit({code})" in p.read_text()}
    readme = (jobs.parent / "README.md").read_text()
    (row,) = [line for line in readme.splitlines() if line.startswith(f"| {code} |")]
    for name in own - {"printing", "nightly"}:  # what all jobs share, and what is said of a run
        assert name in EXIT_CODES
        assert name in row

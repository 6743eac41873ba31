"""How a call ends: every error as a sentence and an exit code, never as a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import typer

# Nothing of the library is imported before a job is called: `--help` does not wait for it.

EXIT_CODES: Final = """Exit codes: 0 done. 1 `verify`, `review verify`, `policy test`, `promote` or `train-head` found
something amiss. 2 wrong usage or configuration, nothing was started. 3 done, but more items than runtime.max_error_rate
are errors, or nothing in SOURCE is a picture or a video; of `act`, `escalations`, `explain` and `export`: something
could not be done. 4 stopped by an error: once what it names is mended, the same command of backfill, keyframes or
nightly resumes. 5 ended early, as asked, with work left: the same command goes on (0 with --allow-partial). 70 a fault
of this program."""

USAGE: Final = 2
STOPPED: Final = 4
FAULT: Final = 70  # EX_SOFTWARE of sysexits.h
_INTERRUPTED: Final = 130  # what typer makes of Ctrl-C
_TRACEBACK: Final = "MODERATION_TRACEBACK"
# Jobs that commit as they go, so that the same command goes on with what is left.
_RESUMING: Final = frozenset({"backfill", "keyframes", "nightly"})
# ClickException, the base of what typer raises for a wrong call; some typer releases bundle a click of their own.
_CallError: Final = typer.BadParameter.__mro__[2]


def run_to_end(app: Callable[..., Any], arguments: Sequence[str]) -> None:
    """Call the application with these arguments. Raises SystemExit unless it returns without a code."""
    try:
        code = app(list(arguments), standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        _end_by(error, arguments)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        _print("Interrupted." + (" The same command resumes." if _resumes(arguments) else ""))
        sys.exit(STOPPED)
    if isinstance(code, int) and code:
        sys.exit(code)


def _end_by(error: Exception, arguments: Sequence[str]) -> NoReturn:
    from moderation.errors import ModerationError, UsageError

    from .printing import print_error

    if os.environ.get(_TRACEBACK):
        traceback.print_exception(error)
    if isinstance(error, _CallError):
        _end_wrong_call(error)
    if isinstance(error, typer.Abort):
        sys.exit(STOPPED)
    if isinstance(error, UsageError):
        print_error(f"error: {error}")
        sys.exit(USAGE)
    if isinstance(error, ModerationError | OSError):
        print_error(f"error: {error if isinstance(error, ModerationError) else _describe(error)}")
        if _resumes(arguments):
            _print("Once that is mended, the same command resumes.")
        sys.exit(STOPPED)
    print_error(f"error: a fault of this program: {_describe(error)}{_place(error)}")
    _print(f"Please report it; with {_TRACEBACK}=1 the same call shows all of it.")
    sys.exit(FAULT)


def _end_wrong_call(error: Any) -> NoReturn:  # noqa: ANN401 - a class that typer does not export
    """Print click's message, with quoted parts of the call escaped; for a command without arguments, its help."""
    from .printing import print_error

    context, message = getattr(error, "ctx", None), error.format_message()
    if context is not None and message == context.get_help():
        _print(message)
        sys.exit(error.exit_code)
    if context is not None:
        _print(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.")
    print_error(f"error: {message}")
    sys.exit(error.exit_code)


def _resumes(arguments: Sequence[str]) -> bool:
    return bool(arguments) and arguments[0] in _RESUMING


def _describe(error: BaseException) -> str:
    from moderation.errors import one_line

    return f"{type(error).__name__}: {one_line(error, 300)}"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _print(text: str) -> None:
    from .printing import plain_console

    plain_console(stderr=True, soft_wrap=True).print(text)
